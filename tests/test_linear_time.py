"""Whatever reads text of others takes time in proportion to its length.

Models, tools, guests, servers and files may write anything: half a tag ten thousand times, a
megabyte of spaces, brackets that never close. Each parser gets such texts, made of what it looks
for, at growing sizes: eight times the text may take no more than `MOST` times the CPU time
(8 is linear, 64 quadratic). A reader of streams gets them a character at a time.
"""

import asyncio
import gc
import io
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from random import Random

import httpx
import pytest
from support.fakes import NANO, Echo

from interlace.agent.cli.render.markdown import MarkdownStream
from interlace.agent.cli.render.sql_table import as_grid
from interlace.agent.cli.render.tag_stream import TagStream
from interlace.agent.cli.render.terminal import make_console, printable
from interlace.agent.output import OutputSchema
from interlace.rollout.engines.http.chat import ChatReply, to_chat
from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.formats import FORMATS, Message
from interlace.rollout.formats.base import Parsed
from interlace.rollout.formats.plain import PlainText
from interlace.rollout.formats.scan import boxed
from interlace.rollout.formats.stream import MarkStream
from interlace.rollout.formats.tags import Retool
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.rows import Located
from interlace.rollout.task import Task, equal_answers
from interlace.rollout.task_files import to_task
from interlace.rollout.team.replies import read_decision, read_experts, read_verdict, read_vote
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import FinishReason, StopReason
from interlace.tools import Tool
from interlace.tools.errors import InterlaceError
from interlace.tools.http_client import HttpClient
from interlace.tools.importing import parse_name
from interlace.tools.python.output import CellOutput
from interlace.tools.python.sandbox.transcript import (
    MOST_STRUCTURE,
    MessageReader,
    ProtocolError,
    Transcript,
)
from interlace.tools.search.documents import passages
from interlace.tools.search.sources import Remarks
from interlace.tools.search.words import normalized
from interlace.tools.sql import Rows, lexer
from interlace.tools.sql.compare import RULES
from interlace.tools.sql.problems import described_table
from interlace.tools.sql.render import render
from interlace.train.coldstart.gsm8k import trace_of
from interlace.train.data.public import openthoughts, retool_sft
from interlace.train.rewards.kinds import read_answer
from interlace.train.rewards.search import best_f1

MOST = 28.0
"""About the geometric mean of 8 and 64."""
LONGEST = 32_000
"""Characters. A parser that is too fast to be judged by then may be quadratic, but hurts nobody."""
COMPARABLE = 0.005
"""Seconds of CPU time."""

Parser = Callable[[str], object]
Text = Callable[[int], str]


def cpu(parse: Parser, text: str) -> float:
    """Seconds of CPU time of this thread."""
    started = time.thread_time()
    with suppress(InterlaceError, ProtocolError, ValueError):  # refusing takes its time too
        parse(text)
    return time.thread_time() - started


def growth(parse: Parser, text: Text, size: int = 1000) -> float:
    """How much longer the parser takes for eight times a text; 0 where it is too fast to say.

    Where it seems to be more than eight times as long, larger texts tell more.
    """
    ratio = 0.0
    while size <= LONGEST:
        # What a busy machine adds is different each time; the least is the parser's own.
        seconds = least(parse, text(size), 3, enough=COMPARABLE)
        if seconds >= COMPARABLE:
            ratio = seconds / least(parse, text(size // 8), 5)
            if ratio < 14 or seconds > 0.5:
                break
        size *= 2
    return ratio


def least(parse: Parser, text: str, tries: int, *, enough: float = 0.0) -> float:
    """The least CPU time of some tries; of fewer, once it is below `enough`."""
    seconds = cpu(parse, text)
    for _ in range(tries - 1):
        if seconds < enough:
            break
        seconds = min(seconds, cpu(parse, text))
    return seconds


@pytest.fixture(scope="module", autouse=True)
def no_collector() -> Iterator[None]:
    """The garbage of other tests is not the parser's work. To look for it takes a third of a
    second where torch is loaded: it is done once.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def repeated(*units: str, before: str = "", after: str = "") -> Text:
    """Each unit, one after the other, as often as makes a text of a length."""

    def text(length: int) -> str:
        each = max(1, (length - len(before) - len(after)) // len(units))
        return before + "".join(unit * (each // len(unit)) for unit in units) + after

    return text


def texts(atoms: Sequence[str], seed: int, count: int = 6) -> Iterator[tuple[str, Text]]:
    """Long texts made of a few pieces, each with its description: all of one piece, and some of
    those with two or three.
    """
    for a in atoms:
        yield f"{a!r} * n", repeated(a)
    pick = Random(seed)
    for _ in range(count):
        a, b, c = pick.sample(atoms, 3)
        yield f"{a!r} + {b!r} * n", repeated(b, before=a)
        yield f"({a!r} + {b!r}) * n", repeated(a + b)
        yield f"{a!r} * n + {b!r} * n + {c!r}", repeated(a, b, after=c)
        yield f"{a!r} + ({b!r} + {c!r}) * n", repeated(b + c, before=a)
        yield f"{a!r} + {b!r} * n + {c!r}", repeated(b, before=a, after=c)


# -- parsers of a whole text ---------------------------------------------------------------------


def turn(name: str, finish: FinishReason = FinishReason.EOS) -> Parser:
    """A format's reading of one turn."""
    return lambda text: FORMATS[name].parse(text, finish, ())


def chat(said: str) -> object:
    """A conversation in which the model said it, as a server's messages."""
    return to_chat([Message("user", "?"), Message("assistant", said), Message("user", said)])


def message(body: str) -> object:
    """A message of a sandboxed process, whatever its length."""
    data = (body + " " * MOST_STRUCTURE).encode("utf-8", "replace")
    return [*MessageReader().add(struct.pack(">I", len(data)) + data)]


def cell(text: str) -> object:
    """The output of a cell."""
    output = CellOutput(100_000, {})
    output.add("stream", {"text": text})
    output.add("execute_result", {"data": {"text/plain": text, "text/html": text}})
    return output.text()


def document(ending: str) -> Parser:
    """A file that is searched."""
    return lambda text: [*passages(f"a.{ending}", io.StringIO(text), 500, Remarks())]


def query(sql: str) -> object:
    """All that is said about a query."""
    return lexer.order_by(sql), lexer.names(sql), lexer.is_empty(sql), described_table(sql)


def table(text: str) -> object:
    """A result as the model reads it, and as a grid."""
    rows = Rows.of([text], [[text], ["x"]])
    return render(rows, budget=1000), as_grid(f"a\n{text}\n(2 rows)", 200)


def compared(text: str) -> object:
    """Two results of many rows, by each rule."""
    rows = Rows.of(["a", "b", "c"], [[*text[at : at + 3]] for at in range(0, len(text) - 2, 3)])
    return [rule(rows, rows) for rule in RULES.values()]


def located(text: str) -> object:
    """A row of a file of tasks."""
    return to_task(Located("t.jsonl, line 1", 1, {"question": text, "answer": text, "more": text}))


TOKENIZER = Tokenizer.load(NANO)
CODE = ('"""', "'", "\\", "#", "\n", " ", "```", "x")
MATH = tuple(
    r"""1 100 , \, \text{ } { ( ) [ ] ^ - _ \frac 12 ab \pi \sqrt = $ " \\ \pm ° . \{ & and \in
    \over \begin{pmatrix} \end{pmatrix} \overline{3}""".split()  # noqa: SIM905
)
SQL = tuple(
    """( ) ' " ` [ /* -- 1 . e , _ ; table_info pragma_ order by""".split()  # noqa: SIM905
)

PARSERS: dict[str, tuple[Parser, Sequence[str]]] = {
    "hermes": (
        turn("hermes"),
        ("<tool_call>", "</tool_call>", "<think>", '{"', "[", '"', "\n", "<tool_response>", " "),
    ),
    "retool": (
        turn("retool"),
        ("<code>", "</code>", "<answer>", "<interpreter>", "< inter", "<think>", "</think>", *CODE),
    ),
    "retool, paused": (turn("retool", FinishReason.STOP), ("<code>", "</code>", *CODE)),
    "reex_sql": (
        turn("reex_sql"),
        ("<intermediate_sql>", "</intermediate_sql>", "<final_sql>", "<result>", "/*", "--", "'"),
    ),
    "search_r1": (
        turn("search_r1"),
        ("<search>", "</search>", "<answer>", "< information ", "</information>", "\u200b", " "),
    ),
    "notebook": (
        turn("notebook"),
        (
            "<action_input>",
            "</action_input>",
            "<action>",
            "<stop_analysis>",
            "<observation>",
            *CODE,
        ),
    ),
    "markdown": (turn("markdown"), ("```python\n", "\n```\n", "```output", "\\boxed{", *CODE)),
    "plain text": (lambda t: PlainText().parse(t, FinishReason.EOS, ()), ("</think>", " ", "x")),
    "boxes": (boxed, ("\\boxed{", "\\boxed", "\\fbox{1},", "}", "{", "\\", " ", "and", "1", "a")),
    "chat": (chat, ("<think>", "</think>", " ", "\n", "x")),
    "structured answers": (
        lambda text: OutputSchema(dict[str, int]).check(text),
        ("```", "json", "\n", " ", "{", "}", '"', '{"a": 1}', "["),
    ),
    "decisions": (
        read_decision,
        ("Decision:", "Recruit Number", "Direction:", "Maximum Tokens:", "#", "*", " ", "\n", "1"),
    ),
    "experts": (lambda text: read_experts(text, 3), ("1.", "*", " ", "\n", "12)", "x")),
    "votes": (read_vote, ("[agree]", "[disagree", "[", " ", "\n")),
    "verdicts": (
        read_verdict,
        ("correctness", "Correctness:", ":", "*", " ", "0", "advice:", "\n"),
    ),
    "math": (
        read_answer,
        (*MATH, " "),
    ),
    "numbers": (
        lambda text: (equal_answers(text, "1"), equal_answers(text, text + "1")),
        ("1", ",", "100", ".", "e", "-", "$", " ", "%"),
    ),
    "words": (lambda text: best_f1(text, [text, "a b"]), ("a ", "the ", "x", ".", " ")),
    "names": (lambda text: parse_name(f"a{text}"), ("@", "1", ".", "e", "=", ",", "a", ":", "+")),
    "messages of a worker": (message, ('"', "\\", "{", "[", ",", "1", ":", "a")),
    "cell output": (
        cell,
        ("\x1b[", "\x1b]", "0", ";", "\r", "\b", "\n", "<", " object", "\x07", "\0", "\ud800"),
    ),
    "Markdown files": (
        document("md"),
        ("# ", "#", " ", "x", "\n", "\t", "```", "\n\n", ". ", "- ", "> ", "[", "<!--", "x\n=\n"),
    ),
    "text files": (document("txt"), (" ", "x", "\n", ". ", "\r", "\x0b")),
    "reST files": (document("rst"), ("=", "x", " ", "\n", "==\n", "x\n==\n", "~", "\n\n")),
    "HTML files": (
        document("html"),
        ("<", "<!--", "<a ", "<p>", "</", "<script>", "<pre>", "<h1>", "&", "x", " ", ">", "\n"),
    ),
    "tables": (document("csv"), ("text\n", ",", '"', "x", "\n", " ")),
    "words of texts": (
        normalized,
        (
            "a",
            "A",
            "1",
            ",",
            "1,234",
            "-",
            "-\n",
            "aB",
            "#",
            "+",
            " ",
            "\u00ad",
            "\u0301",
            "\u0e01",
        ),
    ),
    "JSONL files": (document("jsonl"), ('{"text": "a"}\n', '"', "[", "{", "\n", " ")),
    "SQL": (query, (*SQL, " ", "\n")),
    "SQL results": (table, ("1", "_", ".", "e", "'", " ", "x", "|", " | ", "\\", "\x1b", "\n")),
    "results compared": (compared, ("a", "b", "1", " ", "abc", "abcd")),
    "tasks": (located, ("a", '"', "\\", "\n", "é")),
    "GSM8K": (
        lambda text: trace_of(Task("1", "?", None, {"solution": text})),
        ("<<", "1", "=", ">>", "+", "(", "%", ".", "<<1=1>>", " "),
    ),
    "ReTool's traces": (
        lambda text: retool_sft(
            {"messages": [{"content": "*user question:*" + text}, {"content": text}]}
        ),
        ("<answer>", "</answer>", "\\boxed", "{", "}", " ", "\n", "$", "*user question:*"),
    ),
    "OpenThoughts": (
        lambda text: openthoughts({"conversations": [{"value": text}, {"value": text}]}),
        ("<|begin_of_solution|>", "<|end_of_solution|>", "\\boxed", " ", "{", "$", "\\)", "\n"),
    ),
    "the screen": (printable, ("\x1b", "\r", "\n", "x", "\u202e")),
    "control tokens": (
        lambda text: TOKENIZER.escape_control_tokens(text, FORMATS["hermes"].control_tags),
        ("<", "<think>", "</think>", "a", " ", "\uff1c", "`", "\\", "<|im_end|>"),
    ),
    "tokens": (TOKENIZER.encode, ("a", " ", "\n", "<", "é", "1", "|im")),
}


@pytest.mark.parametrize("name", PARSERS)
def test_a_text_takes_time_in_proportion_to_its_length(name: str) -> None:
    parse, atoms = PARSERS[name]
    for what, text in texts(atoms, seed=len(name)):
        assert growth(parse, text) <= MOST, f"{name}: {what}"


# Each of these took time with the square of its length, or ended its reader.
FOUND: dict[str, tuple[Parser, Text]] = {
    "JSON errors that count lines": (turn("hermes"), repeated("<tool_call>\n")),
    "the end of a fence": (
        turn("retool"),
        repeated(" ", before="<code>```\n```", after="x</code>"),
    ),
    "boxes in boxes": (boxed, repeated("\\boxed{", "}")),
    "a list of boxes": (boxed, lambda n: ",".join(f"\\boxed{{{i}}}" for i in range(n // 14))),
    "empty lines in a fence": (
        lambda text: OutputSchema(dict[str, int]).check(text),
        repeated("\n", before="```"),
    ),
    "a verdict without a number": (read_verdict, repeated("correctness:")),
    "digits behind an @": (parse_name, repeated("1", before="a@", after="x")),
    "blanks in a heading": (document("md"), repeated(" ", "x", " ", before="# ", after="y")),
    "digits in a cell": (table, repeated("1", after="x")),
    "parentheses around an order": (query, repeated("(", ")")),
    "groups of digits": (read_answer, repeated(",100", before="1", after=",00")),
    "thin spaces": (read_answer, repeated("\\,")),
    "brackets the wrong way round": (read_answer, repeated(")", "(", ")")),
    "arguments without braces": (read_answer, repeated("\\frac12")),
    "words behind a number": (read_answer, repeated(" ab", before="5")),
    "percents": (
        lambda text: trace_of(Task("1", "?", None, {"solution": f"<<{text}=1>>"})),
        repeated("1", after="x"),
    ),
    "steps of a solution": (
        lambda text: trace_of(Task("1", "?", None, {"solution": text})),
        repeated("<<1=1>>1 clip. "),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_was_quadratic_is_linear(what: str) -> None:
    parse, text = FOUND[what]
    assert growth(parse, text) <= MOST


def test_escaped_quotes_in_a_large_message_are_passed_over_once() -> None:
    text = repeated('\\"', before='"', after="\\")
    assert growth(message, text, size=LONGEST) <= MOST


@pytest.mark.parametrize(
    "text",
    [
        "\\text{" * 285 + "x" + "}" * 285,
        "2^" + "-" * 1_900,
        "5" + " ab" * 600,
        "0." + "1" * 1_900 + "\\overline{" + "7" * 80 + "}",
        "x + 0." + "1" * 4_500,
        "0.{" + "1" * 3_000 + "}\\overline{" + "7" * 3_000 + "}",
    ],
    ids=lambda text: text[:12],
)
def test_an_answer_of_any_depth_and_length_is_read(text: str) -> None:
    assert read_answer(text)[0] in ("expr", "raw", "word", "list")


def test_a_solution_of_any_depth_is_refused_or_read() -> None:
    for expression in ("1" + "+1" * 5_000, "(" * 500 + "1" + ")" * 500, "-" * 5_000 + "1"):
        trace_of(Task("1", "?", None, {"solution": f"<<{expression}=1>>"}))


# -- readers of streams --------------------------------------------------------------------------


def marks(text: str) -> object:
    stream = MarkStream()
    known = ("<think>", "<tool_call>", "```", "```python\n")
    return [[*stream.feed(each, lambda: known)] for each in text], stream.end()


def painted(text: str) -> object:
    painter = TagStream()
    return [[*painter.feed(each)] for each in text], [*painter.end()]


def prose(text: str) -> object:
    shown = MarkdownStream(make_console(io.StringIO(), force_terminal=True, width=80, height=24))
    for each in text:
        shown.feed(each)
    shown.end()
    return None


def deltas(text: str) -> object:
    reply = ChatReply()
    said = [reply.read({"choices": [{"delta": {"content": each}}]}) for each in text]
    calls = [{"index": 0, "function": {"name": "f", "arguments": each}} for each in text]
    parts = [reply.read({"choices": [{"delta": {"tool_calls": [call]}}]}) for call in calls]
    return said, parts, reply.end()


def decoded(text: str) -> object:
    stream = TOKENIZER.stream()
    return [stream.push(id) for id in TOKENIZER.encode(text)]


def written(text: str) -> object:
    """A cell's text, and a mark for each of its displays."""
    mark = "\0request\0"
    transcript = Transcript("request", CellOutput(10_000, {}), 10_000)
    for each in text.replace("DISPLAY", mark):
        transcript.add_text(each.encode("utf-8", "replace"))
    transcript.end_text()
    return None


class Pieces(httpx.AsyncByteStream):
    """The body of a response that comes a byte at a time."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for each in self._text:
            yield each.encode("utf-8", "replace")


def answered(text: str) -> object:
    client = HttpClient(
        "server",
        httpx.AsyncClient,
        tries=1,
        pause=0.0,
        longest_wait=0.0,
        passing=frozenset(),
        most_bytes=1 << 30,
    )

    async def read() -> list[bytes]:
        return [line async for line in client.read_lines(httpx.Response(200, stream=Pieces(text)))]

    return asyncio.run(read())


STREAMS: dict[str, tuple[Parser, Sequence[str]]] = {
    "marks": (marks, ("<think>", "<", "<tool_call", "`", "```", "x")),
    "colours": (painted, ("\\boxed", "{", "}", " ", "<code>", "</code>", "`", "\\", "<answer>")),
    "prose": (prose, ("x", "\n", "\n```\n", "  ", "|a|b|\n", "[")),
    "deltas": (deltas, ("x", '"', "\ud83d", "\udc4d", "{", "}")),
    "decoded tokens": (decoded, ("a", "é", "\U0001f44d", " ")),
    "a cell's text": (written, ("x", "\n", "\0", "\0request", "é")),
    "a server's lines": (answered, ("x", "\n", "data:", "\r")),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_takes_time_in_proportion_to_its_length(name: str) -> None:
    read, atoms = STREAMS[name]
    for what, text in texts(atoms, seed=len(name), count=2):
        assert growth(read, text) <= MOST, f"{name}: {what}"


class Counting(Retool):
    """ReTool, and how often a turn was read."""

    readings = 0

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """Read one turn."""
        self.readings += 1
        return super().parse(text, finish, tools)


def test_a_turn_that_closes_nothing_again_and_again_is_not_read_each_time() -> None:
    format = Counting()
    engine = ScriptedEngine(TOKENIZER, ["</code>" * 500 + "<answer>\\boxed{7}</answer>"])

    async def ask() -> StopReason | None:
        async with Rollout(Policy(engine, format, [Echo()]), name="t", seed=1) as rollout:
            return (await rollout.ask("q")).stop

    assert asyncio.run(ask()) is StopReason.ANSWERED
    assert format.readings == len(engine.requests) < 70

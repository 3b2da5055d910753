"""What a call shows and what a model thinks, while it happens."""

import asyncio
import io
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import answer, code
from support.tiny_models import byte_tokenizer

from interlace import Agent, Limits, tool
from interlace.agent import AgentEvent, Reasoning, Result
from interlace.agent.cli.render.markdown import MarkdownStream
from interlace.agent.cli.render.terminal import make_console
from interlace.agent.thinking import Thinking
from interlace.rollout.engines import Reply, ScriptedEngine
from interlace.rollout.events import CallFinished, CallOutput, PolicyText
from interlace.rollout.formats import FORMATS
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import StopReason, Trajectory
from interlace.tools import ErrorKind

SAID = "So <b> <think>I\n count</think> <thin 7<think></think>end<"


def engine(folder: Path, *script: Reply) -> ScriptedEngine:
    return ScriptedEngine(byte_tokenizer(folder), script)


async def collect(agent: Agent, question: str = "?") -> list[AgentEvent]:
    return [event async for event in agent.stream(question)]


@pytest.mark.parametrize("backend", ["python", "python:jupyter"])
def test_what_a_cell_prints_is_heard_and_kept_though_it_never_ends(
    tmp_path: Path, backend: str
) -> None:
    """This cell never ends by itself: it is stopped once it was heard."""
    cell = "import time\nprint('a\\0', flush=True)\ntime.sleep(3600)"
    agent = Agent(engine(tmp_path, code(cell)), tools=[backend])

    async def work() -> Result | None:
        run = agent.stream("?")
        async with aclosing(run):
            async for event in run:
                if isinstance(event, CallOutput) and "\n" in event.text:
                    run.cancel()
        return run.result

    result = asyncio.run(work())
    assert result is not None and result.stop is StopReason.CANCELLED
    assert [(call.output, call.error) for call in result.calls] == [
        ("a\\x00\n(interrupted)", ErrorKind.INTERRUPTED)
    ]
    said = agent.engine.tokenizer.decode(result.trajectory.ledger.ids)  # type: ignore[union-attr]
    assert "(interrupted)" in said.split(cell)[1]


def test_the_deadline_of_a_question_keeps_what_its_call_had_shown(tmp_path: Path) -> None:
    """Much of it: what the sandbox holds back of a long text, too."""
    cell = "print('head' + ' ' * 200_000 + 'tail', flush=True)\nimport time; time.sleep(3600)"
    agent = Agent(engine(tmp_path, code(cell)), limits=Limits(timeout=5))
    result = agent.run_sync("?")
    assert result.stop is StopReason.TIMEOUT
    (call,) = result.calls
    whole = call.full_output or ""
    assert whole.startswith("head ") and whole.endswith(" tail\n(interrupted)"), whole[-100:]


def test_what_was_heard_is_the_beginning_of_the_result(tmp_path: Path) -> None:
    cell = "import sys\nfor n in range(4):\n    print(n, file=[sys.stdout, sys.stderr][n % 2])\n42"
    agent = Agent(engine(tmp_path, code(cell), answer("42")))
    events = asyncio.run(collect(agent))
    heard = "".join(event.text for event in events if isinstance(event, CallOutput))
    (finished,) = [event.call.output for event in events if isinstance(event, CallFinished)]
    assert (heard, finished) == ("0\n1\n2\n3\n", "0\n1\n2\n3\n42")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_function_that_yields_is_heard_and_its_deadline_keeps_what_there_is(
    tmp_path: Path, asynchronous: bool
) -> None:
    async def apieces(n: int) -> AsyncIterator[str]:
        """Count."""
        for i in range(n):
            yield f"piece {i}\n"
        if n > 2:
            await asyncio.sleep(3600)

    ended: list[bool] = []

    def pieces(n: int) -> Iterator[str]:
        """Count."""
        try:
            for i in range(n):
                yield f"piece {i}\n"
            while n > 2:
                yield ""
        finally:
            ended.append(True)

    one = tool(apieces if asynchronous else pieces, name="pieces")
    heard: list[str] = []

    async def work() -> None:
        async with one.session() as session:
            session.on_output = heard.append  # type: ignore[attr-defined]
            whole = await session.call({"n": 2}, 20)
            assert (whole.text, whole.error) == ("piece 0\npiece 1", None)
            assert heard == ["piece 0\n", "piece 1\n"]
            late = await session.call({"n": 3}, 0.2)
            assert late.text == "piece 0\npiece 1\npiece 2\nThe time limit of 0.2 s was reached."
            assert late.error is ErrorKind.TIMEOUT
            heard.clear()
            call = asyncio.create_task(session.call({"n": 3}, 20))
            while "piece 2\n" not in heard:
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait({call})
            stopped = session.interrupted  # type: ignore[attr-defined]
            assert stopped.text.startswith("piece 0\npiece 1\npiece 2\n")
            assert stopped.text.endswith("(interrupted)")
            while one.stray:  # a thread stops where it yields
                await asyncio.sleep(0.01)

    asyncio.run(work())
    assert len(ended) == (0 if asynchronous else 3)


@settings(deadline=None)
@given(cuts=st.sets(st.integers(1, len(SAID) - 1)))
def test_thoughts_are_told_from_words_however_the_stream_is_cut(cuts: set[int]) -> None:
    parts = [SAID[a:b] for a, b in pairwise([0, *sorted(cuts), len(SAID)])]
    thinking, trajectory = Thinking(policy()), Trajectory("m", "hermes")
    events = [e for part in parts for e in thinking.hear(PolicyText(part, 1), trajectory)]
    events += thinking.hear(CallOutput("", ""), trajectory)[:-1]
    tokens = [e.tokens for e in events if isinstance(e, Reasoning | PolicyText)]
    assert sum(tokens) == len(parts)
    thought = "".join(event.text for event in events if isinstance(event, Reasoning))
    words = "".join(event.text for event in events if isinstance(event, PolicyText))
    assert (thought, words) == ("<think>I\n count</think><think></think>", "So <b>  <thin 7end<")


@cache
def policy() -> Policy:
    with tempfile.TemporaryDirectory() as folder:
        return Policy(engine(Path(folder)), FORMATS["hermes"])


def test_an_agents_stream_tells_thoughts_apart_and_leaves_nothing_out(tmp_path: Path) -> None:
    said = "<think>Let me see.</think>It is \\boxed{7}<"
    agent = Agent(engine(tmp_path, said), tools=[], format="hermes")
    events = asyncio.run(collect(agent))
    assert "".join(e.text for e in events if isinstance(e, Reasoning | PolicyText)) == said
    assert "".join(e.text for e in events if isinstance(e, Reasoning)) == said[:-16]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *parts: str) -> str:
    """What stands on the screen at the end, as text."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    prose = MarkdownStream(make_console(stream, width=40, height=20))
    for part in parts:
        prose.feed(part)
    prose.end()
    return screen(stream.getvalue())


def screen(sent: str) -> str:
    """What a terminal that obeys the few things that are sent would show."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n", sent):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part.endswith("A") and part[0] == "\x1b":
            row -= int(part[2:-1] or 1)
        elif part[0] != "\x1b":
            lines[row] = f"{lines[row][:column]:{column}}{part}{lines[row][column + 1 :]}"
            column += 1
    return "\n".join(line.rstrip() for line in lines).strip("\n")


MARKDOWN = """# Towns

First,
a *table*:

| town | people |
|---|---:|
| Oslo | 717710 |

It is \\(x_1\\) &amp; <b>
[here](http://a.b)
"""


def test_words_are_markdown_and_nothing_that_was_written_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert shown(monkeypatch, MARKDOWN) == (
        "# Towns\n\nFirst,\na table:\n\n town  people\n ────────────\n Oslo  717710\n\n"
        "It is \\(x_1\\) &amp; <b>\nhere (http://a.b)"
    )


@settings(deadline=None)
@given(cuts=st.sets(st.integers(1, len(MARKDOWN) - 1), max_size=6))
def test_markdown_looks_the_same_however_the_stream_is_cut(cuts: set[int]) -> None:
    parts = [MARKDOWN[a:b] for a, b in pairwise([0, *sorted(cuts), len(MARKDOWN)])]
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert shown(monkeypatch, *parts) == shown(monkeypatch, MARKDOWN)


def test_a_listing_is_one_block_and_may_be_longer_than_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = ["```text\n", *(f"line {n}\n\n" for n in range(30)), "```\n"]
    lines = [f" line {n}" for n in range(30)]
    assert shown(monkeypatch, *parts) == "\n\n".join(lines)


def test_a_block_of_any_length_is_shown_whole_and_a_very_long_one_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long, very_long = ("*word*\n" * count for count in (2_000, 4_000))
    parts = [very_long[at : at + 1_000] for at in range(0, len(very_long), 1_000)]
    assert shown(monkeypatch, long) == "\n".join(["word"] * 2_000)
    assert shown(monkeypatch, *parts, "\nThe *end*.") == f"{very_long}\nThe end."

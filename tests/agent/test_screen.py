"""What a person sees: the same however the stream is cut, and nothing that acts on a terminal."""

import io
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fakes import answer, code

from interlace.agent.cli.render.images import save_artifact
from interlace.agent.cli.render.live_view import LiveView
from interlace.agent.cli.render.tag_stream import TagStream
from interlace.agent.cli.render.terminal import escape_json, is_plain, make_console, printable
from interlace.rollout.events import CallFinished, CallOutput, CallStarted, Notice, PolicyText
from interlace.rollout.trajectory import CallRecord
from interlace.tools import Artifact, ErrorKind


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


SAID = "I count < 3.\n" + code('x = "<b>"\nprint(f"{x}")') + "\nThen " + answer("7 < 8")
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066\ud800-\udfff]")


def painted(parts: list[str]) -> list[tuple[str, str]]:
    """Each kind's text, joined where it goes on."""
    painter, joined = TagStream(), list[tuple[str, str]]()
    for piece in [*(p for part in parts for p in painter.feed(part)), *painter.end()]:
        if joined and joined[-1][1] == piece[1]:
            joined[-1] = (joined[-1][0] + piece[0], piece[1])
        else:
            joined.append(piece)
    return joined


def test_code_and_answer_are_told_from_words_without_their_tags() -> None:
    assert painted([SAID]) == [
        ("I count < 3.\n", "words"),
        ('\nx = "<b>"\nprint(f"{x}")\n', "code"),
        ("\nThen So ", "words"),
        ("7 < 8", "answer"),
    ]
    assert painted(['<answer>{"a": {}}</answer>.']) == [('{"a": {}}', "answer"), (".", "words")]


BOXES = [
    (r"\boxed{5} apples", "5 apples"),
    (r"about \boxed {5}, or \boxed{\frac{1}{2}}{x}", r"about 5, or \frac{1}{2}{x}"),
    (r"\boxed{\boxed{\{1, 2\}}} {", r"\{1, 2\} {"),
    (r"\\boxed{5} \bo} \boxed{5", r"\\boxed{5} \bo} 5"),
    ("5\\boxed", "5\\boxed"),
]


@pytest.mark.parametrize(("said", "seen"), BOXES)
def test_an_answer_is_seen_without_its_box_and_with_all_around_it(said: str, seen: str) -> None:
    for whole, rest in ((f"<answer>{said}</answer> Yes.", " Yes."), (f"<answer>{said}", "")):
        pieces = [(seen, "answer"), *([(rest, "words")] if rest else [])]
        assert painted([whole]) == painted(list(whole)) == pieces
    assert painted([said]) == painted(list(said)) == [(seen, "words")]
    listing = f"```python\n{said}\n```"
    assert painted([listing]) == painted(list(listing)) == [(f"{said}\n", "code")]


@given(cuts=st.sets(st.integers(1, len(SAID) - 1)))
def test_what_is_shown_does_not_depend_on_how_the_stream_was_cut(cuts: set[int]) -> None:
    ends = [0, *sorted(cuts), len(SAID)]
    parts = [SAID[a:b] for a, b in pairwise(ends)]
    assert painted(parts) == painted([SAID])


@given(text=st.text(st.characters(exclude_categories=[])))
def test_nothing_that_acts_on_a_terminal_gets_through(text: str) -> None:
    assert not CONTROLS.search(printable(text).replace("\n", "").replace("\t", ""))
    line = escape_json(json.dumps({"answer": text}, ensure_ascii=False))
    assert not CONTROLS.search(line)
    assert json.loads(line) == {"answer": text}


def test_a_screen_without_colours_reads_like_this() -> None:
    stream = io.StringIO()
    screen = LiveView(make_console(stream))
    screen.show(PolicyText("I count.\n" + code("print(1)\n1/0"), 9))
    screen.show(CallStarted("python", {"code": "print(1)\n1/0"}))
    failed = CallRecord("python", {}, "1\x1b[2J\nZeroDivisionError", ErrorKind.EXCEPTION)
    screen.show(CallFinished(failed))
    screen.show(Notice("1 tool call left"))
    screen.show(PolicyText('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', 9))
    screen.show(CallStarted("add", {"a": 1}))
    screen.show(CallFinished(CallRecord("add", {"a": 1}, "2")))
    screen.show(PolicyText("\n\nIt is 2.", 3))
    screen.say("12 tokens", "dim")
    assert stream.getvalue() == (
        "I count.\n│ print(1)\n│ 1/0\n→ 1␛[2J\n  ZeroDivisionError\n[1 tool call left]\n"
        "│ add(a=1)\n→ 2\nIt is 2.\n12 tokens\n"
    )


@pytest.mark.parametrize(
    ("variables", "plain"),
    [
        ({"TERM": "xterm"}, False),
        ({"TERM": "dumb"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
    ],
)
def test_colours_only_where_they_belong(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], plain: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    LiveView(make_console(stream)).say("1 / 0", "error")
    assert is_plain(stream) is plain
    assert ("\x1b[" in stream.getvalue()) is not plain


LINES = [f"row {number}\n" for number in range(70)]


@pytest.mark.parametrize(
    "before",
    ["", "\n" * 5, "\x0c" * 20 + "\n", "".join(f"\r{percent} %" for percent in range(40)) + "\n"],
    ids=["nothing", "empty lines", "form feeds", "a progress bar"],
)
@pytest.mark.parametrize("heard", ["line by line", "at once", "never"])
def test_each_line_of_a_long_output_is_shown_once_or_counted_and_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, heard: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    stream, whole = Terminal(), (before + "".join(LINES)).strip("\n")
    screen = LiveView(make_console(stream))
    screen.show(CallStarted("python", {"code": "work()"}))
    parts = {"line by line": [before, *LINES], "at once": [before + "".join(LINES)], "never": []}
    for part in parts[heard]:
        screen.show(CallOutput("python", part))
    screen.show(CallFinished(CallRecord("python", {}, "row 0", full_output=whole)))
    screen.line()
    rows = [int(row) for row in re.findall(r"row (\d+)", stream.getvalue())]
    (hidden,) = re.findall(r"… (\d+) lines: (.*)]", stream.getvalue().replace("\n  ", ""))
    assert rows == sorted(set(rows)) and len(rows) + int(hidden[0]) == len(LINES)
    assert Path(hidden[1]).read_bytes().decode() == whole


def test_a_long_output_that_can_not_be_kept_is_shown_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    whole, stream = "".join(LINES), Terminal()
    file = save_artifact(Artifact("text/plain", whole.encode()))
    file.unlink()
    file.mkdir()  # so that it can't be written
    LiveView(make_console(stream)).show(CallFinished(CallRecord("python", {}, whole)))
    assert "kept in the record" in stream.getvalue() and "row 69" in stream.getvalue()

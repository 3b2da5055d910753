"""Reports: what a person copies is whole at any width, and a program reads lines with tabs."""

import io

import pytest
from rich.console import Console

from interlace.agent.cli.actions.conversations import _markdown
from interlace.agent.cli.render.rows import print_rows

IDS = ("4f2a90c1d3e7", "9c01b2a3d4e5")
ROWS = [(id, "2026-11-30 09:40", "Qwen/Qwen3-0.6B", "3", "How many bolts " * 9) for id in IDS]
HEADS = ("id", "when", "model", "asked", "begins with")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("colours", [None, "standard"])
def test_no_id_is_cut_or_broken_at_any_width(width: int, colours: None) -> None:
    screen = Terminal()
    console = Console(file=screen, width=width, color_system=colours, highlight=False)
    print_rows(console, HEADS, ROWS, right=("asked",), shorten=True)
    lines = screen.getvalue().splitlines()
    for id in IDS:
        (line,) = [line for line in lines if id in line]
        assert "2026-11-30 09:40  Qwen/Qwen3-0.6B      3" in line
    titles = [line for line in lines if "How many bolts" in line]
    assert len(titles) == 2 and all("…" in line for line in titles) is (width < 200)
    if width >= 80:
        assert all(len(line) <= width for line in lines)


def test_a_program_reads_whole_values_between_tabs() -> None:
    pipe = io.StringIO()
    odd = ("a\tb", "one\nline", "\x1b[31mred")
    print_rows(Console(file=pipe, width=20), ("a", "b", "c"), [("x" * 99, "y", "z"), odd])
    assert pipe.getvalue() == f"{'x' * 99}\ty\tz\na b\tone line\t␛[31mred\n"


def test_one_long_value_pads_no_other_row() -> None:
    screen = Terminal()
    rows = [("1", "short", "yes"), ("2", "long " * 400, "no")]
    console = Console(file=screen, width=80, color_system=None)
    print_rows(console, ("id", "question", "answer"), rows, shorten=True)
    (line,) = [line for line in screen.getvalue().splitlines() if "short" in line]
    assert len(line) <= 80 and line.split() == ["1", "short", "yes"]


def test_the_name_of_a_tool_that_a_model_made_up_ends_no_fence_of_an_export() -> None:
    call = {"tool": "x\n```\n# Mine", "arguments": {"code": "1"}, "output": "```"}
    asked = {"question": "?", "calls": [call], "answer": "1", "stop": "answered"}
    text = _markdown({"id": "4f2a", "model": "nano", "questions": [asked]})
    assert "```xMine\n1\n```\n\n````\n```\n````\n" in text

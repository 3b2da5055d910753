"""The commands around a conversation: tools, init, completion; tables and plots on a screen."""

import base64
import io
import json
import os
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import warm

from interlace.agent.cli.render.images import picture_protocol, show_picture
from interlace.agent.cli.render.live_view import LiveView
from interlace.agent.cli.render.sql_table import as_grid
from interlace.agent.cli.render.terminal import make_console
from interlace.rollout.events import CallFinished
from interlace.rollout.trajectory import CallRecord
from interlace.tools import Artifact
from interlace.tools.sql.database import Rows
from interlace.tools.sql.render import render

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]


def interlace(*arguments: str | Path, **settings: str) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    done = warm.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **settings},
    )
    return done.returncode, done.stdout, done.stderr


def test_tools_says_what_a_model_is_told(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.execute("create table article (name text, price int)")
    db.close()
    code, out, _ = interlace("tools")
    assert code == 0 and "sql:FILE" in out and "reex_sql" in out
    code, out, _ = interlace("tools", f"sql:{tmp_path}/shop.db", "--json")
    (tool,) = json.loads(out)["tools"]
    assert (code, tool["name"]) == (0, "sql") and "article" in tool["description"]
    assert "reex_sql" in tool["formats"] and "retool" not in tool["formats"]
    assert interlace("tools", "abacus")[0] == 2


def test_init_writes_an_agent_that_answers_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    code, _, err = interlace("init", folder)
    assert code == 0 and f"python {folder}/agent.py" in err
    done = warm.run(
        [sys.executable, folder / "agent.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout == "1298552 (answered, 1 call)\n", done.stderr
    code, _, err = interlace("init", folder)
    assert code == 2 and "has a file agent.py already" in err


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("interlace conv", "conversations"),
        ("interlace chat --model sm", "smollm2"),
        ("interlace run --format her", "hermes"),
        ("interlace run --tool pyth", "python:jupyter"),
    ],
)
def test_the_shell_completes_commands_and_values(typed: str, completed: str) -> None:
    words = typed.split()
    settings = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    _, out, err = interlace(_INTERLACE_COMPLETE="complete_bash", **settings)
    assert completed in out.split(), err


def test_a_file_of_rules_and_one_that_makes_no_sense(tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("# mine\nforbid python\n")
    code, _, err = interlace("run", "?", "--approve", rules)
    assert code == 2 and "'forbid python' is no rule" in err


values = st.none() | st.integers() | st.floats() | st.text("ab |1") | st.binary(max_size=20)


@given(rows=st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=5))
def test_a_table_is_a_grid_with_all_its_values_in_columns(rows: list[list[Any]]) -> None:
    text = render(Rows.of(["first", "second"], rows))[0]
    lines = text.split("\n")[:-1]
    grid = as_grid(text, 10_000)
    if any(line.count(" | ") != 1 for line in lines):  # a value that holds the separator
        assert grid is None
        return
    assert grid is not None
    head, rule, *body = grid.split("\n")[:-1]
    assert {line.index("│") for line in (head, *body)} == {rule.index("┼")}
    cells = [[cell.strip() for cell in line.split("│")] for line in (head, *body)]
    assert cells == [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_a_plot_is_shown_where_the_terminal_can_and_saved_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert picture_protocol({"TERM": "xterm-kitty"}) == "kitty"
    assert picture_protocol({"TERM": "xterm", "TERM_PROGRAM": "iTerm.app"}) == "iterm"
    for other in ({"TERM": "xterm"}, {}, {"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}):
        assert picture_protocol(other) is None

    png = bytes(range(256)) * 40
    for protocol, pattern in (("kitty", r"\x1b_G[^;]*;([^\x1b]*)\x1b\\"), ("iterm", ":([^\x07]*)")):
        stream = io.StringIO()
        show_picture(stream, png, protocol)
        assert base64.b64decode("".join(re.findall(pattern, stream.getvalue()))) == png

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    stream = io.StringIO()
    record = CallRecord("python", {}, "[image/png: plot-1.png]")
    record.artifacts = [Artifact("image/png", png)]
    LiveView(make_console(stream)).show(CallFinished(record))
    named = re.search(r"\[image/png: (.*\.png)\]\Z", stream.getvalue().rstrip())
    assert named is not None and Path(named[1]).read_bytes() == png

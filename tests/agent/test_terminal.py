"""The chat as a person meets it: keys pressed in a real pseudo-terminal, and what it shows."""

import json
import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest
from support import warm
from support.fakes import code
from support.teams import decision, experts, verdict
from support.terminal_session import TerminalSession

CLI = Path(__file__).parents[1] / "support/scripted_cli.py"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*3[0-9]")
ENTER, CTRL_C, CTRL_D, CTRL_R = "\r", "\x03", "\x04", "\x12"


def answer(text: str) -> str:
    return f"<answer>{text}</answer>"


def ready(terminal: TerminalSession) -> str:
    """Wait for the next prompt: only then are keys read one by one."""
    return terminal.expect(r"\n>")


def settings(folder: Path, *replies: str) -> dict[str, str]:
    file = folder / "replies.json"
    file.write_text(json.dumps(replies))
    state = {f"XDG_{kind}_HOME": str(folder) for kind in ("STATE", "DATA", "CACHE")}
    path = os.pathsep.join([str(CLI.parents[1]), *filter(None, sys.path)])
    return {**os.environ, **state, "REPLIES": str(file), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(
    folder: Path, *replies: str, arguments: str = "chat", columns: int = 100, **more: str
) -> TerminalSession:
    command = [sys.executable, str(CLI), *arguments.split()]
    environment = settings(folder, *replies)
    environment.pop("NO_COLOR", None)
    return TerminalSession(command, {**environment, **more}, columns=columns)


def test_ctrl_c_in_a_call_stops_the_answer_and_the_python_state_survives(tmp_path: Path) -> None:
    replies = [
        code("x = 17"),
        answer("set"),
        "I wait. " + code("import time\nprint(x)\ntime.sleep(3600)"),
        code("print(x * 2)"),
        answer("{has:I wait} {has:3600} {has:17\n(interrupted)}"),
    ]
    with start(tmp_path, *replies) as terminal:
        ready(terminal)
        terminal.type("Let x be 17." + ENTER)
        terminal.expect("set\n")
        ready(terminal)
        terminal.type("Sleep." + ENTER)
        terminal.expect(r"I wait\.")  # it streams
        terminal.expect(r"│ time\.sleep\(3600\)")
        terminal.expect("→ 17")  # while the cell still runs
        terminal.type(CTRL_C)
        terminal.expect(r"\[stopped\]")
        ready(terminal)
        terminal.type("Double x." + ENTER)
        terminal.expect("→ 34\n")
        terminal.expect("True True True\n")  # all until Ctrl-C, the cell's output too, is there
        assert COLOUR.search(terminal.raw)
        ready(terminal)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    command = [sys.executable, str(CLI), "conversations", "show"]
    kept = warm.run(command, env=settings(tmp_path), capture_output=True, text=True)
    assert "→ 17\n  (interrupted)\n" in kept.stdout, kept


def test_calls_are_approved_in_place(tmp_path: Path) -> None:
    replies = [
        *(code(f"print({n} + 1)") for n in (111, 222, 333, 444)),
        answer("{has:Not run: I say so}"),
    ]
    with start(tmp_path, *replies, arguments="chat --approve ask") as terminal:
        ready(terminal)
        terminal.type("Count." + ENTER + "y" + ENTER)  # typed ahead, which allows nothing
        asked = r"run this\? y, n \(why\), a\(lways\):"
        assert "print(111 + 1)" in terminal.expect(asked)
        terminal.type("n I say so" + ENTER)
        terminal.expect("→ Not run: I say so")
        terminal.expect(asked)
        terminal.type("y" + ENTER)
        terminal.expect("→ 223")
        terminal.expect(asked)
        terminal.type("a" + ENTER)
        terminal.expect("→ 334")
        assert "run this" not in terminal.expect("→ 445")
        terminal.expect("True\n")
        ready(terminal)
        terminal.type(CTRL_C + CTRL_C)
        assert terminal.end() == 130


def test_a_conversation_is_resumed_tomorrow(tmp_path: Path) -> None:
    with start(tmp_path, answer("eleven")) as terminal:
        ready(terminal)
        terminal.type("How many are 5 and 6?" + ENTER)
        terminal.expect("eleven\n")
        ready(terminal)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    with start(tmp_path, answer("{has:5 and 6}"), arguments="chat --resume") as terminal:
        said = terminal.expect("the tools begin anew") + terminal.expect("eleven")
        assert "[resumed: 1 questions" in said and "> How many are 5 and 6?" in said
        ready(terminal)
        terminal.type("What did I ask?" + ENTER)
        terminal.expect("True\n")
        ready(terminal)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    command = [sys.executable, str(CLI), "conversations"]
    listed = warm.run(command, env=settings(tmp_path), capture_output=True, text=True)
    assert listed.stdout.endswith("\tnano\t2\tHow many are 5 and 6?\n"), listed


def test_slash_commands(tmp_path: Path) -> None:
    replies = [answer("wrong"), answer("right {has:wrong}"), answer("{has:right} {has:And\nnow}")]
    with start(tmp_path, *replies) as terminal:
        for typed, shown in [
            ("/help", r"/budget \[tokens=5000\] +what is left"),
            ("/tools", "python: Runs Python code"),
            ("/nonsense", "unknown command /nonsense"),
            ("Well?", "wrong\n(.|\n)* tokens"),
            ("/retry", "> Well(.|\n)*right False(.|\n)* tokens"),
            ("/budget calls=3,tokens=90000", "90000 tokens, 3 calls left"),
            ("/undo", "taken back: Well"),
            ("And\\" + ENTER + "now?", "False True(.|\n)* 2 calls left|False True"),
            (f"/save {tmp_path}/t.jsonl", "saved; interlace show"),
        ]:
            ready(terminal)
            terminal.type(typed + ENTER)
            terminal.expect(shown)
        ready(terminal)
        terminal.type("/quit" + ENTER)
        assert terminal.end() == 0
    record = json.loads((tmp_path / "t.jsonl").read_text())
    assert len(record["trajectories"][0]["turns"]) == 1


def test_the_answer_of_a_team_is_seen_below_its_lane(tmp_path: Path) -> None:
    team = [decision(), experts("Ada", "Bob"), answer("forty-two"), "[Agree]", verdict(1)]
    with start(tmp_path, answer("one"), *team, arguments="chat --tool none") as terminal:
        for typed, shown in [
            ("One?", r"one\n\d+ tokens"),
            ("/team Two?", r"  accepted\nforty-two\n\d+ tokens"),
        ]:
            ready(terminal)
            terminal.type(typed + ENTER)
            terminal.expect(shown)


def test_another_model_goes_on_and_the_history_is_searched(tmp_path: Path) -> None:
    with start(tmp_path, answer("one"), answer("{has:Remember seven}")) as terminal:
        for typed, shown in [
            ("Remember seven.", "one\n(.|\n)* tokens"),
            ("/model ./nowhere", "there is no folder"),  # the old one goes on
            ("/model nano", "nano answers from now on; it has read"),
        ]:
            ready(terminal)
            terminal.type(typed + ENTER)
            terminal.expect(shown)
        ready(terminal)
        terminal.type(CTRL_R + "seven")
        terminal.expect("Remember seven")
        terminal.type(ENTER + ENTER)  # takes it out of the history, and asks it again
        terminal.expect("True\n")


@pytest.mark.parametrize("columns", [20, 100])
def test_a_table_is_a_grid_where_it_fits_and_there_are_no_colours_where_none_belong(
    tmp_path: Path, columns: int
) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as db:
        db.executescript(
            "create table town (name text, people int);"
            "insert into town values ('Oslo', 717710), ('Nes', 22000);"
        )
    db.close()
    query = "<intermediate_sql>SELECT name, people, name AS again FROM town</intermediate_sql>"
    replies = [query, "<final_sql>SELECT 1</final_sql>"]
    arguments = f"chat --tool sql:{tmp_path}/shop.db --format reex_sql"
    with start(tmp_path, *replies, arguments=arguments, columns=columns, NO_COLOR="1") as terminal:
        ready(terminal)
        terminal.type("Which towns?" + ENTER)
        shown = terminal.expect(r"\(2 rows\)")
        assert ("Oslo │ 717710 │ Oslo" in shown) is (columns == 100)
        assert ("Oslo | 717710 | Oslo" in shown) is (columns == 20)
        terminal.expect("SELECT 1\n")
        assert not COLOUR.search(terminal.raw)


def test_whoever_types_interlace_alone_is_led_to_an_answer(tmp_path: Path) -> None:
    replies = [code("print(4387 * 296)"), answer("1298552 {has:4387 bolts}")]
    with start(tmp_path, *replies, arguments="") as terminal:
        terminal.expect("Press Enter to ask")
        terminal.expect("How many bolts are in 296 crates")
        terminal.type(ENTER)
        terminal.expect("1298552 True\n")
        ready(terminal)
        terminal.type(CTRL_D)
        terminal.expect("interlace init")
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("options", "ends", "says"),
    [
        (["--approve", "ask"], 5, "nobody to ask"),
        (["--approve", "deny python 6", "--approve", "allow"], 5, "not allowed here"),
        (["--budget", "tokens=3"], 4, "the budget is spent"),
        (["--budget", "many"], 2, "a budget is written tokens=5000"),
    ],
)
def test_without_a_terminal_what_needs_a_person_is_denied(
    tmp_path: Path, options: list[str], ends: int, says: str
) -> None:
    command = [sys.executable, str(CLI), "run", "?", *options]
    environment = settings(tmp_path, code("print(6)"), "<think>I give up.")
    done = warm.run(command, env=environment, capture_output=True, text=True, input="")
    assert (done.returncode, done.stdout) == (ends, ""), done.stderr
    assert says in done.stderr


def test_the_author_of_a_function_sees_where_it_failed(tmp_path: Path) -> None:
    file = tmp_path / "berths.py"
    file.write_text(
        "def berth(number: int) -> str:\n"
        "    '''Who lies at a berth.'''\n"
        "    raise ValueError(f'there is no berth {number}')\n"
    )
    call = '<tool_call>{"name": "berth", "arguments": {"number": 9}}</tool_call>'
    command = f"run Free? --format hermes --tool {file}:berth"
    with start(tmp_path, call, "There is none.", arguments=command) as terminal:
        terminal.expect(r"│ berth\(number=9\)\n→ ValueError: there is no berth 9\n")
        terminal.expect(r"berths\.py., line 3, in berth\n")
        terminal.expect(r"There is none\.")
        assert terminal.end() == 0
        assert terminal.raw.count("line 3, in berth") == 1


def test_one_question_long_output_is_folded_and_the_answer_is_seen_once(tmp_path: Path) -> None:
    replies = [code("for i in range(3000):\n    print(f'row {i} of many')"), "I counted to 3000."]
    command = "run Count! --tool python"
    with start(tmp_path, *replies, arguments=command, columns=60) as terminal:
        terminal.expect(r"→ row 0 of many")
        folded = terminal.expect(r"\[… 2,940 lines: [^\]]+\.txt\]")
        terminal.expect(r"row 2999 of many")
        terminal.expect(r"I counted to 3000\.")
        assert terminal.end() == 0
        assert terminal.raw.count("I counted to 3000.") == 1
        assert "row 29 of" in folded and "row 30 of" not in folded
    (whole,) = (tmp_path / "interlace/outputs").iterdir()
    assert len(whole.read_text().splitlines()) == 3000

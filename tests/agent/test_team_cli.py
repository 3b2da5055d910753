"""A team on the command line: the CEO's decisions are a lane on stderr, the answer is on stdout."""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from support import warm
from support.fakes import answer
from support.teams import decision, experts, verdict
from typer.testing import CliRunner

from interlace.agent import read_rounds
from interlace.agent.cli.main import app
from interlace.agent.team.runs import Runs
from interlace.rollout.episode_log import read_episodes
from interlace.train.coldstart.m500 import LISTS

HOMES = ("XDG_STATE_HOME", "XDG_DATA_HOME")
CLI = Path(__file__).parents[1] / "support/scripted_cli.py"


def run(folder: Path, said: list[str], *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command whose model says this."""
    replies = folder / "replies.json"
    replies.write_text(json.dumps(said))
    done = warm.run(
        [sys.executable, CLI, *arguments, "--format", "retool", "--tool", "none"],
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ
        | {"REPLIES": str(replies), "PYTHONPATH": str(CLI.parents[1])}
        | dict.fromkeys(HOMES, str(folder)),
        timeout=240,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_team_answers_and_its_decisions_are_seen(tmp_path: Path) -> None:
    review = "No: it is off by one, and there is more to say of that than a line has room for."
    review += " [Disagree]"
    said = [
        decision(n=3, direction="mind the units"), experts("Ada", "Bob", "Cyd"), answer("42"),
        "Fine. [Agree]", review, answer("43"), "[Agree]", "[Agree]", verdict(1),
    ]  # fmt: skip
    code, answered, told = run(tmp_path, said, "run", "--team", "What?")
    assert (code, answered) == (0, "43\n"), told
    lane = told.splitlines()[1:-1]
    assert lane == [
        "CEO, round 1: 3 experts, 512 tokens each · mind the units",
        "  Ada solves; critics: Bob, Cyd",
        "  Bob agrees",
        "  Cyd disagrees: No: it is off by one, and there is more to say of that tha…",
        "  Bob agrees",
        "  Cyd agrees",
        "  accepted",
    ]


def test_votes_that_can_not_be_read_are_a_warning_for_people_and_programs(tmp_path: Path) -> None:
    said = [decision(), experts("Ada", "Bob"), answer("42"), *["Hm."] * 4, verdict(1)]
    team = ["run", "--team", "--rounds", "1", "--json", "What?"]
    _, answered, told = run(tmp_path, said, *team)
    *_, warning = json.loads(answered)["warnings"]
    assert "no critic has checked this answer" in warning and warning in told


def test_in_a_chat_with_a_team_each_question_is_answered_by_one(tmp_path: Path) -> None:
    once = [decision(), experts("Ada", "Bob"), answer("{has:First?}"), "[Agree]", verdict(1)]
    chat = ["chat", "--team", "--rounds", "1"]
    code, answered, told = run(tmp_path, once * 2, *chat, stdin="First?\n\nSecond?\n")
    assert (code, answered) == (0, "True\nFalse\n"), told
    assert told.count("  accepted\n") == 2
    code, _, told = run(tmp_path, [], *chat, "--resume")
    assert (code, "there is no unfinished run of a team" in told) == (9, True)


def test_a_chat_with_a_team_that_was_killed_goes_on_at_the_unfinished_step(tmp_path: Path) -> None:
    chat = ["chat", "--team", "--rounds", "1"]
    said = [decision(), experts("Ada", "Bob"), "{kill}"]
    assert run(tmp_path, said, *chat, "--keep", stdin="First?\n")[0] == -signal.SIGKILL
    rest = [answer("{has:First?}"), "[Agree]", verdict(1)]
    code, answered, told = run(tmp_path, rest, "chat", "--team", "--resume")  # of one round, again
    assert (code, answered) == (0, "True\n"), told
    assert "> First?" in told and "CEO" not in told
    assert run(tmp_path, [], *chat, "--resume")[0] == 9
    (file,) = tmp_path.rglob("teams.db")
    assert Runs(file).all() == []  # what has ended is nothing to go on with


def test_what_is_typed_behind_a_slash_holds_for_a_team_too(tmp_path: Path) -> None:
    once = [decision(), experts("Ada", "Bob"), answer("42"), "[Agree]", verdict(1)]
    log = tmp_path / "t.jsonl"
    typed = [
        f"/save {log}", "/undo", "First?", "/retry", "Second?", "/undo", "/budget tokens=9000",
        "/tools", "/model nano", "Third?", f"/save {log}", "/reset", f"/save {log}",
    ]  # fmt: skip
    chat = ["chat", "--team", "--rounds", "1"]
    code, answered, told = run(tmp_path, once * 4, *chat, stdin="\n".join([*typed, ""]))
    assert (code, answered) == (0, "42\n" * 4), told
    notices = [line for line in told.splitlines() if line[:1] in "[>" or line.startswith("spent")]
    assert re.sub(r"\d+ (?=tokens|s\b)", "N ", "\n".join(notices)) == "\n".join([
        "[there is nothing to save yet]", "[there is nothing to take back]", "> First?",
        "[taken back: Second?]", "spent: N tokens, 0 calls, N s", "[nano answers from now on]",
        f"[saved; interlace show {log}]", "[forgotten: what was asked]",
        "[there is nothing to save yet]",
    ])  # fmt: skip
    episodes = list(read_episodes(log))
    assert [(e.task.question, e.answer) for e in episodes] == [("First?", "42"), ("Third?", "42")]
    assert [len(round.plans) for e in episodes for round in read_rounds(e)] == [1, 1]
    assert json.loads(command("show", log, "--json").splitlines()[0])


def test_a_teams_answer_within_a_conversation_is_taken_back_and_saved(tmp_path: Path) -> None:
    team = [decision(), experts("Ada", "Bob"), answer("42"), "[Agree]", verdict(1)]
    log = tmp_path / "t.jsonl"
    typed = ["One?", "/team Two?", "/retry", f"/save {log}", "/undo", "/undo", "/undo"]
    stdin = "\n".join([*typed, ""])
    _, answered, told = run(tmp_path, [answer("1"), *team, *team], "chat", stdin=stdin)
    assert answered == "1\n42\n42\n", told
    assert re.findall(r"\[(?:taken|there).*\]", told) == [
        "[taken back: Two?]",
        "[taken back: One?; the state of the tools stays]",
        "[there is nothing to take back]",
    ]
    assert [e.task.question for e in read_episodes(log)] == ["One?", "Two?"]


def command(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == code, done.stderr
    return done.stdout


def test_a_teams_episodes_become_m500s_and_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the bundled model, of whom only what the solver says can be read."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    log, rows, out = tmp_path / "t.jsonl", tmp_path / "m500.jsonl", tmp_path / "cold"
    question = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
    (tmp_path / "tasks.txt").write_text(question)
    rolled: list[str | Path] = [
        "rollout",
        tmp_path / "tasks.txt",
        "--out",
        log,
        "--max-tokens",
        "256",
        "--seed",
        "0",
    ]
    team = ["--team", "--experts", "2", "--rounds", "1", "--temperature", "0"]
    command(*rolled, *team)
    command(*rolled, "--resume", "--temperature", "0", code=2)  # it was a team's
    assert ": solver Scientist, round 1" in command("show", log)
    command("show", log, "--m500", rows)
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert row["question"] == question and "1298552" in row["solution"]
    assert set(LISTS.values()) < set(row)
    command("coldstart", rows, "--from", "m500", "--out", out)
    report = json.loads((out / "report.json").read_text())
    assert (report["traces"], report["kept"]) == (1, 1)
    said = command("show", out / "traces.jsonl")
    assert f"{question}<|im_end|>" in said  # as words: the log names the model it is written for
    command("sft", out / "traces.jsonl", "--steps", "1", "--held-out", "0", "--out", tmp_path / "s")
    assert not (tmp_path / "s/checkpoint/interlace.json").exists()

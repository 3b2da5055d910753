"""`interlace eval` and `coldstart` as scripts meet them: real processes, the bundled model."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support import warm

from interlace.rollout.episode_log import read_episodes

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]
PATIENCE = 180  # seconds; on a machine with nothing else to do, each command takes ten


def interlace(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    settings = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *map(str, arguments)]
    done = warm.run(command, capture_output=True, env=settings, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


def report(*arguments: str | Path) -> dict[str, Any]:
    code, out, err = interlace(*arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tools on and off, on problems that need the tool."""
    folder = tmp_path_factory.mktemp("runs") / "pair"
    tasks = [f"A crate holds {n} bolts. How many bolts are in 296 crates?" for n in (4387, 9218)]
    lines = [
        json.dumps({"id": str(n), "question": tasks[n], "answer": str(296 * (4387, 9218)[n])})
        for n in (0, 1)
    ]
    file = folder.with_name("tasks.jsonl")
    file.write_text("\n".join(lines))
    code, _, err = interlace("eval", file, "--pair", "--out", folder, "--at-least", "0")
    assert code == 0, err
    return folder


def test_tools_on_and_off_on_the_same_tasks(evaluated: Path) -> None:
    with_tools = json.loads((evaluated / "tools/results.json").read_text())["summary"]
    without = json.loads((evaluated / "no_tools/results.json").read_text())["summary"]
    assert with_tools["accuracy"]["value"] == 1 and with_tools["behaviour"]["code_ratio"] == 1
    assert without["accuracy"]["value"] == 0 and without["behaviour"]["codes"] == 0
    assert with_tools["accuracy"]["method"] == "Wilson"


@pytest.mark.slow
def test_a_team_is_compared_with_one_agent_at_equal_tokens(evaluated: Path) -> None:
    sizes = ("--experts", "2", "--rounds", "1", "--max-tokens", "256")
    tasks = evaluated.with_name("tasks.jsonl")
    found = report("eval", tasks, "--compare", "single,vote@k,team", *sizes, "--limit", "1")
    (vote,) = (name for name in found if name.startswith("vote@"))
    single, team = (found[arm]["means"]["tokens"]["value"] for arm in ("single", "team"))
    assert vote == f"vote@{round(team / single)}" and team > single
    assert set(found["comparison"]) == {"single", vote}
    for arms in ("single,vote@k", "single,abacus", "single,single"):
        code, _, err = interlace("eval", tasks, "--compare", arms)
        assert code == 2 and err.count("\n") == 1


def test_two_runs_are_compared_from_their_files(evaluated: Path) -> None:
    found = report("eval", "--compare", evaluated / "no_tools", evaluated / "tools")["comparison"]
    assert found["accuracy"]["value"] == 1 and found["table"] == [0, 0, 2, 0] and found["p"] == 0.5
    logs = [evaluated / arm / "episodes.jsonl" for arm in ("no_tools", "tools")]
    assert report("eval", "--compare", *logs)["comparison"]["table"] == [0, 0, 2, 0]


def test_a_run_is_resumed_as_it_was_begun_or_not_at_all(tmp_path: Path) -> None:
    log = tmp_path / "run/episodes.jsonl"
    arguments = ("eval", "arithmetic:test:4", "--tool", "none", "--out", tmp_path / "run")
    whole = report(*arguments, "--n", "2")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:5]) + lines[5][:100])  # killed while it wrote
    code, _, err = interlace(*arguments, "--n", "2")
    assert code == 2 and "--resume completes it" in err
    code, _, err = interlace(*arguments, "--n", "2", "--max-turns", "2", "--resume")
    assert code == 2 and "begun with max_turns 16, not 2" in err and "loading" not in err
    again = report(*arguments, "--n", "2", "--resume")
    assert log.read_bytes().startswith(b"".join(lines[:5])) and len(list(read_episodes(log))) == 8
    assert again["accuracy"] == whole["accuracy"]  # the same seeds, so the same answers


def test_below_its_threshold_an_evaluation_exits_with_8(evaluated: Path, tmp_path: Path) -> None:
    tasks = evaluated.with_name("tasks.jsonl")
    code, out, _ = interlace("eval", tasks, "--tool", "none", "--at-least", "0.5")
    assert code == 8 and "accuracy" in out
    code, _, err = interlace("eval", tasks, "--pair", "--n", "4")
    assert code == 2 and "--pair is greedy" in err
    code, _, err = interlace("eval", "arithmetic:tset")
    assert code == 2 and "names no tasks" in err


def test_gsm8ks_solutions_become_a_log_that_can_be_read(tmp_path: Path) -> None:
    rows = [
        {"question": "4 and 3?", "answer": "That is 4+3=<<4+3=7>>7.\n#### 7"},
        {"question": "Half of 9?", "answer": "It is 9/2=<<9/2=4>>4.\n#### 4"},
        {"question": "2 times 3?", "answer": "That is 2*3=<<2*3=6>>6.\n#### 5"},
        {"question": "4 and 3!", "answer": "That is 4+3=<<4+3=7>>7.\n#### 7"},
        {"question": "What is asked in the test?", "answer": "<<1+1=2>>2\n#### 2"},
    ]
    file, test = tmp_path / "g.jsonl", tmp_path / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    test.write_text('{"question": "what is asked in the test", "answer": "2"}')
    out = tmp_path / "out"
    arguments = ("coldstart", f"gsm8k:{file}", "--from", "gsm8k", "--unlike", test, "--out", out)
    found = report(*arguments)
    assert found["kept"] == 1 and found["tasks_without_a_trace"] == 1
    assert found["tasks_left_out"] == {"duplicates": 1, "shared_with_tests": 1}
    assert found["dropped"] == {"wrong_answer": 1}
    (episode,) = read_episodes(out / "traces.jsonl")
    assert episode.answer == "7" and episode.trajectory.calls[0].output == "7"

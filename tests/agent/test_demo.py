"""The demo plays all its scenes, ends well when it is stopped, empties no folder but its own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.ledger import Source

DEMO = Path(__file__).parents[2] / "examples/demo.py"


def demo(out: Path) -> "subprocess.Popen[str]":
    """The demo at its smallest, as the leader of a process group, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, DEMO, "--small", "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.slow
def test_the_scenes_are_played_in_order_and_what_they_show_is_real(tmp_path: Path) -> None:
    with demo(tmp_path / "out") as running:
        shown, _ = running.communicate(timeout=1500)
    assert running.returncode == 0, shown
    assert re.findall(r"^(\d)\. ", shown, re.MULTILINE)[:6] == list("123456")
    for words in (
        "→ 1298552",  # 1: Python ran
        "policy    28",  # 2: who wrote what
        "all ",  # 3: the table's last line
        "steps  1 to  2",  # 4: the rewards
        "The query gives 20.",  # 5: SQL
        "It says 1680.",  # 5: search
        "CEO, round 1:",  # 6
        "That was all, in",
    ):
        assert words in shown
    out = tmp_path / "out"
    assert (out / "learnt/run.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(read_episodes(out / "many.jsonl"))) == 4
    roles = {
        trajectory.speaker.role
        for episode in read_episodes(out / "lessons.jsonl")
        for trajectory in episode.trajectories
        if all(span.weight for span in trajectory.ledger if span.source is Source.POLICY)
    }
    assert roles == {"ceo", "recruiter", "solver", "critic", "evaluator"}  # all could be read


def test_ctrl_c_ends_with_one_sentence_and_130(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with demo(out) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("$ interlace run"):
                break
        os.killpg(running.pid, signal.SIGINT)
        rest = running.stdout.read()
    assert running.returncode == 130
    assert f"Stopped. What was made until here is in {out}." in rest
    assert "Traceback" not in rest


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with demo(tmp_path) as running:
        shown, _ = running.communicate(timeout=240)
    assert running.returncode == 2
    assert "holds something else: name another folder with --out" in shown
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]

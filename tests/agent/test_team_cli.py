"""A team on the command line: the CEO's decisions are a lane on stderr, the answer is on stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

from doubles import answer
from teams import decision, experts, verdict

CLI = Path(__file__).parents[1] / "scripted_cli.py"


def test_a_team_answers_and_its_decisions_are_seen(tmp_path: Path) -> None:
    review = "No: it is off by one, and there is more to say of that than a line has room for."
    review += " [Disagree]"
    said = [
        decision(n=3, direction="mind the units"), experts("Ada", "Bob", "Cyd"), answer("42"),
        "Fine. [Agree]", review, answer("43"), "[Agree]", "[Agree]", verdict(1),
    ]  # fmt: skip
    replies = tmp_path / "replies.json"
    replies.write_text(json.dumps(said))
    done = subprocess.run(
        [sys.executable, CLI, "run", "--team", "--format", "retool", "--tool", "none", "What?"],
        capture_output=True,
        text=True,
        env=os.environ | {"REPLIES": str(replies), "XDG_STATE_HOME": str(tmp_path)},
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (0, "43\n"), done.stderr
    lane = done.stderr.splitlines()[1:-1]
    assert lane == [
        "CEO, round 1: 3 experts, 512 tokens each · mind the units",
        "  Ada solves; critics: Bob, Cyd",
        "  Bob agrees",
        "  Cyd disagrees: No: it is off by one, and there is more to say of that tha…",
        "  Bob agrees",
        "  Cyd agrees",
        "  accepted",
    ]

"""The code in docs/agent.md and docs/team.md runs as it stands, block after block."""

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_every_block_of_the_agents_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "agent.md").read_text(), re.DOTALL)
    assert len(blocks) == 6
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["1298552", "answered"]
    assert "it says 1298552" in lines
    assert re.search(r"^Left\(tokens=9\d{3}, calls=19, seconds=5\d\d", done.stdout, re.MULTILINE)
    assert lines[-3:] == ["1298552"] * 3  # approval, structured output, resumed


def test_every_block_of_the_teams_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "team.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Decided(round=0, goes_on=True, experts=2, tokens=512")
    assert "1298552" in lines and "[]" in lines
    assert [line.split()[0] for line in lines if line.endswith("trajectories")] == ["1298552"] * 2

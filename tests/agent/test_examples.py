"""Every example runs as it stands and prints what it promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTIONS = (
    "A crate holds 4387 bolts. How many bolts are in 296 crates?\n"
    "A box holds 25 nails. How many nails are in 312 boxes?\n"
)

PRINTS = {
    "ask.py": ["1298552 (1 call"],
    "stream.py": ["Python says: 14946", "answered: 14946"],
    "function_tool.py": ["the function was called with ['", "the answer is 1298552"],
    "rollouts.py": ["bolts/0  ", "bolts/7  ", "P"],
    "chat.py": ["1298552\n7800\n"],
}


def test_every_example_is_run_here() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_example(name: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        input=QUESTIONS,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONWARNINGS": "error::ResourceWarning"},
    )
    assert done.returncode == 0, done.stderr
    for words in PRINTS[name]:
        assert words in done.stdout

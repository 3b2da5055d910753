"""Every example runs as it stands and prints what it promises."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from support import warm

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTIONS = (
    "A crate holds 4387 bolts. How many bolts are in 296 crates?\n"
    "A box holds 25 nails. How many nails are in 312 boxes?\n"
)

PRINTS = {
    "ask.py": ["1298552 (1 call"],
    "stream.py": ["Python says: 14946", "answered: 14946"],
    "structured.py": ["1298553 is one more"],
    "approval.py": ["python wants to run 'print(", "14946; 9 calls left"],
    "web_app.py": ["1247 (answered)\n1276 (answered)\n1305 (answered)\n"],
    "service.py": ["clients: {'left': 4, 'right': 8}\n", "'answered': 8, 'left': 4} exit code 0\n"],
    "ceo_team.py": ["Decided(round=0, goes_on=True", "1298552, by "],
    "in_langgraph.py": ["1298552 True\n"],
    "function_tool.py": ["the function was called with ['", "the answer is 1298552"],
    "rollouts.py": ["bolts/0  ", "bolts/7  ", "P"],
    "database_per_task.py": ["select count(*) from tree where park = 'Forest, Green'"],
    "sql.py": ["> {'query': ", "(1 row)\n\n2\n"],
    "search.py": ["> {'query': ", "Gosel - sources: Belo Karan, Tiruna"],
    "chat.py": ["1298552\n7800\n"],
}


BRIEF = {"ask.py", "stream.py", "structured.py", "function_tool.py", "sql.py"}
"""Those that `make test` runs; the others wait for `make test-slow`."""

ELSEWHERE = {"demo.py", "team_lessons.py"}
"""Those that test_demo.py runs."""


def test_every_example_is_run() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(PRINTS) | ELSEWHERE


def test_the_notebook_runs_cell_by_cell() -> None:
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shown = []

    def hear(message: dict[str, Any]) -> None:
        assert message["msg_type"] != "error", message["content"]["evalue"]
        if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
            shown.append(message["content"]["text"])

    manager = KernelManager(transport="ipc")
    manager.start_kernel(env=os.environ | {"OMP_NUM_THREADS": "1"})
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=240)
        for cell in code:
            client.execute_interactive(cell, timeout=240, output_hook=hear)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "".join(shown) == "1298552\n7800\n"


@pytest.mark.parametrize(
    "name",
    [name if name in BRIEF else pytest.param(name, marks=pytest.mark.slow) for name in PRINTS],
)
def test_example(name: str) -> None:
    done = warm.run(
        [sys.executable, EXAMPLES / name],
        input=QUESTIONS,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=EXAMPLES.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for words in PRINTS[name]:
        assert words in done.stdout

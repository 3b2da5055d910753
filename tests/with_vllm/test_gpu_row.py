"""The row of vLLM in the table for a card, on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_row_is_measured() -> None:
    file = str(ROOT / "benchmarks" / "gpu.py")
    asked = [sys.executable, file, "--toy", "--json", "--rows", "vLLM", "--seconds", "400"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=500)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(f["name"], f["state"]) for f in figures] == [
        ("loading the engine", "ok"),
        ("sampled, 4 sequences", "ok"),
        ("our own time for a turn", "ok"),
    ], done.stderr
    assert all(f["value"] > 0 for f in figures)

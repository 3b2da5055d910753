"""The twenty hostile queries of `benchmarks/tools_sql_hostile.py`, for our tools."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.postgres import asked_for

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "tools_sql_hostile.py"


@pytest.mark.parametrize("system", ["sqlite", "duckdb", pytest.param("postgres", marks=asked_for)])
def test_no_hostile_query_changes_anything_or_stops_the_next(system: str) -> None:
    command = [sys.executable, str(SCRIPT), "--system", system, "--seconds", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    title, _, *rows, last = done.stdout.splitlines()
    assert system in title
    assert len(rows) == 20
    assert last.endswith("| 20 of 20 |"), done.stdout

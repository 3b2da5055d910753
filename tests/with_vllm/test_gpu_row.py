"""The row of vLLM in the table for a card, on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.fakes import NANO

from interlace.rollout.engines.vllm.start import arguments
from interlace.tools.errors import ModelError

ROOT = Path(__file__).parents[2]


def test_the_row_is_measured() -> None:
    file = str(ROOT / "benchmarks" / "gpu.py")
    asked = [sys.executable, file, "--toy", "--json", "--rows", "vLLM", "--seconds", "1800"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=1800)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(f["name"], f["state"]) for f in figures] == [
        ("loading the engine", "ok"),
        ("sampled, 4 sequences", "ok"),
        ("our own time for a turn", "ok"),
    ], done.stderr
    assert all(f["value"] > 0 for f in figures)


def test_a_card_is_chosen_by_the_environment() -> None:
    assert arguments(NANO, "cpu:0", "auto", None)["model"] == str(NANO)
    with pytest.raises(ModelError, match="CUDA_VISIBLE_DEVICES"):
        arguments(NANO, "cpu:1", "auto", None)

"""The table for a card, on a CPU: the same code at toy size."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support import warm

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--toy", "--json"]


def command(*arguments: str) -> list[dict[str, Any]]:
    """The figures that the command prints."""
    asked = [*COMMAND, "--seconds", "1800", *arguments]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def values(figures: list[dict[str, Any]]) -> dict[str, float]:
    """Every number, by its name."""
    return {f["name"]: f["value"] for f in figures if isinstance(f["value"], float)}


def check(figures: list[dict[str, Any]]) -> None:
    """Nothing failed, and numbers are numbers."""
    assert [f for f in figures if f["state"] in ("failed", "not begun")] == []
    assert all(math.isfinite(number) for number in values(figures).values())


@pytest.mark.slow
def test_engine_and_trainer_agree_and_padding_is_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    figures = command("--rows", "machine", "agreement", "training", "--out", str(out))
    check(figures)
    found = values(figures)
    # Something is sampled that is neither certain nor equally likely: agreeing on it means much.
    for dtype, most in (("bfloat16", 0.1), ("float32", 1e-4)):
        assert -6 < found[f"log-probability, mean, {dtype}"] < -0.5
        assert 0 < found[f"apart, mean, {dtype}"] <= found[f"apart, most, {dtype}"]
        assert found[f"apart, mean, {dtype}"] < most
        assert found[f"trainer's probability / engine's, mean, {dtype}"] == pytest.approx(
            1, abs=0.1
        )
    assert found["trained, padded to the longest"] > 0
    assert found["trained, similar lengths together"] > 0
    assert 0 < found["padding, to the longest"] < 100
    packed = next(f for f in figures if f["name"] == "trained, packed")
    assert (packed["value"], packed["state"]) == (None, "missing")
    text = out.read_text(encoding="utf-8")
    assert text.startswith("## CPU, 2")
    for figure in figures:
        assert f"| {figure['row']} | {figure['model']} | {figure['name']} | " in text
    installed = {f["name"]: f for f in figures if f["row"] == "machine"}
    assert installed["transformers"]["value"] and installed["Python"]["value"]


@pytest.mark.slow
def test_every_row_is_measured_or_says_what_is_not_there() -> None:
    figures = command()
    check(figures)
    rows = {f["row"] for f in figures}
    assert rows >= {"machine", "load", "sampling", "agreement", "weights", "training", "step"}
    assert rows >= {"memory", "idle", "vLLM", "TRL", "verl"}
    assert {f["state"] for f in figures if f["row"] == "idle"} == {"n/a"}
    found = values(figures)
    sampled = [found[f"sampled, {count} sequences"] for count in (2, 4, 8)]
    assert all(number > 0 for number in sampled)
    for phase in ("rolling out", "updating"):
        measured, estimated = found[f"{phase}, measured"], found[f"{phase}, estimated"]
        assert found[f"{phase}, measured / estimated"] == pytest.approx(measured / estimated)


@pytest.mark.slow
def test_ctrl_c_prints_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    asked = [*COMMAND, "--out", str(out)]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert json.loads(running.stdout.readline())["row"] == "machine"
        running.send_signal(signal.SIGINT)
        running.stdout.read()
        assert running.wait(60) == 130
    assert "| machine |  | card |" in out.read_text(encoding="utf-8")


def test_what_makes_no_sense_is_one_sentence(tmp_path: Path) -> None:
    for arguments, said in (
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--out", str(tmp_path / "none" / "gpu.md")], "there is no folder"),
        (["--device", "tpu9"], "the device 'tpu9' can't be used here"),
    ):
        done = warm.run([*COMMAND, *arguments], capture_output=True)
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr


# -- rows that fail --------------------------------------------------------------------------------


class Card:
    """What the rows below are about: counts the rows of its process."""

    def __init__(self) -> None:
        self.rows = 0


def works(card: Card) -> Iterator[Any]:
    card.rows += 1
    yield import_module("gpu_worker").Found("rows so far", float(card.rows))


def fails(card: Card) -> Iterator[Any]:
    yield from works(card)
    raise RuntimeError("an illegal memory access\nand much more")


def dies(card: Card) -> Iterator[Any]:
    os._exit(3)
    yield from works(card)


def hangs(card: Card) -> Iterator[Any]:
    yield from works(card)
    time.sleep(3600)


def test_a_row_that_fails_hangs_or_dies_is_reported_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    worker = import_module("gpu_worker")

    subject = worker.Subject(f"{__name__}:Card")

    def row(name: str, seconds: float = 120, **more: str) -> Any:
        return worker.Row(name, "m", subject, f"{__name__}:{name}", seconds, **more)

    given = [row("works"), row("works"), row("fails"), row("dies"), row("hangs", 3), row("works")]
    given += [row("works", needs="dies"), row("works", package="no_such_package")]
    figures = list(worker.measure(given, 600))
    assert [(f.row, f.value, f.state, f.reason) for f in figures if f.row != "hangs"] == [
        ("works", 1, "ok", ""),
        ("works", 2, "ok", ""),  # in the same process
        ("fails", 3, "ok", ""),  # what it found before it failed stays
        ("fails", None, "failed", "RuntimeError: an illegal memory access"),
        ("dies", None, "failed", "its process died (exit code 3)"),
        ("works", 1, "ok", ""),  # in a fresh one
        ("works", None, "not begun", "it needs 'dies', which failed"),
        ("works", None, "not installed", ""),
    ]
    hung = [f for f in figures if f.row == "hangs"]
    assert (hung[-1].state, hung[-1].reason) == ("failed", "it took more than 3 seconds")


def test_rows_are_not_begun_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    worker = import_module("gpu_worker")
    subject = worker.Subject(f"{__name__}:Card")
    rows = [worker.Row(n, "m", subject, f"{__name__}:{n}", 600) for n in ("hangs", "works")]
    *_, last = worker.measure(rows, 3)
    assert (last.row, last.state, last.reason) == ("works", "not begun", "the 3 seconds were over")

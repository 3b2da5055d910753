"""One command for a card: what our engine, our trainer and their like do on it, row by row.

    python benchmarks/gpu.py --out gpu.md            # at most six minutes; needs no network
    python benchmarks/gpu.py --toy                   # the same code at a tiny size, on any machine

Models have the sizes of Qwen3-0.6B and Qwen3-1.7B and random weights. A row that fails, hangs or
finds its package missing is a row with its reason, and the others still run. Ctrl-C prints what is
done. With --json each figure is one line of JSON on stdout as soon as it is there.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import gpu_peers
import gpu_rows
import torch
from gpu_rows import Plan, Subject
from gpu_worker import Figure, Row, measure

from interlace.rollout.engines.vllm_weights import roomy
from interlace.train.shapes import KNOWN_SHAPES, Shape

PACKAGES = ("interlace", "torch", "transformers", "vllm", "trl", "verl", "flash-attn")
MODELS = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B")
TOY = Shape(2, 64, 128, 4, 2, 16, 1024, tied=True)

# Each row of a model, and the seconds it may take at most.
ROWS = (
    ("load", gpu_rows.load, 90),
    ("sampling", gpu_rows.sampling, 60),
    ("agreement", gpu_rows.agreement, 60),
    ("weights", gpu_rows.swap, 20),
    ("training", gpu_rows.training, 60),
    ("step", gpu_rows.whole_step, 60),
    ("memory", gpu_rows.memory, 40),
    ("idle", gpu_rows.idle, 60),
)
PEERS = (
    ("vLLM", gpu_peers.vllm, 150),
    ("TRL", gpu_peers.trl, 90),
    ("verl", gpu_peers.verl, 60),
)


def plans(device: str, toy: bool) -> list[Plan]:
    """The models, and how much is done with each."""
    if not toy:
        return [Plan(name.partition("/")[2], KNOWN_SHAPES[name], device) for name in MODELS]
    small = Plan("toy", TOY, device, (2, 4, 8), 96, 16, 2, 8, 4, (32, 96), 192, 1)
    return [small]


def rows(given: Sequence[Plan], folder: Path) -> list[Row]:
    """All rows: the first model's, the others' programs with it, and the larger models'."""
    found = [Row("machine", "", partial(tuple, PACKAGES), gpu_rows.machine, 60)]
    for plan in given:
        subject = partial(Subject, plan, folder)
        found += [
            Row(name, plan.name, subject, function, seconds, None if name == "load" else "load")
            for name, function, seconds in ROWS
        ]
        if plan is given[0]:  # in a process without another model on the card
            found += [
                Row(name, plan.name, partial(Subject, plan, folder), function, seconds)
                for name, function, seconds in PEERS
            ]
    return found


def table(figures: Sequence[Figure], title: str) -> str:
    """Markdown."""
    lines = [f"## {title}", "", "| row | model | figure | value |", "|---|---|---|---|"]
    for figure in figures:
        value = figure.value
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        text = f"{text} {figure.unit}".strip()
        if figure.state == "missing":
            text = figure.reason
        elif figure.state != "ok":
            text = ": ".join(part for part in (figure.state, figure.reason) if part)
        cells = (figure.row, figure.model, figure.name, text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def told(figures: Iterator[Figure], as_json: bool, device: str, date: str) -> Iterator[Figure]:
    """The figures, with a word on stderr or a line of JSON on stdout for each."""
    for figure in figures:
        if as_json:
            print(json.dumps({"device": device, "date": date, **asdict(figure)}), flush=True)
        else:
            said = figure.state if figure.value is None else f"{figure.value} {figure.unit}"
            print(f"{figure.row}: {figure.name} {said}", file=sys.stderr, flush=True)
        yield figure


def main() -> int:
    """Measure and print; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table, as Markdown")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of the table")
    parser.add_argument("--seconds", type=float, default=360, help="in all (default: 360)")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: what a CPU gets anyway")
    parser.add_argument("--device", default="auto", help="cuda or cpu (default: cuda if there)")
    given = parser.parse_args()
    if given.device not in ("auto", "cpu") and not torch.cuda.is_available():
        parser.error(f"torch finds no card for --device {given.device}: leave it out")
    if given.out is not None and not given.out.resolve().parent.is_dir():
        parser.error(f"there is no folder {given.out.parent} for --out")
    if not given.seconds > 0:
        parser.error(f"--seconds must be above 0, got {given.seconds:g}")
    cuda = given.device != "cpu" and torch.cuda.is_available()
    device = given.device if given.device != "auto" else "cuda" if cuda else "cpu"
    card = torch.cuda.get_device_name(device) if cuda else "CPU, no card"
    toy = given.toy or not cuda
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    done: list[Figure] = []
    code = 0
    models = plans(device, toy)
    size = sum(2 * plan.shape.parameters for plan in models)
    with tempfile.TemporaryDirectory(dir=roomy(size)) as folder:
        try:
            for figure in told(
                measure(rows(models, Path(folder)), given.seconds), given.json, card, date
            ):
                done.append(figure)
        except KeyboardInterrupt:
            code = 130
    text = table(done, f"{card}, {date}" + (", toy size" if toy else ""))
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    if not given.json:
        print(text, end="")
    return code


if __name__ == "__main__":
    sys.exit(main())

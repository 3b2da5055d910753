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
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from gpu_plan import Plan, plans
from gpu_worker import Figure, Row, Subject, measure

from interlace.rollout.engines.local.load_checkpoint import pick_device
from interlace.rollout.engines.vllm.weights import roomy
from interlace.tools.errors import ModelError

SECONDS = 360
# Each row of a model, and the seconds of these that it may take at most.
ROWS = (
    ("load", "load", 90),
    ("sampling", "sampling", 60),
    ("agreement", "agreement", 60),
    ("weights", "swap", 20),
    ("training", "training", 60),
    ("step", "whole_step", 60),
    ("memory", "memory", 40),
    ("idle", "idle", 60),
)
PEERS = (("vLLM", "vllm", 150), ("TRL", "trl", 90), ("verl", "verl", 60))


def rows(given: Sequence[Plan], folder: Path, seconds: float) -> list[Row]:
    """All rows: the first model's, other programs' with the same model, then the larger model's.

    With more `seconds` than usual in all, each may take more.
    """
    share = seconds / SECONDS

    def subject(plan: Plan) -> Subject:
        return Subject("gpu_subject:Subject", (plan, folder))

    found = []
    for plan in given:
        shared = subject(plan)
        if plan is given[0]:
            found.append(Row("machine", "", shared, "gpu_rows:machine", 60 * share))
        found += [
            Row(name, plan.name, shared, f"gpu_rows:{function}", most * share, needs="load")
            for name, function, most in ROWS
        ]
        if plan is given[0]:  # each in a process without another model on the card
            found += [
                Row(name, plan.name, subject(plan), f"gpu_peers:{it}", most * share, package=it)
                for name, it, most in PEERS
            ]
    return found


def table(figures: Sequence[Figure], title: str) -> str:
    """Markdown."""
    lines = [f"## {title}", "", "| row | model | figure | value |", "|---|---|---|---|"]
    for figure in figures:
        cells = (figure.row, figure.model, figure.name, shown(figure))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def shown(figure: Figure) -> str:
    """A figure's value in words."""
    if figure.state != "ok":
        return ": ".join(part for part in (figure.state, figure.reason) if part)
    value = figure.value
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{text} {figure.unit}".strip()


def tell(figure: Figure, head: dict[str, str] | None) -> None:
    """A figure as soon as it is there: a line of JSON on stdout, or some words on stderr."""
    if head is not None:
        print(json.dumps(head | asdict(figure)), flush=True)
    else:
        words = (figure.row, figure.model, figure.name, shown(figure))
        print(" ".join(word for word in words if word), file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    """What the command line says; ends with a sentence for what makes no sense."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["machine", *(name for name, _, _ in (*ROWS, *PEERS))]
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table, as Markdown")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of the table")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="in all (default: 360)")
    parser.add_argument(
        "--rows", nargs="+", choices=names, metavar="ROW", help=f"only these of {', '.join(names)}"
    )
    parser.add_argument("--toy", action="store_true", help="tiny sizes: what a CPU gets anyway")
    parser.add_argument("--device", default="auto", help="cuda or cpu (default: cuda if there)")
    given = parser.parse_args()
    if given.out is not None and not given.out.resolve().parent.is_dir():
        parser.error(f"there is no folder {given.out.parent} for --out")
    if not given.seconds > 0:
        parser.error(f"--seconds must be above 0, got {given.seconds:g}")
    try:
        given.device = pick_device(given.device)
    except ModelError as error:
        parser.error(str(error))
    given.toy = given.toy or given.device.type == "cpu"
    return given


def main() -> int:
    """Measure and print; 130 after Ctrl-C."""
    given = options()
    cuda = given.device.type == "cuda"
    card = import_module("torch").cuda.get_device_name(given.device) if cuda else "CPU"
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    models = plans(str(given.device), given.toy)
    done: list[Figure] = []
    code = 0
    with tempfile.TemporaryDirectory(dir=room_for(models)) as folder:
        wanted = [
            row
            for row in rows(models, Path(folder), given.seconds)
            if given.rows is None or row.name in given.rows
        ]
        try:
            for figure in measure(wanted, given.seconds):
                done.append(figure)
                tell(figure, {"device": card, "date": date} if given.json else None)
        except KeyboardInterrupt:
            code = 130
    text = table(done, f"{card}, {date}" + (", toy size" if given.toy else ""))
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    if not given.json:
        print(text, end="")
    return code


def room_for(models: Sequence[Plan]) -> str:
    """A folder with room for the models' weights."""
    try:
        return roomy(sum(2 * plan.shape.parameters for plan in models))
    except ValueError as error:
        sys.exit(f"{error}: set TMPDIR to a folder with room")


if __name__ == "__main__":
    sys.exit(main())

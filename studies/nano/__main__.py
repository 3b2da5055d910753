"""Makes the nano policy: `python -m studies.nano`, or `make nano`."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from interlace.rollout.engines import nano
from interlace.tools.errors import InterlaceError

from . import accuracy, interventions
from .recipe import Recipe, train


def main() -> None:
    """Train, write the checkpoint, measure it, write the model card."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.nano",
        description="Make the nano policy from a seed. A run that was broken off goes on.",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=nano.path(), help="the checkpoint's folder")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/nano"), help="checkpoints on the way"
    )
    given = parser.parse_args()
    recipe = Recipe(seed=given.seed)
    columns = (
        TextColumn("{task.description:15}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    bars: dict[str, TaskID] = {}
    try:
        with Progress(*columns, console=Console(stderr=True)) as screen:

            def show(stage: str, done: int, total: int, remark: str) -> None:
                if stage not in bars:
                    bars[stage] = screen.add_task(stage, total=total, remark="")
                screen.update(bars[stage], completed=done, total=total, remark=remark)
                if not screen.console.is_terminal and done % (total // 20) == 0:
                    sys.stderr.write(f"{stage}: {done} of {total} {remark}\n")  # into a log

            train(recipe, given.work, given.out, show)
        sys.stderr.write("measuring (some minutes)\n")
        accuracy.main(["--model", str(given.out), "--write"])
        interventions.main(["--model", str(given.out), "--write"])
    except InterlaceError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"stopped; the same command goes on from {given.work}\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

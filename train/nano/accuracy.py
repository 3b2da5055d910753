"""How many problems the policy answers, by format, split and level.

python -m interlace.train.nano.accuracy [--model FOLDER] [--problems N] [--seed S] [--write]
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ...rollout.engines.base import Engine
from ...rollout.trajectory import Episode
from ...tools import Tool
from ...tools.python import PythonTool
from ..generators import Arithmetic
from .data import FORMAT_NAMES
from .evaluate import Score, Shared, roll_out

__all__ = ["accuracy", "main", "table"]

Rows = list[tuple[str, str, list[Episode]]]

SPLITS = {"test": "trained templates", "held_out": "held-out templates"}


async def accuracy(engine: Engine, tool: Tool, *, problems: int = 500, seed: int = 11) -> Rows:
    """(format, split, episodes) for every format and split, `problems` of each."""
    return [
        (
            format,
            split,
            await roll_out(engine, format, [tool], list(islice(Arithmetic(seed, split), problems))),
        )
        for format in FORMAT_NAMES
        for split in SPLITS
    ]


def table(rows: Rows) -> str:
    """Two Markdown tables: right answers by format and split; those on held-out templates."""
    lines = [
        "| format | problems | all | that need a tool | that need none |"
        + "".join(f" {level} digits |" for level in (1, 2, 3, 4, 5)),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for format, split, episodes in rows:
        parts = [
            episodes,
            [e for e in episodes if e.task.data["needs_tool"]],
            [e for e in episodes if not e.task.data["needs_tool"]],
            *([e for e in episodes if e.task.data["level"] == level] for level in (1, 2, 3, 4, 5)),
        ]
        shares = " | ".join(f"{Score.of(part).accuracy:.1%}" if part else "-" for part in parts)
        lines.append(f"| {format} | {SPLITS[split]} ({len(episodes)}) | {shares} |")
    held_out = [row for row in rows if row[1] == "held_out"]
    names = sorted({e.task.data["template"] for row in held_out for e in row[2]})
    lines += ["", "| held-out template |" + "".join(f" {row[0]} |" for row in held_out)]
    lines.append("|---|" + "---|" * len(held_out))
    for name in names:
        cells = []
        for _, _, episodes in held_out:
            part = [e for e in episodes if e.task.data["template"] == name]
            cells.append(f"{Score.of(part).accuracy:.1%} of {len(part)}" if part else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the table goes to stdout, or with --write into the model card."""
    from ...rollout.engines import nano
    from ...rollout.models import load_engine
    from .card import write_section

    parser = argparse.ArgumentParser(prog="python -m interlace.train.nano.accuracy")
    parser.add_argument("--model", type=Path, default=nano.path(), help="the checkpoint's folder")
    parser.add_argument("--problems", type=int, default=500, help="problems of each split")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--write", action="store_true", help="write it into the model card")
    given = parser.parse_args(arguments)

    async def run() -> Rows:
        engine = load_engine(str(given.model), device="cpu")
        async with Shared(PythonTool()) as tool:
            rows = await accuracy(engine, tool, problems=given.problems, seed=given.seed)
        await engine.aclose()
        return rows

    text = table(asyncio.run(run()))
    if given.write:
        write_section(given.model / "README.md", "accuracy", text)
    else:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

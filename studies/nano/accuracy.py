"""How many problems the policy answers, by family, format, split and level.

python -m studies.nano.accuracy [--model FOLDER] [--problems N] [--seed S] [--write]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from interlace.rollout.engines.base import Engine
from interlace.rollout.task import Task
from interlace.train.data.task_tools import TaskTools

from .families import FAMILIES, is_right
from .score import roll_out

__all__ = ["SPLITS", "Outcome", "accuracy", "main", "table"]

SPLITS = {"test": "trained kinds", "held_out": "held-out kinds"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One problem: whether its answer was right, and whether it needs the tool."""

    family: str
    format: str
    task: Task
    needs_tool: bool
    right: bool


async def accuracy(
    engine: Engine,
    world: TaskTools,
    *,
    problems: int = 500,
    seed: int = 11,
    splits: Sequence[str] = tuple(SPLITS),
) -> list[Outcome]:
    """Every family in its formats and splits, `problems` of each."""
    outcomes = []
    for family in FAMILIES.values():
        for format in family.formats:
            for split in splits:
                tasks = list(islice(family.source(seed, split), problems))
                for episode in await roll_out(engine, format, tasks, world):
                    task = episode.task
                    right = await is_right(world, task, format, episode.answer)
                    needs = family.needs_tool(task, format)
                    outcomes.append(Outcome(family.name, format, task, needs, right))
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: right answers by family, format and split, then by level and by template."""
    lines = [
        "| family | format | problems | all | that need a tool | that need none |",
        "|---|---|---|---|---|---|",
    ]
    columns = list(dict.fromkeys((each.family, each.format) for each in outcomes))
    for family, format in columns:
        for split, name in SPLITS.items():
            part = [
                each
                for each in outcomes
                if (each.family, each.format) == (family, format)
                and each.task.data["split"] == split
            ]
            kinds = [part, *([e for e in part if e.needs_tool is need] for need in (True, False))]
            shares = " | ".join(map(_share, kinds))
            lines.append(f"| {family} | {format} | {name} ({len(part)}) | {shares} |")
    for family in dict.fromkeys(name for name, _ in columns):
        lines += ["", *_details(family, [each for each in outcomes if each.family == family])]
    return "\n".join(lines)


def _details(family: str, outcomes: Sequence[Outcome]) -> list[str]:
    """Trained kinds by level, held-out ones by template."""
    formats = FAMILIES[family].formats
    lines = [f"| {family} | {' | '.join(formats)} |", "|---|" + "---|" * len(formats)]
    for split, key in (("test", "level"), ("held_out", "template")):
        part = [each for each in outcomes if each.task.data["split"] == split]
        for value in sorted({each.task.data[key] for each in part}):
            rows = [each for each in part if each.task.data[key] == value]
            shares = (
                f"{_share([each for each in rows if each.format == format])}" for format in formats
            )
            held = "held out: " if split == "held_out" else ""
            lines.append(f"| {held}{key} {value} | {' | '.join(shares)} |")
    return lines


def _share(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    return f"{sum(each.right for each in outcomes) / len(outcomes):.1%}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the table goes to stdout, or with --write into the model card."""
    from .measure import measure_and_show

    measure_and_show("accuracy", accuracy, table, arguments, problems=500, seed=11)


if __name__ == "__main__":
    main()

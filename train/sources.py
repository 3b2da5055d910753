"""Where tasks come from, by name, and the tools that some of them bring.

A name is one of

- a file of tasks: JSON lines, Parquet, or one question a line;
- a generator with, after colons, its split, how many tasks, and the seed: `arithmetic`,
  `database:held_out`, `lookup:train:500`, `arithmetic:test:200:7`;
- a public data set's shape and a file of it, JSON lines: `gsm8k:test.jsonl`, `math:train.jsonl`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from ..rollout.task import Task
from ..rollout.taskfile import read_tasks
from ..tools import Tool
from ..tools.errors import DataError, UsageError
from ..tools.sql import SqlTool
from .adapters import ADAPTERS
from .datasets import adapt
from .generators.arithmetic import SPLITS
from .nano.families import FAMILIES, World

__all__ = ["COUNT", "TaskTools", "bring_tools", "find_tasks", "generate"]

COUNT = 200
"""Tasks of a generator whose name says nothing of their number."""


def find_tasks(name: str, *, limit: int | None = None) -> list[Task]:
    """The tasks of that name, the first `limit` of them where given.

    A generator comes before a file of its name: `./arithmetic` is the file. Raises UsageError for a
    generator asked for in a way it does not know, DataError for a file that can't be read.
    """
    kind, _, rest = name.partition(":")
    if kind in ADAPTERS and rest:
        return adapt(_rows(rest), kind, name=rest)[:limit]
    if kind not in FAMILIES:
        return read_tasks(name)[:limit]
    source, count = _generator(name)
    return list(islice(source, count if limit is None else min(count, limit)))


def generate(name: str) -> Iterator[Task]:
    """Endlessly many tasks of a generator, for training; the count in its name does not matter.

    Raises UsageError for a name that is no generator's.
    """
    return iter(_generator(name)[0])


def _rows(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises DataError, naming the line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read {path}: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number} is not JSON: {error}") from error


def _generator(name: str) -> tuple[Iterable[Task], int]:
    kind, *rest = name.split(":")
    split, count, seed = [*rest, *("test", str(COUNT), "0")[len(rest) :]][:3]
    known = kind in FAMILIES and split in SPLITS and len(rest) <= 3
    if not known or not (count.isdecimal() and seed.isdecimal()) or not int(count):
        raise UsageError(
            f"{name!r} names no tasks: write GENERATOR:SPLIT:COUNT:SEED, such as "
            f"arithmetic:test:200:0, with a generator of {', '.join(FAMILIES)} and a split of "
            f"{', '.join(SPLITS)}"
        )
    return FAMILIES[kind].source(int(seed), split), int(count)


def bring_tools(tasks: Iterable[Task]) -> bool:
    """Whether any of the tasks comes with a database or a corpus of its own."""
    return any("database" in task.data or "corpus" in task.data for task in tasks)


class TaskTools(World):
    """The tools that tasks come with: what a runner is given as `tools_for`.

    A task whose `data["database"]` is a path is asked of that file; else as in `World`. Use it as
    an async context manager.

    Example:
        async with TaskTools() as tools:
            runner = Runner(policy, tools_for=tools)
    """

    async def __aenter__(self) -> Self:
        """Open what the tools need."""
        await super().__aenter__()
        return self

    def __call__(self, task: Task) -> Sequence[Tool]:
        """A task's tools."""
        place = task.data.get("database")
        return [SqlTool(place)] if isinstance(place, str) else self.tools(task)

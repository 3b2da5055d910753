"""Task sources by name: files, generators and public data sets.

A name is one of

- a file of tasks: JSON lines, Parquet, or one question a line;
- a generator with, after colons, its split, how many tasks, and the seed: `arithmetic`,
  `database:held_out`, `lookup:train:500`, `arithmetic:test:200:7`;
- a public data set's shape and a file of it, JSON lines: `gsm8k:test.jsonl`, `math:train.jsonl`.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..rollout.task import Task
from ..rollout.taskfile import read_tasks
from ..tools.errors import DataError, UsageError
from .adapters import ADAPTERS
from .datasets import adapt
from .generators.arithmetic import SPLITS
from .generators.catalog import GENERATORS

__all__ = ["COUNT", "find_tasks", "generate"]

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
    if kind not in GENERATORS:
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
    known = kind in GENERATORS and split in SPLITS and len(rest) <= 3
    if not known or not (count.isdecimal() and seed.isdecimal()) or not int(count):
        raise UsageError(
            f"{name!r} names no tasks: write GENERATOR:SPLIT:COUNT:SEED, such as "
            f"arithmetic:test:200:0, with a generator of {', '.join(GENERATORS)} and a split of "
            f"{', '.join(SPLITS)}"
        )
    return GENERATORS[kind](int(seed), split), int(count)

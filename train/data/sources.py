"""Task sources by name: files, generators and public data sets.

A name is one of

- a file of tasks: JSON lines, a JSON list, Parquet, or one question a line; in verl's shape, its
  rows are read as their `data_source` says;
- a generator with, after colons, its split, how many tasks, and the seed: `arithmetic`,
  `database:held_out`, `lookup:train:500`, `arithmetic:test:200:7`;
- a public data set's shape and a file of it: `gsm8k:test.jsonl`, `math:train.parquet`; where each
  task names a database, with their folder: `bird:dev.json:dev_databases`.

Behind a file, `@instruction=keep` keeps what the set's questions say of the form of an answer.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Self

from ...rollout.task import Task
from ...rollout.task_files import Located, read_rows, to_task
from ...tools.errors import DataError, UsageError
from .generators.arithmetic import SPLITS
from .generators.catalog import GENERATORS
from .public import ADAPTERS, Adapter, find_adapter, fitting, row_adapter, shape_error
from .task_sets import adapt_located, wants_database, with_databases

__all__ = ["COUNT", "find_tasks", "generate"]

COUNT = 200
"""Tasks of a generator whose name says nothing of their number."""
_KEEP = "@instruction=keep"


def find_tasks(
    name: str,
    *,
    limit: int | None = None,
    databases: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Task]:
    """The tasks of that name, the first `limit` of them where given.

    `databases` is the folder of the databases that tasks name by `db_id`. `tell` is given a
    sentence on rows that were left out. A generator comes before a file of its name: `./arithmetic`
    is the file. Raises UsageError for what is asked for in a way that makes no sense, or has no
    databases, DataError for a file that can't be read.
    """
    if name.partition(":")[0] in GENERATORS:
        source, count = _generator(name)
        return list(islice(source, count if limit is None else min(count, limit)))
    place = _Place.read(name)
    rows = read_rows(place.file)
    first = next(rows)
    adapter = _adapter(place, first)
    rows = chain([first], rows)
    if adapter is not None:
        tasks = adapt_located(rows, adapter, name=place.file, limit=limit, tell=tell)
    else:
        tasks = _own(islice(rows, limit))
    return _with_databases(tasks, place, databases)


class _Place(NamedTuple):
    """A name of tasks, taken apart."""

    adapter: str | None
    file: str
    databases: str | None
    keep_instruction: bool

    @classmethod
    def read(cls, name: str) -> Self:
        rest, keep = name.removesuffix(_KEEP), name.endswith(_KEEP)
        kind, _, behind = rest.partition(":")
        adapter, rest = (kind, behind) if kind in ADAPTERS and behind else (None, rest)
        file, _, folder = rest.rpartition(":")
        if file and not Path(rest).exists() and (Path(file).is_file() or Path(folder).is_dir()):
            return cls(adapter, file, folder, keep)
        if adapter is None and behind and not Path(rest).exists() and Path(behind).exists():
            find_adapter(kind)  # raises, and names those that there are
        return cls(adapter, rest, None, keep)


def _adapter(place: _Place, first: Located) -> Adapter | None:
    """The adapter for the rows of a file, by its first one; None for tasks in our own shape.

    Raises UsageError where the file is of a set whose name was not given, or has no instruction to
    keep, DataError where nothing reads it.
    """
    row = first.row
    name = place.adapter
    if name is None and isinstance(row, dict):
        name = row_adapter(row)
    if name is not None:
        return find_adapter(name, keep_instruction=place.keep_instruction)
    if place.keep_instruction:
        raise UsageError(
            f"{place.file}{_KEEP}: tasks of your own have no instruction of a public data set"
        )
    if not isinstance(row, dict) or {"checker", "gold"} & row.keys():
        return None  # a line of text, or a task that says itself how it is checked
    others = set(fitting(row))
    if isinstance(row.get("question"), str):
        # A question and its answer are ours as well as theirs.
        others -= set() if "golden_answers" in row else {"nq"}
        if not others:
            return None
    elif not others:
        why = ValueError("it holds no task")
        raise DataError(f"{first.where} can't be used: {shape_error(why, row)}")
    if "verl" in others:  # whose shape several sets share
        raise UsageError(
            f"{place.file} has rows for verl with data_source {row.get('data_source')!r}, which no "
            f"adapter knows: verl:{place.file} takes their prompts as they are, or name the set "
            f"whose prompts they have: {', '.join(sorted(others - {'verl'}))}"
        )
    choices = " or ".join(f"{each}:{place.file}" for each in sorted(others))
    raise UsageError(
        f"{place.file} has the rows of a public data set, with the columns "
        f"{', '.join(map(str, row))}: name it {choices}"
    )


def _own(rows: Iterable[Located]) -> list[Task]:
    tasks: dict[str, Task] = {}
    for row in rows:
        task = to_task(row)
        if task.id in tasks:
            raise DataError(f"{row.where}: the id {task.id!r} stands there twice")
        tasks[task.id] = task
    return list(tasks.values())


def _with_databases(tasks: list[Task], place: _Place, databases: str | Path | None) -> list[Task]:
    if not any(map(wants_database, tasks)):
        return tasks
    folder = place.databases if databases is None else databases
    if folder is None:
        raise UsageError(
            "these tasks have db_id and no database: name the folder with --databases FOLDER (or "
            f"{place.adapter or 'bird'}:{place.file}:FOLDER), in which DB/DB.sqlite lies"
        )
    return with_databases(tasks, Path(folder).absolute())


def generate(name: str) -> Iterator[Task]:
    """Endlessly many tasks of a generator, for training; the count in its name does not matter.

    Raises UsageError for a name that is no generator's.
    """
    return iter(_generator(name)[0])


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

"""Task sources by name: files, generators, public data sets, and tasks of one's own.

A name is one of

- a file of tasks: JSON lines, a JSON list, CSV, Parquet, or one question a line, packed or not; in
  verl's shape, its rows are read as their `data_source` says;
- a generator with, after colons, its split, how many tasks, and the seed: `arithmetic`,
  `database:held_out`, `lookup:train:500`, `arithmetic:test:200:7`, `arithmetic@seed=7`. Without a
  split, training and demonstrations take `train`, all else takes `test`;
- an adapter, which knows the shape of a public data set, and a file of it: `gsm8k:test.jsonl`,
  `math:train.parquet`; where each task names a database, with their folder:
  `bird:dev.json:dev_databases`. `@instruction=keep` keeps what the set's questions say of the form
  of an answer;
- something of your own, by the grammar of `tools/importing.py`: `mine.py:tasks`, or the name of an
  installed package. A function with the parameters `seed` and `split` is a generator, one with a
  single parameter that must be given is an adapter (`mine.py:adapt:rows.parquet`), and any other
  iterable, or function without such parameters, holds or makes tasks.

A generator's name comes before an adapter's, that before a file's: `./arithmetic` is the file.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from ...rollout.row_values import answer_texts
from ...rollout.rows import Located, read_rows, with_integers
from ...rollout.task import Task
from ...rollout.task_files import has_own_id, to_task, to_tasks
from ...tools.errors import DataError, InterlaceError, UsageError
from ...tools.importing import Found, find, names, parse_name, unknown
from ...tools.unpack import PACKINGS
from .generators.catalog import GENERATORS
from .generators.endless import SPLITS
from .public import ADAPTERS, Adapter, find_adapter, fitting, row_adapter, shape_error
from .task_sets import adapt_located, wants_database, with_databases

__all__ = ["COUNT", "find_tasks", "find_training_tasks", "refuse_task_code"]

COUNT = 200
"""Tasks of a generator whose name says nothing of their number."""
_FILES = tuple(
    ending + packed
    for ending in (".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".csv", ".tsv")
    for packed in ("", *PACKINGS)
)
"""Endings of names that are files of tasks, there or not, and no modules."""


def find_tasks(
    name: str,
    *,
    limit: int | None = None,
    databases: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
    folder: Path | None = None,
    split: str = "test",
) -> list[Task]:
    """The tasks of that name, the first `limit` of them where given.

    `databases` is the folder of the databases that tasks name by `db_id`. `tell` is given a
    sentence on rows that were left out. `folder` is what paths of code are relative to, by default
    the working folder. `split` is that of a generator whose name has none.

    Raises UsageError for an unknown name, or tasks without their databases, DataError for a file
    that can't be read.
    """
    found = _find(name, folder)
    if found is None or found.kind == "adapter":
        return _from_file(_Place.read(name, found), limit, databases, tell)
    if found.kind == "generator":
        source, count = _generate(name, found.thing, split)
        return list(islice(source, count if limit is None else min(count, limit)))
    thing = found.thing
    makes = callable(thing.value) or thing.configured
    rows = _rows(thing, thing.make if makes else lambda: thing.value)
    return to_tasks(with_integers(islice(rows, limit)), tell=tell)


def find_training_tasks(
    name: str,
    *,
    databases: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
    folder: Path | None = None,
) -> list[Task] | Iterator[Task]:
    """The tasks to train on: of a generator endlessly many, whatever count its name has, and of its
    `train` split where that has none.

    Raises as `find_tasks` does.
    """
    found = _find(name, folder)
    if found is not None and found.kind == "generator":
        return _generate(name, found.thing, "train")[0]
    return find_tasks(name, databases=databases, tell=tell, folder=folder)


def refuse_task_code(name: str, source: object) -> None:
    """Raise UsageError if a name of tasks found in `source`, which is not trusted, loads code."""
    if _registered(name) is None and _is_code(name):
        raise UsageError(
            f"{source} names the tasks {name!r}, which would load code: only the command line, "
            "your own configuration and installed packages may name it, so name it there"
        )


@dataclass(frozen=True, slots=True)
class _Named:
    """The thing that a name of tasks stands for, if that is not a file."""

    kind: str
    """`generator`, `adapter` or `tasks`."""
    thing: Found


_TABLES: dict[str, Any] = {"generator": GENERATORS, "adapter": ADAPTERS, "tasks": {}}


def _registered(name: str) -> str | None:
    """The kind of a name that interlace or an installed package registers."""
    parsed = parse_name(name)
    for kind, table in _TABLES.items():
        if parsed.head in names(kind, table) and (parsed.source or kind != "adapter"):
            return kind
    return None


def _is_code(name: str) -> bool:
    """True for the attribute of a module or a file of code; a file of tasks is found first."""
    parsed = parse_name(name)
    if not parsed.is_attribute:
        return False
    if parsed.head.endswith(".py"):
        return True
    there = any(Path(each).is_file() for each in (name, parsed.head, parsed.source))
    return not there and not parsed.head.endswith(_FILES)


def _find(name: str, folder: Path | None) -> _Named | None:
    """Find the thing of a name; None for a file of tasks. Raises UsageError for an unknown one."""
    kind = _registered(name)
    if kind is not None:
        return _Named(kind, find(kind, name, _TABLES[kind]))
    known = [each for kind, table in _TABLES.items() for each in names(kind, table)]
    if not _is_code(name):
        parsed = parse_name(name)
        if not parsed.source and parsed.head.isidentifier() and not Path(name).exists():
            if name in known:
                raise UsageError(f"{name} is the shape of a data set: write {name}:FILE")
            raise UsageError(
                f"{unknown('tasks', name, known)}, a file, or your own as module:name or "
                "path/file.py:name"
            )
        return None
    found = find("tasks", name, dict.fromkeys(known), folder=folder)
    if not callable(found.value):
        return _Named("tasks", found)
    try:
        parameters = inspect.signature(found.value).parameters.values()
    except ValueError as error:  # a function in C
        raise UsageError(f"{name!r} can't be used for tasks: {error}") from error
    required = [
        each.name
        for each in parameters
        if each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        and each.name not in found.name.parameters
    ]
    if {"seed", "split"} <= {each.name for each in parameters}:
        return _Named("generator", found)
    if len(required) > 1:
        raise UsageError(
            f"{name!r} wants {', '.join(required)}: a generator has seed and split, an adapter one "
            "parameter for the row, a function that makes tasks none that must be given"
        )
    if required and not found.source:
        raise UsageError(f"{name!r} is an adapter: name a file of rows after it, {name}:FILE")
    return _Named("adapter" if required else "tasks", found)


def _rows(thing: Found, make: Callable[[], Any]) -> Iterator[Located]:
    """The tasks or rows that `make` gives, which may be somebody's code, one at a time."""
    name = f"{thing.name.head}:{thing.name.source}".rstrip(":")
    try:
        for number, row in enumerate(make(), 1):
            yield Located(f"{name}, row {number}", number, row)
    except InterlaceError:
        raise
    except Exception as error:  # boundary: somebody's code
        if thing.own:
            raise
        raise UsageError(
            f"the tasks {name!r} can't be made: {type(error).__name__}: {error}"
        ) from error


# -- files ---------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """A name of a file of tasks, taken apart."""

    kind: str | None
    """The name of the adapter that reads its rows, if there is one."""
    adapter: Adapter | None
    file: str
    databases: str | None
    keep_instruction: bool

    @classmethod
    def read(cls, name: str, found: _Named | None) -> Self:
        """Take a name apart; `found` is its adapter, if it names one."""
        parsed = parse_name(name)
        keep = parsed.bare is None and parsed.parameters == {"instruction": "keep"}
        kind = adapter = None
        if found is not None:
            thing, rest = found.thing, found.thing.source
            kind = name[: name.index(f":{rest}")]
            if thing.own and keep:
                adapter = find_adapter(kind, keep_instruction=True)
            else:
                adapter = thing.bind(thing.value)
        else:
            rest = ":".join(filter(None, (parsed.head, parsed.source))) if keep else name
        file, _, folder = rest.rpartition(":")
        if file and not Path(rest).exists() and (Path(file).is_file() or Path(folder).is_dir()):
            return cls(kind, adapter, file, folder, keep)
        head, _, source = rest.partition(":")
        if found is None and source and not Path(rest).exists() and Path(source).exists():
            find_adapter(head)  # raises, and names those that there are
        return cls(kind, adapter, rest, None, keep)


def _from_file(
    place: _Place,
    limit: int | None,
    databases: str | Path | None,
    tell: Callable[[str], None] | None,
) -> list[Task]:
    rows = read_rows(place.file)
    first = next(rows)
    adapter = _adapter(place, first)
    rows = chain([first], rows)
    if adapter is not None:
        tasks = adapt_located(rows, adapter, name=place.file, limit=limit, tell=tell)
    else:
        tasks = to_tasks(islice(rows, limit), tell=tell)
    return _with_databases(tasks, place, databases)


def _adapter(place: _Place, first: Located) -> Adapter | None:
    """The adapter for the rows of a file, by its first one; None for tasks in our own shape.

    Raises UsageError where the file is of a set whose name was not given, or has no instruction to
    keep, DataError where nothing reads it.
    """
    if place.adapter is not None:
        return place.adapter
    row = first.row
    name = row_adapter(row) if isinstance(row, dict) else None
    if name is not None:
        return find_adapter(name, keep_instruction=place.keep_instruction)
    if place.keep_instruction:
        raise UsageError(
            f"{place.file}@instruction=keep: tasks of your own have no instruction of a public "
            "data set"
        )
    if not isinstance(row, dict) or {"checker", "gold"} & row.keys():
        return None  # a line of text, or a task that says itself how it is checked
    others = set(fitting(row))
    if isinstance(row.get("question"), str):
        with suppress(ValueError):  # objects as answers are theirs alone
            answer_texts(row.get("answer"))
            answer_texts(row.get("answers"))
            # A question and answers that are texts or numbers are ours as well as theirs.
            others -= {"aime"} if "golden_answers" in row else {"aime", "nq"}
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


def _with_databases(tasks: list[Task], place: _Place, databases: str | Path | None) -> list[Task]:
    if not any(map(wants_database, tasks)):
        return tasks
    folder = place.databases if databases is None else databases
    if folder is None:
        raise UsageError(
            "these tasks have db_id and no database: name the folder with --databases FOLDER (or "
            f"{place.kind or 'bird'}:{place.file}:FOLDER), in which DB/DB.sqlite lies"
        )
    return with_databases(tasks, Path(folder).absolute())


# -- generators ----------------------------------------------------------------------------------


def _generate(name: str, thing: Found, split: str) -> tuple[Iterator[Task], int]:
    """Endlessly many tasks of a generator, of that split if its name has none, and the count in its
    name.
    """
    given = dict(thing.name.parameters)
    said = thing.source.split(":") if thing.source else []
    settings = {"split": split, "count": str(COUNT), "seed": "0"}
    settings |= {key: str(given.pop(key)) for key in settings if key in given}
    settings |= dict(zip(settings, said, strict=False))
    split, count, seed = settings.values()
    known = len(said) <= 3 and split in SPLITS and count.isdecimal() and seed.isdecimal()
    if not known or not int(count):
        raise UsageError(
            f"{name!r} names no tasks: write GENERATOR:SPLIT:COUNT:SEED, such as "
            f"arithmetic:test:200:0, with a split of {', '.join(SPLITS)}"
        )
    bound = replace(thing, name=replace(thing.name, parameters=given)).bind(thing.value)
    make = partial(bound, seed=int(seed), split=split)
    return map(_numbered_task, _rows(thing, make)), int(count)


def _numbered_task(located: Located) -> Task:
    """The task of a row; one without an id is told from equal questions by its number."""
    task = to_task(located)
    return task if has_own_id(located.row) else replace(task, id=f"{located.number}-{task.id}")

"""Task sets: loading and writing, splitting, de-duplication and contamination checks."""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...rollout.rows import Located
from ...rollout.task import Task
from ...rollout.task_files import json_columns, left_out_columns, read_tasks, to_task
from ...tools.errors import DataError, InterlaceError, MissingExtra
from ...tools.files import write_beside, write_whole
from ...tools.sql import find_database
from .public import Adapter, OtherKind, Row, find_adapter, shape_error

__all__ = [
    "Contamination",
    "Duplicates",
    "adapt",
    "adapt_located",
    "contamination",
    "deduplicate",
    "fingerprint",
    "load_hub",
    "read_tasks",
    "split",
    "wants_database",
    "with_databases",
    "write_tasks",
]

_FIELDS = ("id", "question", "answer")


def write_tasks(tasks: Iterable[Task], path: str | Path) -> int:
    """Write a file that `read_tasks` reads, and return its number of tasks.

    Parquet if the name ends in `.parquet`, else JSON lines; the file appears whole or not at all.
    Raises DataError if it can't be written or a task's data does not survive JSON.
    """
    path = Path(path)
    rows = [_row(task) for task in tasks]
    try:
        if path.suffix == ".parquet":
            with write_beside(path) as partial:
                _write_parquet(rows, partial)
        else:
            flat = ({name: row[name] for name in _FIELDS} | row["data"] for row in rows)
            lines = (json.dumps(row, ensure_ascii=False) for row in flat)
            write_whole(path, "".join(f"{line}\n" for line in lines))
    except UnicodeEncodeError as error:
        raise DataError(f"can't write {path}: a task holds text with lone surrogates") from error
    return len(rows)


def _row(task: Task) -> dict[str, Any]:
    clash = [name for name in _FIELDS if name in task.data]
    try:
        same = json.loads(json.dumps(task.data)) == task.data
    except (TypeError, ValueError):
        same = False
    if clash or not same:
        why = f"has a key {clash[0]!r}" if clash else "does not survive JSON"
        raise DataError(f"the data of the task {task.id!r} {why}")
    return {"id": task.id, "question": task.question, "answer": task.answer, "data": task.data}


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    flat = [row | {"data": json.dumps(row["data"], ensure_ascii=False)} for row in rows]
    schema = pa.schema([(name, pa.string()) for name in (*_FIELDS, "data")])
    pyarrow.parquet.write_table(pa.Table.from_pylist(flat, schema), path)


def load_hub(
    name: str,
    adapter: Adapter | str,
    *,
    split: str = "train",
    config: str | None = None,
    limit: int | None = None,
) -> list[Task]:
    """The tasks of a data set on the Hugging Face hub, or in a folder in a form it knows.

    `adapter` is the name of one in `ADAPTERS`, or a function of a row, such as `columns(...)`
    makes. Raises MissingExtra without the library, DataError if the set can't be loaded or a row
    has another shape.

    Example:
        tasks = load_hub("openai/gsm8k", "gsm8k", config="main", split="test")
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("loading data sets of the Hugging Face hub", "hub") from error
    try:
        rows = load_dataset(name, config, split=split)
    except Exception as error:  # boundary: the library raises errors of many others
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"the data set {name!r} can't be loaded: {reason}") from error
    return adapt(rows, adapter, name=name, limit=limit)


def adapt(
    rows: Iterable[Row],
    adapter: Adapter | str,
    *,
    name: str = "the data",
    limit: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Task]:
    """The tasks of rows, each once: a row that gives the same task as an earlier one is left out.

    Different tasks with one id get numbers after it. Reading stops at `limit` tasks. `tell` is
    given a sentence on rows that were left out. Raises DataError, naming the row, for one that is
    not of the adapter's shape, or if all are of another kind (`OtherKind`).
    """
    located = (Located(f"row {number} of {name}", number, row) for number, row in enumerate(rows))
    return adapt_located(located, adapter, name=name, limit=limit, tell=tell)


def adapt_located(
    rows: Iterable[Located],
    adapter: Adapter | str,
    *,
    name: str,
    limit: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Task]:
    """The same for the rows of a file, as `read_rows` gives them."""
    convert = find_adapter(adapter) if isinstance(adapter, str) else adapter
    tasks: dict[str, Task] = {}
    questions: set[str] = set()
    repeated, others, left_out = 0, Counter[str](), Counter[str]()
    for row in rows:
        if len(tasks) == limit:
            break
        try:
            made = convert(row.row)
            if isinstance(made, Task):
                made = replace(made, data=json_columns(made.data, left_out))
            task = to_task(row._replace(row=made), left_out)
        except OtherKind as error:
            others[str(error)] += 1
            continue
        except InterlaceError:
            raise
        except Exception as error:  # boundary: an adapter, which may be the user's, and any row
            why = shape_error(error, row.row)
            raise DataError(f"{row.where} has another shape: {why}") from error
        id, count = task.id, 1
        while id in tasks and replace(task, id=id) != tasks[id]:
            count += 1
            id = f"{task.id}-{count}"
        repeated += id in tasks
        tasks.setdefault(id, replace(task, id=id))
        questions.add(task.question)
    (why, count), *_ = others.most_common(1) or [("", 0)]
    if others and not tasks:
        raise DataError(f"no row of {name} can be used: {why}")
    if repeated and tell is not None:
        tell(f"{repeated:,} rows of {name} repeat others: {len(tasks):,} tasks")
    if others and tell is not None:
        tell(f"{others.total():,} rows of {name} were left out; of {count:,}, {why}")
    if (more := len(tasks) - len(questions)) and tell is not None:
        tell(f"{more:,} tasks of {name} ask what another one asks, with another answer")
    if left_out and tell is not None:
        tell(left_out_columns(left_out))
    return list(tasks.values())


def fingerprint(tasks: Iterable[Task]) -> str:
    """A hash of what tasks say, in their order: 16 hexadecimal digits.

    The place of a database's file does not count, so that data may be moved.

    Example:
        >>> fingerprint([Task("a", "1 + 1?", "2")]) == fingerprint([Task("a", "1 + 1?", "3")])
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for task in tasks:
        data = task.data
        if "db_id" in data and isinstance(data.get("database"), str):
            data = {k: v for k, v in data.items() if k not in ("database", "databases")}
        content = [task.id, task.question, task.answer, data]
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def with_databases(tasks: Iterable[Task], folder: str | Path) -> list[Task]:
    """The tasks of Spider or BIRD with `data["database"]`, the file that `db_id` names in a folder:
    FOLDER/DB/DB.sqlite. Tasks that name no database stay as they are. Those of a test suite
    (`data["suite"]`) get the folder FOLDER/DB as `data["databases"]` too.

    Raises DataError if a file is missing.
    """
    found = []
    for task in tasks:
        if wants_database(task):
            file = find_database(folder, task.data["db_id"])
            data = task.data | {"database": str(file)}
            if task.data.get("suite"):
                if file.parent.name != task.data["db_id"]:
                    raise DataError(f"{file} has no folder of its own, with the files of its suite")
                data["databases"] = str(file.parent)
            task = replace(task, data=data)
        found.append(task)
    return found


def wants_database(task: Task) -> bool:
    """True if a task names a database of a folder and not yet its file."""
    return isinstance(task.data.get("db_id"), str) and "database" not in task.data


# -- splits --------------------------------------------------------------------------------------


def split(
    tasks: Iterable[Task], held_out: float, *, salt: str = ""
) -> tuple[list[Task], list[Task]]:
    """The tasks to train on, and about the share `held_out` of them to test on.

    A task's side follows from its id and `salt` alone: the order of the tasks, and the other tasks
    in the set, do not matter, so a set that grows keeps its split.
    """
    if not 0 <= held_out <= 1:
        raise ValueError(f"held_out is a share from 0 to 1, not {held_out!r}")
    sides: tuple[list[Task], list[Task]] = ([], [])
    for task in tasks:
        digest = hashlib.blake2b(f"{salt}\0{task.id}".encode(), digest_size=8).digest()
        sides[int.from_bytes(digest) < held_out * 2**64].append(task)
    return sides


# -- duplicates ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The tasks `deduplicate` left out: the id of each, with the id of the one that stayed.

    `disagreeing` are those with a different answer: a mistake in the data, most likely.
    """

    dropped: dict[str, str]
    disagreeing: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{len(self.dropped)} questions stood there before, "
            f"{len(self.disagreeing)} of them with another answer"
        )


def deduplicate(tasks: Iterable[Task]) -> tuple[list[Task], Duplicates]:
    """The tasks whose question is new, and the ones that were left out.

    Questions are the same if they differ in case, blanks and punctuation only; numbers and signs
    of arithmetic count.

    Example:
        >>> tasks = [Task("a", "Is 1 + 1 2?"), Task("b", "is 1+1 2"), Task("c", "Is 1-1 2?")]
        >>> kept, duplicates = deduplicate(tasks)
        >>> [task.id for task in kept], duplicates.dropped
        (['a', 'c'], {'b': 'a'})
    """
    kept: dict[tuple[str, ...], Task] = {}
    dropped: dict[str, str] = {}
    disagreeing = []
    for task in tasks:
        first = kept.setdefault(tuple(_words(task.question)), task)
        if first is not task:
            dropped[task.id] = first.id
            if first.answer != task.answer:
                disagreeing.append(task.id)
    return list(kept.values()), Duplicates(dropped, tuple(disagreeing))


@dataclass(frozen=True, slots=True)
class Contamination:
    """Which training tasks share a run of words with which test tasks.

    `pairs` are ids (training, test); `trained` and `tested` count the tasks on each side, of all
    that were looked at.
    """

    pairs: tuple[tuple[str, str], ...]
    trained: int
    tested: int

    @property
    def training_ids(self) -> frozenset[str]:
        """The training tasks to leave out."""
        return frozenset(train for train, _ in self.pairs)

    @property
    def test_ids(self) -> frozenset[str]:
        """The test tasks that are not unseen."""
        return frozenset(test for _, test in self.pairs)

    def __str__(self) -> str:
        return (
            f"{len(self.training_ids)} of {self.trained} training questions share words with "
            f"{len(self.test_ids)} of {self.tested} test questions"
        )


def contamination(train: Iterable[Task], test: Iterable[Task], *, n: int = 13) -> Contamination:
    """Which questions of two sets share `n` words in a row (13: GPT-3's rule, arXiv 2005.14165).

    Words are compared without case and punctuation; a question of fewer words is compared whole.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n!r}")
    holders: dict[tuple[str, ...], set[str]] = defaultdict(set)
    tested = trained = 0
    for tested, task in enumerate(test, 1):  # noqa: B007
        for run in _runs(task.question, n):
            holders[run].add(task.id)
    pairs: dict[tuple[str, str], None] = {}
    for trained, task in enumerate(train, 1):  # noqa: B007
        for run in _runs(task.question, n):
            pairs |= {(task.id, other): None for other in sorted(holders.get(run, ()))}
    return Contamination(tuple(pairs), trained, tested)


_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d]+|[^\w\s.,;:?!'\"’“”]")  # noqa: RUF001


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _runs(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = _words(text)
    for start in range(max(1, len(words) - n + 1)):
        yield tuple(words[start : start + n])

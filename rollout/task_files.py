"""Tasks from a file or stdin: questions, JSON lines, a JSON list or Parquet."""

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..tools.errors import DataError, MissingExtra
from .task import Task

__all__ = ["Located", "read_rows", "read_tasks", "to_task", "to_tasks"]


class Located(NamedTuple):
    """A row of a file: an object, or a line of text where the file holds plain questions."""

    where: str
    """The file and the line or row, for messages."""
    number: int
    """The line or row, from 1."""
    row: Any
    table: bool = False
    """Whether it is a row of Parquet, whose column `data` may hold an object as JSON."""


def read_tasks(source: str) -> list[Task]:
    """The tasks of a file, or of stdin where `source` is `-`.

    JSON lines, a JSON list, CSV and Parquet hold objects with a `question`, and perhaps an `id` and
    an `answer`; the rest of an object goes into the task's `data`. In Parquet, a column `data` may
    hold an object as JSON. Any other file holds one question a line. A task without an id gets one
    from its line number and its question, the same in every run. Raises DataError, naming the line.

    Lines end with a line feed, whatever else Unicode calls a line's end: JSON may hold that as is.
    """
    return to_tasks(read_rows(source))


def read_rows(source: str) -> Iterator[Located]:
    """The rows of a file as they are, one at a time: nobody waits for those not asked for.

    A file whose first line begins with `{` holds JSON lines, one that is a JSON list of objects
    holds rows, one whose name ends with `.parquet` or `.csv` (with a header) too; any other holds a
    line of text each. Raises DataError where it can't be read or has no row, MissingExtra without
    pyarrow.
    """
    if source.endswith(".parquet"):
        rows = _parquet(source)
    else:
        rows = _csv(source) if source.endswith(".csv") else _text_rows(source)
    first = next(rows, None)
    if first is None:
        raise DataError(f"there are no questions in {_name(source)}")
    yield first
    yield from rows


def to_tasks(rows: Iterable[Located]) -> list[Task]:
    """The tasks of rows in our own shape. Raises DataError for one that is none, or a second one of
    an id.
    """
    tasks: dict[str, Task] = {}
    for located in rows:
        task = to_task(located)
        if task.id in tasks:
            raise DataError(f"{located.where}: the id {task.id!r} stands there twice")
        tasks[task.id] = task
    return list(tasks.values())


def to_task(located: Located) -> Task:
    """The task that a row in our own shape holds, or is. Raises DataError, naming the row."""
    where, number, row, table = located
    if isinstance(row, Task):
        return row
    if isinstance(row, str) and row.strip():
        return Task(_id(number, row), row)
    fields = dict(row) if isinstance(row, dict) else {}
    question = fields.pop("question", None)
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where} is not a task: an object with a question is expected")
    try:
        if table and isinstance(fields.get("data"), str):
            fields |= json.loads(fields.pop("data"))
        json.dumps([question, fields], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(
            f"{where} holds half of a character, {half!a}: write it as UTF-8"
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} holds what JSON can't: {error}") from error
    answer = fields.pop("answer", None)
    id = fields.pop("id", None)
    return Task(
        _id(number, question) if id is None else str(id),
        question,
        None if answer is None else str(answer),
        fields,
    )


def _name(source: str) -> str:
    return "stdin" if source == "-" else source


def _id(number: int, question: str) -> str:
    return f"{number}-{hashlib.sha256(question.encode()).hexdigest()[:8]}"


def _text_rows(source: str) -> Iterator[Located]:
    lines = _lines(source)
    first = next(lines, None)
    if first is None:
        return
    lines = chain([first], lines)
    if first[1].startswith("{"):
        for number, line in lines:
            where = f"{_name(source)}, line {number}"
            yield Located(where, number, _json(line, where))
        return
    if first[1].startswith("["):
        kept = list(lines)
        listed = _listed(source, "\n".join(line for _, line in kept))
        if listed is not None:
            for number, row in enumerate(listed, 1):
                yield Located(f"{_name(source)}, row {number}", number, row)
            return
        lines = iter(kept)
    for number, line in lines:
        yield Located(f"{_name(source)}, line {number}", number, line)


def _csv(source: str) -> Iterator[Located]:
    try:
        with open(source, encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, strict=True), 1):
                where = f"{source}, row {number}"
                if None in row or None in row.values():
                    raise DataError(f"{where} has more or fewer columns than the header")
                yield Located(where, number, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"can't read {source}: {error}") from error


def _listed(source: str, text: str) -> list[Any] | None:
    """The rows of a JSON list of objects; None for questions of which the first has a bracket."""
    if not text[1:].lstrip().startswith("{"):
        return None
    rows = _json(text, _name(source))
    return rows if isinstance(rows, list) else None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error


def _lines(source: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers, stripped."""
    try:
        if source == "-":
            yield from _decoded(sys.stdin.buffer)
            return
        with Path(source).open("rb") as file:
            yield from _decoded(file)
    except OSError as error:
        raise DataError(f"can't read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{_name(source)} is not UTF-8 text: {error.reason}") from error


def _decoded(file: Iterable[bytes] | IO[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, 1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        if text:
            yield number, text


def _parquet(source: str) -> Iterator[Located]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Located(f"{source}, row {number}", number, row, table=True)
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise DataError(f"can't read {source}: {reason}") from error

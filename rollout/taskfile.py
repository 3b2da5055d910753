"""Tasks from a file or stdin: one question a line, or one JSON object a line."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from ..tools.errors import DataError, MissingExtra
from .task import Task

__all__ = ["read_tasks"]


def read_tasks(source: str) -> list[Task]:
    """The tasks of a file, or of stdin where `source` is `-`.

    A file whose first line begins with `{` holds JSON objects with a `question`, and perhaps an
    `id` and an `answer`; the rest of an object goes into the task's `data`. A file whose name ends
    with `.parquet` holds the same as columns; a column `data` may hold an object as JSON. Any other
    file holds one question a line. A task without an id gets one from its line number and its
    question, the same in every run. Raises DataError, naming the line.

    Lines end with a line feed, whatever else Unicode calls a line's end: JSON may hold that as is.
    """
    if source.endswith(".parquet"):
        return _from_parquet(source)
    lines = [
        (number, line.strip())
        for number, line in enumerate(_text(source).split("\n"), 1)
        if line.strip()
    ]
    if not lines:
        raise DataError(f"there are no questions in {_name(source)}")
    as_json = lines[0][1].startswith("{")
    tasks: dict[str, Task] = {}
    for number, line in lines:
        where = f"{_name(source)}, line {number}"
        task = _from_json(line, number, where) if as_json else Task(_id(number, line), line)
        if task.id in tasks:
            raise DataError(f"{where}: the id {task.id!r} stands there twice")
        tasks[task.id] = task
    return list(tasks.values())


def _name(source: str) -> str:
    return "stdin" if source == "-" else source


def _text(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"can't read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{_name(source)} is not UTF-8 text: {error.reason}") from error


def _id(number: int, question: str) -> str:
    return f"{number}-{hashlib.sha256(question.encode()).hexdigest()[:8]}"


def _from_json(line: str, number: int, where: str) -> Task:
    try:
        fields: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    return _task(fields, number, where)


def _from_parquet(source: str) -> list[Task]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(source).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise DataError(f"can't read {source}: {reason}") from error
    tasks: dict[str, Task] = {}
    for number, fields in enumerate(rows, 1):
        where = f"{source}, row {number}"
        try:
            if isinstance(fields.get("data"), str):
                fields |= json.loads(fields.pop("data"))
            json.dumps(fields)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} holds what JSON can't: {error}") from error
        task = _task(fields, number, where)
        if task.id in tasks:
            raise DataError(f"{where}: the id {task.id!r} stands there twice")
        tasks[task.id] = task
    if not tasks:
        raise DataError(f"there are no questions in {source}")
    return list(tasks.values())


def _task(fields: dict[str, Any], number: int, where: str) -> Task:
    question = fields.pop("question", None) if isinstance(fields, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where} is not a task: an object with a question is expected")
    try:
        json.dumps([question, fields], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(
            f"{where} holds half of a character, {half!a}: write it as UTF-8"
        ) from error
    answer = fields.pop("answer", None)
    id = fields.pop("id", None)
    return Task(
        _id(number, question) if id is None else str(id),
        question,
        None if answer is None else str(answer),
        fields,
    )

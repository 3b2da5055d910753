"""Tasks from rows in our own shape: questions, or objects with a question."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..tools.errors import DataError
from .row_values import answer_text, answer_texts, row_id, text_id
from .rows import Located, read_rows
from .task import Task

__all__ = [
    "has_own_id",
    "json_columns",
    "left_out_columns",
    "read_tasks",
    "to_task",
    "to_tasks",
]


def read_tasks(source: str, *, tell: Callable[[str], None] | None = None) -> list[Task]:
    """The tasks of a file, or of stdin where `source` is `-`, as `read_rows` and `to_tasks` do."""
    return to_tasks(read_rows(source), tell=tell)


def to_tasks(rows: Iterable[Located], *, tell: Callable[[str], None] | None = None) -> list[Task]:
    """The tasks of rows in our own shape.

    A row is a line of text, or an object with a `question`, and perhaps an `id` and an `answer`;
    the rest of an object goes into the task's `data`. An answer is a text or a number, or a list of
    such, which are all right (`data["answers"]`). A task without an id gets one that follows from
    its question; only where a question occurs twice, a number follows. In Parquet, a column `data`
    may hold an object as JSON; values that JSON can't hold are left out, and `tell` is given a
    sentence with their columns.

    Raises DataError, naming the row, if it is not a task or repeats the id of another.
    """
    tasks: dict[str, Task] = {}
    left_out: Counter[str] = Counter()
    for located in rows:
        task = to_task(located, left_out)
        if task.id in tasks:
            if has_own_id(located.row):
                raise DataError(f"{located.where}: the id {task.id!r} stands there twice")
            count = 2
            while (id := f"{task.id}-{count}") in tasks:
                count += 1
            task = Task(id, task.question, task.answer, task.data)
        tasks[task.id] = task
    if left_out and tell is not None:
        tell(left_out_columns(left_out))
    return list(tasks.values())


def has_own_id(row: Any) -> bool:
    """True if a row that `to_task` takes names the id of its task."""
    if isinstance(row, Mapping):
        return row_id(row.get("id")) is not None
    return isinstance(row, Task)


def to_task(located: Located, left_out: Counter[str] | None = None) -> Task:
    """The task that a row in our own shape holds, or is; `left_out` counts the columns left out.

    Raises DataError, naming the row.
    """
    where, _, row, table = located
    if isinstance(row, Task):
        return _sound(row, where)
    if isinstance(row, str) and row.strip():
        return Task(text_id(row), row)
    fields = dict(row) if isinstance(row, Mapping) else {}
    question = fields.pop("question", None)
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{where} is not a task: an object with a question is expected")
    if table and isinstance(fields.get("data"), str):
        try:
            inner = json.loads(fields["data"])
        except (ValueError, RecursionError):  # a column like others
            inner = None
        if isinstance(inner, dict):
            del fields["data"]
            fields |= inner
    try:
        id, answer = fields.pop("id", None), fields.pop("answer", None)
        if hasattr(answer, "tolist"):
            answer = answer.tolist()
        if isinstance(answer, list | tuple):
            answers = answer_texts([*answer, *answer_texts(fields.pop("answers", None))])
            answer = next(iter(answers), None)
            fields |= {"answers": answers} if len(answers) > 1 else {}
        elif "answers" in fields:
            fields["answers"] = answer_texts(fields["answers"])
        task_id = row_id(id) or text_id(question)
        text = answer_text(answer)
    except ValueError as error:
        raise DataError(f"{where} is not a task: {error}") from error
    fields = json_columns(fields, Counter() if left_out is None else left_out)
    return _sound(Task(task_id, question, text, fields), where)


def json_columns(data: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
    """The items of a row that JSON can hold; `left_out` counts the others (dates, bytes, ...)."""
    kept = {}
    for name, value in data.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            left_out[name] += 1
        else:
            kept[name] = value
    return kept


def left_out_columns(left_out: Counter[str]) -> str:
    """A sentence on columns that were left out."""
    names = ", ".join(f"{name!r}" for name in left_out)
    return f"left out, as JSON can't hold their values: the columns {names}"


def _sound(task: Task, where: str) -> Task:
    """The task, if all of its texts are text. Raises DataError."""
    texts: list[Any] = [task.id, task.question, task.answer, task.data]
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(
            f"{where} holds half of a character, {half!a}: write it as UTF-8"
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{where} holds what JSON can't: {error}") from error
    return task

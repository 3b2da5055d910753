"""Tasks as rows of verl's data sets, and back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...rollout.formats import Message
from ...rollout.task import Task
from ...tools.errors import DataError, MissingExtra

__all__ = ["from_row", "to_row", "write_dataset"]


def to_row(task: Task, index: int, split: str, source: str) -> dict[str, Any]:
    """A row of verl's RLHFDataset: `prompt` is the bare question, to which our loop adds what the
    format says; the whole task stands in `extra_info.task` as JSON, since Parquet wants all rows
    alike.
    """
    whole = {"id": task.id, "question": task.question, "answer": task.answer, "data": task.data}
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": task.question}],
        "ability": str(task.data.get("checker", "")),
        "reward_model": {"style": "rule", "ground_truth": task.answer or ""},
        "extra_info": {
            "index": index,
            "split": split,
            "task": json.dumps(whole, ensure_ascii=False),
        },
    }


def write_dataset(tasks: Iterable[Task], path: Path, *, split: str, source: str) -> int:
    """Write tasks as a Parquet file that verl reads; returns how many.

    Raises DataError where it can't be written or there are none, MissingExtra without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    rows = [to_row(task, index, split, source) for index, task in enumerate(tasks)]
    if not rows:
        raise DataError(f"there are no tasks to write to {path}")
    fresh = path.with_name(path.name + ".writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), fresh)
        fresh.replace(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"can't write {path}: {error}") from error
    return len(rows)


def from_row(row: Mapping[str, Any]) -> tuple[Task, list[Message]]:
    """The task of a row as verl hands it to an agent loop, and the messages before its question.

    Rows that others made have no task in them: the last message is then the question, and the
    `reward_model`'s `ground_truth` the answer (a list: all of them are right). Raises DataError for
    what is no question.
    """
    extra = row.get("extra_info")
    extra = extra if isinstance(extra, Mapping) else {}
    messages = [_message(each) for each in _sequence(row.get("raw_prompt"))]
    if not messages or messages[-1].role != "user":
        raise DataError("a row's prompt must end with a message of the user: it is the question")
    written = extra.get("task")
    if isinstance(written, str):
        return _task(written), messages[:-1]
    truth = row.get("reward_model")
    truth = truth.get("ground_truth") if isinstance(truth, Mapping) else None
    id = str(extra.get("index", row.get("index", row.get("uid", "0"))))
    data: dict[str, Any] = {"source": str(row.get("data_source", ""))}
    if isinstance(truth, Mapping):  # Search-R1's rows: {"target": [...]}
        truth = truth.get("target")
    if truth is not None and not isinstance(truth, str):
        answers = [str(each) for each in _sequence(truth)] or [str(truth)]
        truth, data["answers"] = answers[0], answers
    return Task(id, messages[-1].content, truth, data), messages[:-1]


def _sequence(value: Any) -> Sequence[Any]:
    """Lists, and the arrays that Parquet gives for them."""
    if value is None or isinstance(value, str | Mapping) or not hasattr(value, "__len__"):
        return []
    return list(value)


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        raise DataError("a message of a row's prompt must have a role and a text as content")
    return Message(str(message.get("role")), message["content"])


def _task(written: str) -> Task:
    try:
        whole = json.loads(written)
        return Task(whole["id"], whole["question"], whole["answer"], whole["data"])
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"extra_info.task of a row is no task: {error}") from error

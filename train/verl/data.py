"""Tasks as rows of verl's data sets, and back."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...rollout.formats import Message
from ...rollout.task import Task
from ...tools.errors import DataError, MissingExtra
from ...tools.files import write_beside
from ..data.public import find_adapter, row_adapter
from ..data.task_sets import wants_database

__all__ = ["from_row", "to_row", "write_dataset"]


def to_row(task: Task, index: int, split: str, source: str) -> dict[str, Any]:
    """A row of verl's RLHFDataset: `prompt` is the bare question, to which our loop adds what the
    format says; the whole task is in `extra_info.task` as JSON, since Parquet wants all rows
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_beside(path) as partial:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), partial)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"can't write {path}: {error}") from error
    return len(rows)


def from_row(
    row: Mapping[str, Any], *, keep_instruction: bool = False
) -> tuple[Task, list[Message]]:
    """The task of a row as verl hands it to an agent loop, and the messages before its question.

    A row of a public data set is read by the adapter that its `data_source` names, as from a file:
    without what the set says of the form of an answer, unless `keep_instruction`. Other rows are
    taken as they are: the last message is the question, and the `reward_model`'s `ground_truth` the
    answer (a list: all of them are right). Raises DataError for what is no question, or no row of
    the set that `data_source` names.
    """
    messages = [_message(each) for each in _sequence(row.get("raw_prompt"))]
    if not messages or messages[-1].role != "user":
        raise DataError("a row's prompt must end with a message of the user: it is the question")
    asked = [{"role": messages[-1].role, "content": messages[-1].content}]
    name = row_adapter(row) or "verl"
    adapter = find_adapter(name, keep_instruction=keep_instruction)
    try:
        task = adapter({**row, "prompt": asked})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        why = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        if name == "verl":
            raise DataError(f"a row of verl's data set holds no task: {why}") from error
        raise DataError(
            f"a row with data_source {row['data_source']!r} is no row of {name} ({why}): give it "
            "another data_source to have its prompt taken as it is"
        ) from error
    if wants_database(task):
        raise DataError(
            f"the task {task.id!r} has db_id and no database: write the file with "
            f"--tasks {name if name != 'verl' else 'bird'}:FILE:FOLDER, which names it"
        )
    if name != "verl":
        task = replace(task, data=task.data | {"source": str(row["data_source"])})
    return task, messages[:-1]


def _sequence(value: Any) -> Sequence[Any]:
    """Lists, and the arrays that Parquet gives for them."""
    if value is None or isinstance(value, str | Mapping) or not hasattr(value, "__len__"):
        return []
    return list(value)


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        raise DataError("a message of a row's prompt must have a role and a text as content")
    return Message(str(message.get("role")), message["content"])

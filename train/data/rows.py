"""Rows of a data set, and what the adapters that turn them into tasks share."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...rollout.row_values import answer_text, row_id, text_id
from ...rollout.task import Task

__all__ = ["Adapter", "OtherKind", "Row", "only_answer", "row_task", "text_id", "text_in"]

Row: TypeAlias = Mapping[str, Any]
Adapter: TypeAlias = Callable[[Row], Task]
"""Raises KeyError for a column that is missing, ValueError for one that holds something else."""


class OtherKind(ValueError):
    """A row of the set's shape that can't be used: one of programming among those of mathematics,
    or one whose answer is not settled.

    A file may hold such rows among others; they are left out and counted.
    """


def row_task(
    source: str, row: Row, question: str, answer: str | None, data: dict[str, Any]
) -> Task:
    """A task whose id is the row's own, or follows from the question, never from its place."""
    own = row_id(row.get("id")) or row_id(row.get("unique_id"))
    return Task(f"{source}-{own or text_id(question)}", question, answer, data)


def only_answer(value: Any) -> str:
    """The answer in a column that holds one. Raises OtherKind if the row has none, ValueError for a
    value that is not an answer.
    """
    answer = answer_text(value)
    if answer is None:
        raise OtherKind("it has no answer")
    return answer.strip()


def text_in(row: Row, column: str) -> str:
    """The text in a column, without blanks around it. Raises ValueError if there is none."""
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the column {column!r} holds no text but {text!r:.40}")
    return text.strip()

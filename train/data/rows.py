"""Rows of a data set, and what the adapters that turn them into tasks share."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ...rollout.task import Task

__all__ = ["Adapter", "OtherKind", "Row", "row_task", "text_id", "text_in"]

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
    own = row.get("id", row.get("unique_id"))
    name = text_id(question) if own is None else str(own)
    return Task(f"{source}-{name}", question, answer, data)


def text_id(text: str) -> str:
    """The hash of a text, as an id: 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def text_in(row: Row, column: str) -> str:
    """The text in a column, without blanks around it. Raises ValueError if there is none."""
    text = row[column]
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"the column {column!r} holds no text but {text!r:.40}")
    return text.strip()

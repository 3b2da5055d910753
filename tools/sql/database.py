"""The tool's view of a database: it answers one read-only query at a time, within bounds."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ..base import ErrorKind

__all__ = ["COMPARED", "SHOWN", "Bounds", "Column", "Cut", "Database", "QueryFailed", "Rows"]
__all__ += ["Schema", "Table", "Value"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The beginning of a text or blob that is longer than the bounds allow.

    `size` is its full length, in characters or bytes.
    """

    shown: str | bytes
    size: int


Value: TypeAlias = int | float | str | bytes | Cut | None


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of a query, within its bounds.

    `width` counts the columns, of which `columns` names the first ones; `total` counts the rows
    that came, of which `rows` holds the first ones. `ended` is False if there are more rows
    than were counted.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    width: int
    total: int
    ended: bool = True

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> "Rows":
        """A result that is whole.

        Example:
            >>> Rows.of(["a"], [[1], [2]]).whole
            True
        """
        return cls(tuple(columns), tuple(tuple(row) for row in rows), len(columns), len(rows))

    @property
    def whole(self) -> bool:
        """True if nothing was cut: no row, no column, no value."""
        return (
            self.ended
            and self.total == len(self.rows)
            and self.width == len(self.columns)
            and not any(isinstance(value, Cut) for row in self.rows for value in row)
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of a result is kept. The query ends when its rows are kept and counted."""

    rows: int
    columns: int
    cell: int
    """Characters of a text, bytes of a blob."""
    bytes: int
    """All values together, roughly; the row that passes it is the last."""
    counted: int
    """Rows that are counted, beyond those that are kept, to tell how many there are."""
    exact: bool = False
    """True if texts that are not UTF-8 stay different: such a byte is given as its number."""

    def __post_init__(self) -> None:
        """Refuse bounds within which nothing could be shown."""
        for name in ("rows", "columns", "cell", "bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")


SHOWN = Bounds(rows=20, columns=30, cell=100, bytes=100_000, counted=1000)
"""For a model to read."""
COMPARED = Bounds(
    rows=10_000, columns=2000, cell=1_000_000, bytes=16_000_000, counted=0, exact=True
)
"""For comparing the results of two queries."""


class QueryFailed(Exception):
    """A query gave no rows: the kind of the error, and what a model is told."""

    def __init__(self, kind: ErrorKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `key` is its place in the primary key (from 1), or 0 if it is not part of it.

    `target` is the table and column that a foreign key points to. `samples` are a few of its
    values, the smallest, each once.
    """

    name: str
    type: str = ""
    key: int = 0
    target: tuple[str, str] | None = None
    samples: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view. `rows` is None if they were not counted."""

    name: str
    columns: tuple[Column, ...]
    rows: int | None = None
    view: bool = False


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables and views that can be queried."""

    tables: tuple[Table, ...]


class Database(Protocol):
    """Answers reading queries. This is all the tool knows of a database system."""

    @property
    def dialect(self) -> str:
        """The name of its SQL for the model: `SQLite`."""
        ...

    async def query(self, sql: str, bounds: Bounds, seconds: float) -> Rows:
        """Run one query that can change nothing, stopped after `seconds`.

        Raises `QueryFailed` where it gave no rows. A cancel stops the query.
        """
        ...

    async def schema(self) -> Schema:
        """The tables, with a few values of each column. Raises `QueryFailed`."""
        ...

    def held(self) -> AbstractAsyncContextManager[None]:
        """Keep the processes and connections that queries need ready; leaving it frees them."""
        ...

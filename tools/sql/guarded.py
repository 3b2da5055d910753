"""A database whose queries run in processes that may be killed: what all our systems share."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from typing import Any

from ..base import ErrorKind
from ..errors import ToolUnavailable
from ..process_pool import Overrun, ProcessDied
from .database import COMPARED, Bounds, Column, Cut, QueryFailed, Rows, Schema, Table, Value
from .hints import hint
from .lexer import is_empty, quoted
from .problems import STOPPED
from .workers import DatabaseSource, Workers

__all__ = ["GuardedDatabase", "tables_of"]

_LONGEST_QUERY = 100_000
_SCHEMA_SECONDS = 10.0
"""Time for the whole schema. When it is spent, the tables left have no samples."""
_HINT_SECONDS = 1.0
_SAMPLES = 3
_SAMPLED_ROWS = 10_000
"""Samples are taken from the first rows of a table, so that a large one is not sorted."""


class GuardedDatabase(ABC):
    """A database that queries can read and nothing can change.

    A system adds its `dialect`, how its tables are listed and what its errors mean.
    """

    dialect: str
    """The name of its SQL for the model."""

    def __init__(self, source: DatabaseSource, workers: Workers | None) -> None:
        self.workers = Workers() if workers is None else workers
        self._source = source
        self._schema: Schema | None = None

    def held(self) -> AbstractAsyncContextManager[None]:
        """Keep started processes between queries."""
        return self.workers.held()

    async def query(self, sql: str, bounds: Bounds = COMPARED, seconds: float = 10.0) -> Rows:
        """Run one reading query. Raises `QueryFailed`, of every kind."""
        self._check(sql)
        reply = await self._run(sql, bounds, seconds)
        if "columns" in reply:
            return _rows(reply)
        raise await self._failure(reply, sql, seconds, hints=True)

    async def schema(self) -> Schema:
        """The tables; read once. Raises `QueryFailed`.

        Views have no samples and no count: their queries may take long, or never end.
        """
        if self._schema is None:
            end = time.monotonic() + _SCHEMA_SECONDS
            async with self.held():
                tables = await self._tables(end)
                sampled = [t if t.view else await self._sampled(t, end) for t in tables]
            self._schema = Schema(tuple(sampled))
        return self._schema

    @abstractmethod
    async def _tables(self, end: float) -> Sequence[Table]:
        """The tables and views with columns and keys, asked with `_ask` until `end`."""

    @abstractmethod
    async def _failure(
        self, reply: Mapping[str, Any], sql: str, seconds: float, *, hints: bool
    ) -> QueryFailed:
        """The failure that a reply without rows tells of, in words for the model.

        `hints`: the schema may be read to tell which names were meant.
        """

    async def _hint(self, kind: str, missing: str, sql: str, seconds: float) -> str:
        """The text about a missing table or column; what it suggests was run first."""
        bounds = Bounds(rows=1, columns=1, cell=10, bytes=100, counted=0)

        async def works(query: str) -> bool:
            try:
                return "columns" in await self._run(query, bounds, min(seconds, _HINT_SECONDS))
            except QueryFailed:
                return False

        return await hint(kind, missing, sql, await self.schema(), works)

    async def _run(self, sql: str, bounds: Bounds, seconds: float) -> Mapping[str, Any]:
        request = {"sql": sql, **asdict(bounds)}
        try:
            reply: Mapping[str, Any] = await self.workers.query(self._source, request, seconds)
        except Overrun:
            text = STOPPED.format(seconds=seconds)
            raise QueryFailed(ErrorKind.TIMEOUT, text) from None
        except ProcessDied as error:
            raise QueryFailed(ErrorKind.DIED, f"the query ended the database: {error}") from None
        except ToolUnavailable as error:
            raise QueryFailed(ErrorKind.UNAVAILABLE, str(error)) from None
        return reply

    async def _ask(
        self, sql: str, end: float, bounds: Bounds = COMPARED
    ) -> Sequence[Sequence[Any]]:
        """The rows of a query about the schema. `end`: the time at which all of them must be done.

        Raises `QueryFailed`.
        """
        seconds = end - time.monotonic()
        if seconds <= 0:
            text = STOPPED.format(seconds=_SCHEMA_SECONDS)
            raise QueryFailed(ErrorKind.TIMEOUT, text)
        reply = await self._run(sql, bounds, seconds)
        if "columns" not in reply:
            raise await self._failure(reply, sql, seconds, hints=False)
        return _rows(reply).rows

    async def _sampled(self, table: Table, end: float) -> Table:
        """The table with a few values of each column and its number of rows, as far as the time
        allows and the database can tell.
        """
        bounds = Bounds(rows=_SAMPLES, columns=1, cell=40, bytes=1000, counted=0)
        columns = list(table.columns)
        name = quoted(table.name)
        try:
            for i, column in enumerate(columns):
                own = quoted(column.name)
                rows = await self._ask(
                    f"select distinct {own} from (select {own} from {name} "
                    f"limit {_SAMPLED_ROWS}) as first_rows "
                    f"where {own} is not null order by 1 limit {_SAMPLES}",
                    end,
                    bounds,
                )
                columns[i] = replace(column, samples=tuple(row[0] for row in rows))
            ((count,),) = await self._ask(f"select count(*) from {name}", end)
        except QueryFailed as error:
            if error.kind is ErrorKind.UNAVAILABLE:
                raise
            count = None
        return replace(table, columns=tuple(columns), rows=count)

    def _check(self, sql: str) -> None:
        if is_empty(sql[: _LONGEST_QUERY + 1]):
            raise QueryFailed(ErrorKind.ARGUMENTS, "The query is empty.")
        if len(sql) > _LONGEST_QUERY:
            text = f"The query is too long: at most {_LONGEST_QUERY:,} characters."
            raise QueryFailed(ErrorKind.ARGUMENTS, text)
        if "\0" in sql:
            raise QueryFailed(ErrorKind.ARGUMENTS, "The query holds a NUL character.")
        try:
            sql.encode()
        except UnicodeEncodeError:
            raise QueryFailed(ErrorKind.ARGUMENTS, "The query is not valid text.") from None


def tables_of(
    tables: Sequence[Sequence[Any]],
    columns: Sequence[Sequence[Any]],
    keys: Sequence[Sequence[Any]],
) -> list[Table]:
    """Tables from what a catalogue lists.

    `tables` are (name, "true" for a view), `columns` (table, name, type), `keys` (table, True for a
    primary key, column, place in the key, table and column that a foreign key points to).
    """
    primary = {(t, column): place for t, own, column, place, *_ in keys if own}
    foreign = {(t, column): (to, at) for t, own, column, _, to, at in keys if not own}
    of: dict[Any, list[Column]] = {name: [] for name, _ in tables}
    for t, column, type in columns:
        if t in of:
            key = (t, column)
            of[t].append(Column(column, type, primary.get(key, 0), foreign.get(key)))
    return [Table(name, tuple(of[name]), view=view == "true") for name, view in tables]


def _rows(reply: Mapping[str, Any]) -> Rows:
    rows = tuple(tuple([_value(v) if type(v) is list else v for v in row]) for row in reply["rows"])
    return Rows(tuple(reply["columns"]), rows, reply["width"], reply["total"], reply["ended"])


def _value(value: list[Any]) -> Value:
    shown, size, blob = value
    whole = bytes.fromhex(shown) if blob else shown
    return whole if len(whole) == size else Cut(whole, size)

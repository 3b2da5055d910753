"""SQLite: a file, or a database made in memory, read by guarded processes."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from os import PathLike
from pathlib import Path
from typing import Any

from ..base import ErrorKind
from ..errors import DataError, ToolUnavailable, UsageError
from ..process_pool import Overrun, ProcessDied
from .database import COMPARED, Bounds, Column, Cut, QueryFailed, Rows, Schema, Table, Value
from .lexer import is_empty
from .problems import STOPPED, Problem, explain
from .workers import DatabaseSource, Workers

__all__ = ["SqliteDatabase", "find_database"]

_LONGEST_QUERY = 100_000
_SCHEMA_SECONDS = 10.0
_SAMPLES = 3
_SAMPLED_ROWS = 10_000
"""Samples are taken from the first rows of a table, so that a large one is not sorted."""


class SqliteDatabase:
    """A database that queries can read and nothing can change.

    A file is opened read-only where it lies; a database in memory is made once, here, and handed
    to the processes that answer. Databases may share `workers`.

    Example:
        >>> import asyncio
        >>> city = SqliteDatabase.memory({"city": [{"name": "Oslo", "people": 717710}]})
        >>> asyncio.run(city.query("select name from city", COMPARED, 5)).rows
        (('Oslo',),)
    """

    dialect = "SQLite"

    def __init__(self, path: str | PathLike[str], *, workers: Workers | None = None) -> None:
        """Raises `DataError` if the file is missing or is not an SQLite database."""
        place = Path(path).absolute()
        try:
            with place.open("rb") as file:
                magic = file.read(16)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise DataError(f"the database {str(path)!r} can't be read: {why}") from error
        if magic not in (b"SQLite format 3\0", b""):
            raise DataError(
                f"{str(path)!r} is not an SQLite database, or an encrypted one: save it unencrypted"
            )
        self._start(DatabaseSource(str(place), str(place)), workers)

    @classmethod
    def memory(
        cls,
        content: str | Mapping[str, Sequence[Mapping[str, Value]]],
        *,
        workers: Workers | None = None,
    ) -> "SqliteDatabase":
        """A database made of an SQL script, or of tables as lists of rows (name to value).

        The content is yours, not a model's: it is run without guards. Raises `UsageError` where
        it makes no database, or one too large to be held in memory.
        """
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            try:
                if isinstance(content, str):
                    db.executescript(content)
                else:
                    for name, rows in content.items():
                        _create(db, name, rows)
                db.commit()
            except sqlite3.Error as error:
                raise UsageError(f"this makes no database: {error}") from error
            (pages,) = db.execute("pragma page_count").fetchone()
            image = db.serialize() if pages else b""
        database = cls.__new__(cls)
        database._start(DatabaseSource(hashlib.sha256(image).hexdigest(), None, image), workers)
        if len(image) > database.workers.memory // 8:
            raise UsageError(
                f"a database of {len(image)} bytes is too large to be held in memory by every "
                "worker: save it to a file, or give Workers more memory"
            )
        return database

    def _start(self, source: DatabaseSource, workers: Workers | None) -> None:
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
        problem = _problem(reply, sql, seconds)
        schema = None
        if problem.names_something:
            with contextlib.suppress(QueryFailed):
                schema = await self.schema()
        raise QueryFailed(*explain(problem, schema))

    async def _run(self, sql: str, bounds: Bounds, seconds: float) -> Mapping[str, Any]:
        request = {
            "sql": sql,
            "rows": bounds.rows,
            "columns": bounds.columns,
            "cell": bounds.cell,
            "bytes": bounds.bytes,
            "counted": bounds.counted,
        }
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

    async def schema(self) -> Schema:
        """The tables; read once. Raises `QueryFailed`."""
        if self._schema is None:
            async with self.held():
                self._schema = Schema(tuple([await self._table(row) for row in await self._list()]))
        return self._schema

    # -- reading the schema ---------------------------------------------------------------------

    async def _ask(self, sql: str, bounds: Bounds = COMPARED) -> Sequence[Sequence[Any]]:
        reply = await self._run(sql, bounds, _SCHEMA_SECONDS)
        if "columns" not in reply:
            raise QueryFailed(*explain(_problem(reply, sql, _SCHEMA_SECONDS)))
        return _rows(reply).rows

    async def _list(self) -> Sequence[Sequence[Any]]:
        """Name and type of each table and view, without those that SQLite or an index owns."""
        listed = await self._ask(
            "select name, type from pragma_table_list where schema = 'main' and type != 'shadow' "
            "and name not like 'sqlite\\_%' escape '\\' order by name"
        )
        order = {
            name: i for i, (name,) in enumerate(await self._ask("select name from sqlite_schema"))
        }
        return sorted(listed, key=lambda row: order.get(row[0], len(order)))

    async def _table(self, row: Sequence[Any]) -> Table:
        name, kind = row
        try:
            columns = await self._ask(
                f"select name, type, pk from pragma_table_xinfo({_text(name)}) where hidden != 1"
            )
        except QueryFailed:
            if kind != "view":
                raise
            return Table(name, (), view=True)  # a view of something that is gone
        keys = {}
        for key in await self._ask(
            f'select "from", "table", "to" from pragma_foreign_key_list({_text(name)})'
        ):
            keys[key[0]] = (key[1], key[2] or "")
        samples, count = await self._samples(name, [column[0] for column in columns])
        return Table(
            name,
            tuple(
                Column(column, type, key, keys.get(column), samples.get(column, ()))
                for column, type, key in columns
            ),
            count,
            kind == "view",
        )

    async def _samples(
        self, table: str, columns: Sequence[str]
    ) -> tuple[dict[str, tuple[Value, ...]], int | None]:
        """A few values of each column, and the number of rows, where the database can tell."""
        bounds = Bounds(rows=_SAMPLES, columns=1, cell=40, bytes=1000, counted=0)
        found: dict[str, tuple[Value, ...]] = {}
        try:
            for column in columns:
                rows = await self._ask(
                    f"select distinct {_quoted(column)} from (select {_quoted(column)} "
                    f"from {_quoted(table)} limit {_SAMPLED_ROWS}) "
                    f"where {_quoted(column)} is not null order by 1 limit {_SAMPLES}",
                    bounds,
                )
                found[column] = tuple(row[0] for row in rows)
            counted = await self._ask(f"select count(*) from {_quoted(table)}")
        except QueryFailed as error:
            if error.kind is ErrorKind.UNAVAILABLE:
                raise
            return found, None
        return found, counted[0][0]

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


def find_database(folder: str | PathLike[str], name: str) -> Path:
    """The file of a benchmark's database: `folder/name/name.sqlite`, or `folder/name.sqlite`.

    Raises `DataError` if there is none, or `name` is not the plain name of one.
    """
    plain = Path(name).name
    if name != plain or name in ("", ".", "..") or "\0" in name or "\\" in name:
        raise DataError(f"{name!r} is no name of a database: it must be that of one file or folder")
    for parent in (Path(folder) / name, Path(folder)):
        for ending in (".sqlite", ".sqlite3", ".db"):
            if (path := parent / (name + ending)).is_file():
                return path
    raise DataError(f"there is no database {name!r} in {str(folder)!r}")


def _create(db: sqlite3.Connection, name: str, rows: Sequence[Mapping[str, Value]]) -> None:
    if not rows:
        raise UsageError(f"the table {name!r} has no rows to take its columns from: use a script")
    columns = list(rows[0])
    types = [_type_of([row[column] for row in rows]) for column in columns]
    described = (f"{_quoted(c)} {t}".strip() for c, t in zip(columns, types, strict=True))
    db.execute(f"create table {_quoted(name)} ({', '.join(described)})")
    places = ", ".join("?" * len(columns))
    db.executemany(
        f"insert into {_quoted(name)} values ({places})",
        [[row[column] for column in columns] for row in rows],
    )


def _type_of(values: Sequence[Value]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    names = {frozenset({int}): "INTEGER", frozenset({str}): "TEXT", frozenset({bytes}): "BLOB"}
    if kinds and kinds <= {int, float}:
        return names.get(frozenset(kinds), "REAL")
    return names.get(frozenset(kinds), "")


def _rows(reply: Mapping[str, Any]) -> Rows:
    rows = tuple(tuple([_value(v) if type(v) is list else v for v in row]) for row in reply["rows"])
    return Rows(tuple(reply["columns"]), rows, reply["width"], reply["total"], reply["ended"])


def _value(value: list[Any]) -> Value:
    shown, size, blob = value
    whole = bytes.fromhex(shown) if blob else shown
    return whole if len(whole) == size else Cut(whole, size)


def _problem(reply: Mapping[str, Any], sql: str, seconds: float) -> Problem:
    return Problem(
        query=sql,
        message=reply.get("error", ""),
        name=reply.get("name", ""),
        denied=tuple((action, about or "") for action, about in reply.get("denied", ())),
        at=reply.get("at"),
        seconds=seconds,
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

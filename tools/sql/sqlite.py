"""SQLite: a file, or a database made in memory, read by guarded processes."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from .database import Column, QueryFailed, Table, Value
from .guarded import GuardedDatabase
from .lexer import quoted, quoted_text
from .problems import Problem, explain
from .workers import DatabaseSource, Workers

__all__ = ["SqliteDatabase", "find_database"]


class SqliteDatabase(GuardedDatabase):
    """A database that queries can read and nothing can change.

    A file is opened read-only where it lies; a database in memory is made once, here, and handed
    to the processes that answer. Databases may share `workers`.

    Example:
        >>> import asyncio
        >>> city = SqliteDatabase.memory({"city": [{"name": "Oslo", "people": 717710}]})
        >>> asyncio.run(city.query("select name from city")).rows
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
        super().__init__(DatabaseSource(str(place), str(place)), workers)

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
        source = DatabaseSource(hashlib.sha256(image).hexdigest(), None, image)
        GuardedDatabase.__init__(database, source, workers)
        if len(image) > database.workers.memory // 8:
            raise UsageError(
                f"a database of {len(image)} bytes is too large to be held in memory by every "
                "worker: save it to a file, or give Workers more memory"
            )
        return database

    async def _failure(
        self, reply: Mapping[str, Any], sql: str, seconds: float, *, hints: bool
    ) -> QueryFailed:
        problem = Problem(
            query=sql,
            message=reply.get("error", ""),
            name=reply.get("name", ""),
            denied=tuple((action, about or "") for action, about in reply.get("denied", ())),
            at=reply.get("at"),
            seconds=seconds,
        )
        schema = None
        if hints and problem.names_something:
            with contextlib.suppress(QueryFailed):
                schema = await self.schema()
        return QueryFailed(*explain(problem, schema))

    async def _tables(self, end: float) -> list[Table]:
        """Without those that SQLite or an index owns, in the order in which they were made."""
        listed = await self._ask(
            "select name, type from pragma_table_list where schema = 'main' and type != 'shadow' "
            "and name not like 'sqlite\\_%' escape '\\' order by name",
            end,
        )
        made = await self._ask("select name from sqlite_schema", end)
        order = {name: i for i, (name,) in enumerate(made)}
        listed = sorted(listed, key=lambda row: order.get(row[0], len(order)))
        return [await self._table(name, kind == "view", end) for name, kind in listed]

    async def _table(self, name: str, view: bool, end: float) -> Table:
        try:
            columns = await self._ask(
                f"select name, type, pk from pragma_table_xinfo({quoted_text(name)}) "
                "where hidden != 1",
                end,
            )
        except QueryFailed:
            if not view:
                raise
            return Table(name, (), view=True)  # a view of something that is gone
        listed = await self._ask(
            f'select "from", "table", "to" from pragma_foreign_key_list({quoted_text(name)})', end
        )
        keys = {column: (table, target or "") for column, table, target in listed}
        return Table(
            name,
            tuple(Column(column, type, key, keys.get(column)) for column, type, key in columns),
            view=view,
        )


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
    described = (f"{quoted(c)} {t}".strip() for c, t in zip(columns, types, strict=True))
    db.execute(f"create table {quoted(name)} ({', '.join(described)})")
    places = ", ".join("?" * len(columns))
    db.executemany(
        f"insert into {quoted(name)} values ({places})",
        [[row[column] for column in columns] for row in rows],
    )


def _type_of(values: Sequence[Value]) -> str:
    kinds = {type(value) for value in values} - {type(None)}
    names = {frozenset({int}): "INTEGER", frozenset({str}): "TEXT", frozenset({bytes}): "BLOB"}
    if kinds and kinds <= {int, float}:
        return names.get(frozenset(kinds), "REAL")
    return names.get(frozenset(kinds), "")

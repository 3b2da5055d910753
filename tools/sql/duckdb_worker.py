"""DuckDB in the process of `worker.py`.

Its walls: the file is opened read-only, files, networks and extensions are switched off and the
configuration is locked, DuckDB's own parser says of what kind a statement is, memory is bounded and
nothing is spilt to disk, and a thread interrupts the query at its deadline.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import duckdb

from .worker import collect, number

SPACE = 2 << 30
"""Address space beyond the memory, in bytes: its allocator reserves more than it takes."""
_CHUNK = 64
"""Rows that are taken over at once; DuckDB computes some 2,000 ahead."""
_PRAGMAS = re.compile(r"\s*pragma\s+(table_info|show_tables|version)\b", re.IGNORECASE)
_NESTED = frozenset(("list", "array", "struct", "tuple", "map", "union"))
_NUMBERS = "tinyint smallint integer bigint hugeint utinyint usmallint uinteger ubigint uhugeint"
_PLAIN = frozenset(f"{_NUMBERS} float double decimal boolean varchar enum uuid blob null".split())
_settings: dict[str, Any] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # a query must not see this process's variables
    "temp_directory": "",
    "threads": "1",
    "lock_configuration": "true",
}


class _Watch:
    """A thread that interrupts the query which runs at its deadline."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: tuple[duckdb.DuckDBPyConnection, float] | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def set(self, running: tuple[duckdb.DuckDBPyConnection, float] | None) -> None:
        """Watch a connection until a time of the monotonic clock, or none."""
        with self._changed:
            self._running = running
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                if self._running is None:
                    self._changed.wait()
                    continue
                connection, deadline = self._running
                left = deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                else:
                    connection.interrupt()
                    self._changed.wait(0.05)  # and again, if it came between two steps


_watch: _Watch


def prepare(memory: int) -> None:
    """Do what can't be done once the process is confined: it can start no thread then."""
    global _watch
    _settings["memory_limit"] = f"{memory}B"
    _watch = _Watch()


class Connection:
    """One guarded database file."""

    def __init__(self, path: str, image: bytes) -> None:
        self._path = path
        self._open()

    def close(self) -> None:
        """Free what it holds."""
        self._db.close()

    def query(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to a query: rows, or the error."""
        deadline = time.monotonic() + request["seconds"]
        try:
            if os.stat(self._path)[1:3] != self._identity:  # inode, device: the file was replaced
                self._db.close()
                self._open()
            statements = duckdb.extract_statements(request["sql"])
            if len(statements) != 1:
                return {"error": f"{len(statements)} statements", "name": "Statements"}
            kind = statements[0].type.name
            reads = kind in ("SELECT", "EXPLAIN") or _PRAGMAS.match(request["sql"])
            if not reads:
                return {"error": kind, "name": "Forbidden"}
            with closing(self._db.cursor()) as cursor:  # a session of its own
                _watch.set((cursor, deadline))
                try:
                    names = self._execute(cursor, request["sql"], kind)
                    return collect(names, _values(cursor), request)
                finally:
                    _watch.set(None)
        except (duckdb.FatalException, duckdb.InternalException):
            os._exit(3)  # the database is not usable any more: a fresh process takes over
        except Exception as error:  # boundary: what can't become a value of Python
            return {"error": str(error), "name": type(error).__name__}

    def _execute(self, cursor: duckdb.DuckDBPyConnection, sql: str, kind: str) -> list[str]:
        """Start a query, and the names of its columns; those that Python can't hold become text."""
        relation = cursor.sql(sql) if kind == "SELECT" else None
        if relation is not None and not all(map(_held, relation.types)):
            terms = [
                f"#{i}" if _held(type) else f"cast(#{i} as varchar)"
                for i, type in enumerate(relation.types, 1)
            ]
            text = sql.replace("'", "''")
            cursor.execute(f"select {', '.join(terms)} from query('{text}')")
            return relation.columns
        cursor.execute(sql)
        return [column[0] for column in cursor.description or ()]

    def _open(self) -> None:
        self._identity = os.stat(self._path)[1:3]
        self._db = duckdb.connect(self._path, read_only=True, config=_settings)


def _values(cursor: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
    while rows := cursor.fetchmany(_CHUNK):
        for row in rows:
            yield [_plain(value) for value in row]


def _held(type: Any) -> bool:
    """True if Python has all values of a DuckDB type; others are read as the text of DuckDB.

    Python's dates and times know no infinity, no year before 1 and no nanosecond, its intervals no
    month.
    """
    if type.id in _NESTED:
        parts = type.children[:1] if type.id == "array" else type.children  # then its size
        return all(part.id != "blob" and _held(part) for _, part in parts)
    return type.id in _PLAIN


def _plain(value: Any) -> Any:
    """A value as a number, text, bytes or None."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float | str | bytes):
        return value
    if isinstance(value, Decimal):
        return number(f"{value:f}")
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(_keyed(value), ensure_ascii=False, default=str)
    return str(value)


def _keyed(value: Any) -> Any:
    """A nested value with keys that JSON has."""
    if isinstance(value, dict):
        return {
            key if isinstance(key, str | int | float) else str(key): _keyed(each)
            for key, each in value.items()
        }
    return [_keyed(each) for each in value] if isinstance(value, list | tuple) else value

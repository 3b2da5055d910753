"""DuckDB: a file, read by guarded processes (`duckdb_worker.py`)."""

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..base import ErrorKind
from ..errors import DataError
from .database import QueryFailed, Table
from .guarded import GuardedDatabase, tables_of
from .problems import NO_MEMORY, ONE_STATEMENT, STOPPED
from .workers import DatabaseSource, Driver, Workers

__all__ = ["DuckdbDatabase", "is_duckdb"]

DUCKDB = Driver("duckdb", "duckdb", most_open=1)  # each has the memory for itself

_READING = "Only reading is allowed: SELECT, WITH, VALUES, EXPLAIN, DESCRIBE, SHOW TABLES."
_MISSING = re.compile(
    r"(?P<column>Referenced column \"(?P<c1>[^\"]+)\" not found"
    r"|does not have a column named \"(?P<c2>[^\"]+)\")"
    r"|Table with name (?P<t>.+?) does not exist"
)


def is_duckdb(path: str | PathLike[str]) -> bool:
    """True if the file is a DuckDB database, by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            return file.read(12)[8:] == b"DUCK"
    except OSError:
        return False


class DuckdbDatabase(GuardedDatabase):
    """A DuckDB file: queries can read it, and can neither change it nor reach other files."""

    dialect = "DuckDB"

    def __init__(self, path: str | PathLike[str], *, workers: Workers | None = None) -> None:
        """Raises `DataError` if the file is not a DuckDB database, MissingExtra without DuckDB."""
        DUCKDB.paths()
        if not is_duckdb(path):
            raise DataError(f"{str(path)!r} is not a DuckDB database, or can't be read")
        place = str(Path(path).absolute())
        super().__init__(DatabaseSource(place, place, driver=DUCKDB), workers)

    async def _tables(self, end: float) -> list[Table]:
        listed = await self._ask(
            "select table_name, table_type = 'VIEW' from information_schema.tables "
            "where table_schema = 'main' and table_catalog = current_database() order by 1",
            end,
        )
        columns = await self._ask(
            "select table_name, column_name, data_type from information_schema.columns "
            "where table_schema = 'main' and table_catalog = current_database() "
            "order by table_name, ordinal_position",
            end,
        )
        keys = await self._ask(
            "select table_name, constraint_type, unnest(constraint_column_names), "
            "generate_subscripts(constraint_column_names, 1), referenced_table, "
            "unnest(referenced_column_names) from duckdb_constraints() where schema_name = 'main' "
            "and constraint_type in ('PRIMARY KEY', 'FOREIGN KEY')",
            end,
        )
        owned = [(t, kind == "PRIMARY KEY", *key) for t, kind, *key in keys]
        return tables_of(listed, columns, owned)

    async def _failure(
        self, reply: Mapping[str, Any], sql: str, seconds: float, *, hints: bool
    ) -> QueryFailed:
        name, message = reply["name"], reply["error"]
        # Its own suggestions were not tried.
        first = message.split("\n\nPossible solutions")[0].split("\nDid you mean")[0].strip()[:500]
        match name:
            case "InterruptException":
                return QueryFailed(ErrorKind.TIMEOUT, STOPPED.format(seconds=seconds))
            case "OutOfMemoryException" | "MemoryError":
                return QueryFailed(ErrorKind.MEMORY, NO_MEMORY)
            case "OSError" | "FileNotFoundError" | "PermissionError":
                return QueryFailed(ErrorKind.UNAVAILABLE, f"the database can't be read: {first}")
            case "Statements":
                return QueryFailed(ErrorKind.FORBIDDEN, ONE_STATEMENT)
            case "Forbidden":
                return QueryFailed(ErrorKind.FORBIDDEN, f"{message} is not allowed. {_READING}")
            case "PermissionException":
                text = f"Only this database can be read: no files, networks, extensions. {_READING}"
                return QueryFailed(ErrorKind.FORBIDDEN, text)
            case "ParserException" | "SyntaxException":
                return QueryFailed(ErrorKind.SYNTAX, first)
        if "Values were not provided for" in message:
            text = "The query has parameters (? or $name), which have no values here. Write them."
            return QueryFailed(ErrorKind.ARGUMENTS, text)
        if found := _MISSING.search(message):
            kind = "column" if found["column"] else "table"
            missing = found["c1"] or found["c2"] or found["t"]
            text = await self._hint(kind, missing, sql, seconds) if hints else first
            return QueryFailed(ErrorKind.NOT_FOUND, text)
        if name == "CatalogException" and "does not exist" in message:
            return QueryFailed(ErrorKind.NOT_FOUND, first)
        return QueryFailed(ErrorKind.EXCEPTION, first)

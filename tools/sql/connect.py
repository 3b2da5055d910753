"""The database at a place: PostgreSQL for an address, SQLite or DuckDB by a file's first bytes."""

from os import PathLike

from ..errors import DataError
from .duckdb import DuckdbDatabase, is_duckdb
from .guarded import GuardedDatabase
from .postgres import PostgresDatabase, is_postgres
from .sqlite import SqliteDatabase
from .workers import Workers

__all__ = ["connect", "connect_file"]


def connect(place: str | PathLike[str], *, workers: Workers | None = None) -> GuardedDatabase:
    """The database in a file or at an address, which is opened by the first query.

    Raises `DataError` where there is none, MissingExtra where its system is not installed.
    """
    if is_postgres(place):
        return PostgresDatabase(str(place), workers=workers)
    return connect_file(place, workers=workers)


def connect_file(place: str | PathLike[str], *, workers: Workers | None = None) -> GuardedDatabase:
    """The database in a file. Raises as `connect`, and `DataError` for an address too.

    It opens what a file of tasks names, which must not send this program, and its password, to a
    server.
    """
    if is_postgres(place):
        raise DataError("a task may name the file of a database, not a server")
    if is_duckdb(place):
        return DuckdbDatabase(place, workers=workers)
    return SqliteDatabase(place, workers=workers)

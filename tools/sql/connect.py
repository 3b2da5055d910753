"""The database at a place: SQLite or DuckDB by the first bytes of a file."""

from os import PathLike

from .duckdb import DuckdbDatabase, is_duckdb
from .guarded import GuardedDatabase
from .sqlite import SqliteDatabase
from .workers import Workers

__all__ = ["connect"]


def connect(place: str | PathLike[str], *, workers: Workers | None = None) -> GuardedDatabase:
    """The database in a file, which is opened by the first query.

    Raises `DataError` where there is none, MissingExtra where its system is not installed.
    """
    if is_duckdb(place):
        return DuckdbDatabase(place, workers=workers)
    return SqliteDatabase(place, workers=workers)

"""SQL that can only read: the tool, its databases, and when two results are equal."""

from .compare import Comparison, Rule, bird, equal_results, multiset, ordered, spider
from .connect import connect, connect_file
from .database import (
    COMPARED,
    SHOWN,
    Bounds,
    Column,
    Cut,
    Database,
    QueryFailed,
    Rows,
    Schema,
    Table,
    Value,
)
from .duckdb import DuckdbDatabase
from .guarded import GuardedDatabase
from .postgres import PostgresDatabase
from .render import render
from .schema import describe
from .sqlite import SqliteDatabase, find_database
from .tool import SqlArguments, SqlTool
from .workers import Workers

__all__ = [
    "COMPARED",
    "SHOWN",
    "Bounds",
    "Column",
    "Comparison",
    "Cut",
    "Database",
    "DuckdbDatabase",
    "GuardedDatabase",
    "PostgresDatabase",
    "QueryFailed",
    "Rows",
    "Rule",
    "Schema",
    "SqlArguments",
    "SqlTool",
    "SqliteDatabase",
    "Table",
    "Value",
    "Workers",
    "bird",
    "connect",
    "connect_file",
    "describe",
    "equal_results",
    "find_database",
    "multiset",
    "ordered",
    "render",
    "spider",
]

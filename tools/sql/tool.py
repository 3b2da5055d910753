"""The `sql` tool: one reading query goes in, a small table comes out as text."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from dataclasses import replace
from os import PathLike
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..arguments import read_arguments
from ..base import ErrorKind, ToolResult, ToolSession
from ..errors import DataError, UsageError
from .connect import connect
from .database import SHOWN, Bounds, Database, QueryFailed, Rows, Schema
from .postgres import PostgresDatabase
from .problems import described_table, unknown_table
from .render import render
from .schema import describe
from .sqlite import SqliteDatabase

__all__ = ["SqlArguments", "SqlTool"]

_OPEN = 4000
"""Characters of a result if the caller sets no limit."""

Result = TypeVar("Result")


class SqlArguments(BaseModel):
    """The arguments of the `sql` tool."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="One SQL query that reads.")


class SqlTool:
    """Queries on one database, which they can read and never change.

    The result is a table of at most `rows` rows (ReEx-SQL shows 3) and `columns` columns, values
    cut at `cell` characters, rows left out beyond `budget` as `count` measures it (the loop gives
    the tokens it has to a tool without a budget); the last line always says what was cut. A query
    that fails gives the reason, and the closest names where it named something that is not there.
    Sessions share the database and have no state of their own.

    The description that a model reads holds the schema, cut to `schema_budget` (0: no schema;
    None: all of it), measured by `count` too. For databases that change from task to task, `on`
    gives the same tool for another one, which shares the processes.

    Example:
        >>> tool = SqlTool.memory("create table city (name text); insert into city values ('Oslo')")
        >>> print(tool.ask("select upper(name) from city").text)
        upper(name)
        OSLO
        (1 row)
    """

    name = "sql"
    arguments = SqlArguments
    pure = True
    """The same query has the same result: a group of attempts may share it."""

    def __init__(
        self,
        database: Database | str | PathLike[str],
        *,
        bounds: Bounds = SHOWN,
        rows: int | None = None,
        budget: int | None = None,
        schema_budget: int | None = 4000,
        count: Callable[[str], int] = len,
    ) -> None:
        """Raises `DataError` where `database` is a path and no database is there.

        `rows` changes that one bound.
        """
        self.path: str | None = None
        """The database's file, if the tool was made from one."""
        if isinstance(database, str | PathLike):
            self.path = str(database)
            database = connect(database)
            if isinstance(database, PostgresDatabase):
                self.path = None
        if budget is not None and budget < 1:
            raise UsageError(f"the budget of a result must be at least 1, not {budget}")
        self.database: Database = database
        self.bounds = bounds if rows is None else replace(bounds, rows=rows)
        self.budget = budget
        self.schema_budget = schema_budget
        self.count = count
        self._description: str | None = None
        self._held: list[AsyncExitStack] = []

    @classmethod
    def memory(cls, content: str | Mapping[str, Any], **settings: Any) -> "SqlTool":
        """The tool on a database in memory: an SQL script, or tables as lists of rows."""
        return cls(SqliteDatabase.memory(content), **settings)

    def on(self, database: Database) -> "SqlTool":
        """The same tool for another database."""
        return SqlTool(
            database,
            bounds=self.bounds,
            budget=self.budget,
            schema_budget=self.schema_budget,
            count=self.count,
        )

    @property
    def description(self) -> str:
        """The tool's purpose and the schema. Reads the database the first time.

        Raises `DataError` if that can't be done.
        """
        if self._description is None:
            dialect = self.database.dialect
            text = f"Runs one {dialect} query on a database and returns its rows. It can only read."
            if self.schema_budget != 0:
                text += f"\nThe tables:\n{_now(self.describe(self.schema_budget))}"
            self._description = text
        return self._description

    async def describe(self, budget: int | None = None) -> str:
        """The schema as text, at most `budget` as `count` measures it. Raises `DataError`."""
        return describe(await self.schema(), budget=budget, count=self.count)

    def within(self, budget: int, count: Callable[[str], int]) -> "SqlTool":
        """The same tool with this budget for results, unless it has its own budget."""
        if self.budget is not None:
            return self
        tool = copy(self)
        tool.budget, tool.count = budget, count
        return tool

    async def schema(self) -> Schema:
        """The tables. Raises `DataError` where they can't be read."""
        try:
            return await self.database.schema()
        except QueryFailed as error:
            whose = "" if self.path is None else f"{self.path}: "
            raise DataError(whose + error.text) from error

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """A session; while one is open, the processes that answer are kept."""
        async with self.database.held():
            session = _SqlSession(self)
            try:
                yield session
            finally:
                session.closed = True

    async def __aenter__(self) -> Self:
        """Keep the processes that answer, whether or not a session is open, until the tool was left
        as often as entered.
        """
        stack = AsyncExitStack()
        await stack.enter_async_context(self.database.held())
        self._held.append(stack)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._held.pop().aclose()

    def ask(self, query: str, seconds: float = 10.0) -> ToolResult:
        """The result that a model would be shown for a query, for code that can't await."""
        return _now(self.call(query, seconds))

    async def call(self, query: str, seconds: float) -> ToolResult:
        """The result that a model is shown for a query."""
        start = time.perf_counter()
        try:
            rows = await self.database.query(query, self.bounds, seconds)
            result = await self._shown(query, rows)
        except QueryFailed as error:
            result = ToolResult(error.text, error.kind)
        return replace(result, seconds=time.perf_counter() - start)

    async def _shown(self, query: str, rows: Rows) -> ToolResult:
        # SQLite describes a table that does not exist as one without columns.
        name = None if rows.total else described_table(query)
        if name and (text := unknown_table(name, await self.database.schema())):
            return ToolResult(text, ErrorKind.NOT_FOUND)
        text, shown = render(rows, budget=self.budget or _OPEN, count=self.count)
        # SQLite takes a name in double quotes that is not a column for a text.
        taken = [name for name in rows.columns if name[:1] == '"' == name[-1:] and len(name) > 1]
        if taken:
            text += f"\n({', '.join(taken)}: no such column, read as text)"
        details: dict[str, JsonValue] = {
            "columns": list(rows.columns),
            "rows": rows.total,
            "shown": shown,
            "whole": rows.whole and shown == rows.total,
        }
        return ToolResult(text, details=details)


class _SqlSession:
    """One trajectory's access. It holds nothing but the tool."""

    stateless: Literal[True] = True

    def __init__(self, tool: SqlTool) -> None:
        self._tool = tool
        self.closed = False

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        if self.closed:
            return ToolResult("the session is closed", ErrorKind.UNAVAILABLE)
        read = read_arguments(SqlArguments, arguments)
        if isinstance(read, ToolResult):
            return read
        return await self._tool.call(read.query, seconds)

    async def fork(self) -> ToolSession:
        return _SqlSession(self._tool)


def _now(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, awaited in its own thread, for code that can't await."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()

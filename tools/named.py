"""Tools by name: what a command line or a configuration can ask for."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from .base import Tool
from .errors import UsageError
from .function import FunctionTool
from .importing import find, parse_name
from .langchain import LangChainTool, from_langchain, is_langchain
from .python import PythonTool
from .search import HttpRetriever, SearchTool, is_private
from .sql import Database, SqlTool
from .sql.postgres import has_password

__all__ = ["TOOLS", "AnyTool", "as_tool", "find_tool", "task_sql", "without_password"]

T = TypeVar("T")
AnyTool: TypeAlias = str | Tool | LangChainTool | Callable[..., Any]
"""A tool, its name (`python`, `python:jupyter`, `sql:some.db`, `search:docs/`,
`search:http://localhost:8000/retrieve`), a plain typed function, or a LangChain tool."""


def _search(source: str, *, top: int = 3, budget: int | None = None) -> Tool:
    # Who writes that a server is here, or in this network, means it. A name that turns out to lead
    # here may be somebody else's doing.
    allowed = source.startswith(("http://", "https://")) and is_private(source)
    retriever = HttpRetriever(source, allow_private=True) if allowed else source
    search = SearchTool(retriever, top, budget=budget)
    search.prepare()  # an index that takes long is made now, not within a call's time limit
    return search


def _python(
    backend: str = "sandbox", *, sessions: int | None = None, characters: int = 100_000
) -> Tool:
    # Nothing that loosens walls: that is said in so many words, by an option of its own.
    return PythonTool(backend, sessions=sessions, characters=characters)


def without_password(name: T) -> T:
    """The name of a tool, or the tool itself. Raises UsageError if it is a name with a password:
    names are shown and recorded.
    """
    if isinstance(name, str) and has_password(parse_name(name).source):
        raise UsageError(
            "the tool's name holds a password, and names are recorded: leave it out, and put it "
            "into PGPASSWORD or ~/.pgpass"
        )
    return name


def _sql(
    database: str | Database,
    *,
    rows: int = 20,
    budget: int | None = None,
    schema_budget: int = 4000,
) -> Tool:
    if isinstance(database, str):
        without_password(f"sql:{database}")
    return SqlTool(database, rows=rows, budget=budget, schema_budget=schema_budget)


TOOLS: dict[str, Callable[..., Tool]] = {
    "python": _python,
    "sql": _sql,
    "search": _search,
}
"""Makers of the tools that interlace brings; the text after a colon is their first argument."""
_NEEDS_SOURCE = {
    "sql": "a database's file or a PostgreSQL address",
    "search": "a file or folder of texts, or a search server's address",
}


def find_tool(name: str, *, trusted: bool = True, folder: Path | None = None) -> Tool:
    """The tool of that name, by the grammar of `tools/importing.py`.

    `python`, `python:jupyter`, `sql:some.db`, `sql:some.db@rows=3`, `search:docs/`,
    `search:http://localhost:8000/retrieve`; of your own `my_tools:tide` or `my_tools.py:tide`: a
    function, a tool, or a class or function that makes a tool of a source and parameters
    (`my_tools.py:Graph:roads.csv@depth=3`). Raises UsageError for any other.
    """
    found = find("tool", name, TOOLS, trusted=trusted, folder=folder)
    kind, made = found.name.head, found.value
    if found.own and not found.source and kind in _NEEDS_SOURCE:
        raise UsageError(f"the tool {name!r} is written {kind}:PATH, {_NEEDS_SOURCE[kind]}")
    if found.configured and _is_tool(made):
        raise UsageError(f"the tool {name!r} takes no source and no parameters: write {kind} alone")
    if found.own or found.configured or isinstance(made, type):
        made = found.make()
    elif inspect.isroutine(made):
        return FunctionTool(made)
    if is_langchain(made) and not _is_tool(made):
        return from_langchain(made)
    if not _is_tool(made):
        raise UsageError(
            f"the tool {name!r} is of type {type(made).__name__}: name a function, a tool, or what "
            "makes a tool"
        )
    return made  # type: ignore[no-any-return]  # checked member by member


def task_sql(tools: Sequence[AnyTool] | None) -> str | None:
    """The name of the only tool, if it is `sql` without a database, as in `sql@rows=3`: each task
    then brings its database. None otherwise.
    """
    match tools:
        case [str(name)]:
            parsed = parse_name(name)
            return name if parsed.head == "sql" and not parsed.source else None
    return None


def as_tool(given: AnyTool) -> Tool:
    """The tool of that name, of that function or LangChain tool, or the one given.

    Raises UsageError for anything else.
    """
    if isinstance(given, str):
        return find_tool(given)
    if _is_tool(given):
        return given  # type: ignore[return-value]  # checked member by member
    if is_langchain(given):
        return from_langchain(given)
    if not callable(given):
        raise UsageError(f"a tool is a name, a function or a tool, not {type(given).__name__}")
    return FunctionTool(given)


def _is_tool(given: object) -> bool:
    members = ("name", "description", "arguments", "session")
    return not isinstance(given, type) and all(hasattr(given, member) for member in members)

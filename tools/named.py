"""Tools by name: what a command line or a configuration can ask for."""

from collections.abc import Callable

from .base import Tool
from .errors import UsageError
from .python import PythonTool
from .search import HttpRetriever, SearchTool, is_private
from .sql import SqlTool

__all__ = ["TOOLS", "find_tool"]


def _prepared_search(source: str) -> Tool:
    # Who writes that a server is here, or in this network, means it. A name that turns out to lead
    # here may be somebody else's doing.
    allowed = source.startswith(("http://", "https://")) and is_private(source)
    search = SearchTool(HttpRetriever(source, allow_private=True) if allowed else source)
    search.prepare()  # an index that takes long is made now, not within a call's time limit
    return search


TOOLS: dict[str, Callable[[str], Tool]] = {
    "python": lambda source: PythonTool(source or "sandbox"),
    "sql": SqlTool,
    "search": _prepared_search,
}
"""The tools that can be asked for by name; what stands behind a colon is what they work on."""
_MAY_HAVE_SOURCE = ("python",)
_NEEDS_SOURCE = {
    "sql": "a database's file",
    "search": "a file or folder of texts, or a search server's address",
}


def find_tool(name: str) -> Tool:
    """The tool of that name: `python`, `python:jupyter`, `sql:some.db`, `search:docs/`,
    `search:http://localhost:8000/retrieve`. Raises UsageError for any other.
    """
    kind, _, source = name.partition(":")
    if kind not in TOOLS:
        raise UsageError(f"there is no tool {kind!r}; there are: {', '.join(TOOLS)}")
    if bool(source) != (kind in _NEEDS_SOURCE) and kind not in _MAY_HAVE_SOURCE:
        form = f"{kind}:PATH, {_NEEDS_SOURCE[kind]}" if not source else kind
        raise UsageError(f"the tool {name!r} is written {form}")
    return TOOLS[kind](source)

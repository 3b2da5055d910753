"""Hints on names that do not exist: a query is run with a close name before that is suggested."""

import re
from collections.abc import Awaitable, Callable

from .database import Schema
from .lexer import quoted, words
from .problems import close_names, listed, mentioned, other_columns

__all__ = ["hint"]


async def hint(
    kind: str, name: str, query: str, schema: Schema, works: Callable[[str], Awaitable[bool]]
) -> str:
    """The text for the model about a missing `kind`, which is table or column.

    `works` runs a query and tells whether it gives rows or an empty result. A name is suggested
    only if the query works with it.
    """
    missing = name.rpartition(".")[2].strip('"')
    tables = mentioned(query, schema)
    if kind == "table":
        known = [table.name for table in schema.tables]
    else:
        known = [column.name for table in tables for column in table.columns]
    for close in close_names(missing, known):
        # Quoted only where it must be, as the model will write it.
        spelt = close if re.fullmatch(r"[a-z_][a-z0-9_]*", close) else quoted(close)
        if await works(_replaced(query, missing, spelt)):
            return f"no such {kind}: {name}. Did you mean {spelt}? With it the query runs."
    if kind == "table":
        return f"no such table: {name}. Tables: {listed(known) or 'none'}."
    elsewhere = [t.name for t in schema.tables if any(c.name == missing for c in t.columns)]
    return f"no such column: {name}. {other_columns(missing, elsewhere, tables, schema)}"


def _replaced(query: str, old: str, new: str) -> str:
    """The query with another name in every place where it has `old`."""
    parts, end = [], 0
    for word in words(query):
        if (word.name or "").casefold() == old.casefold():
            parts += [query[end : word.start], new]
            end = word.start + len(word.text)
    return "".join([*parts, query[end:]])

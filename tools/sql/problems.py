"""The message to the model about a failed query: the kind of the error, and what to do."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..base import ErrorKind
from .database import Schema, Table
from .lexer import Word, names, words
from .worker import FUNCTIONS

__all__ = ["NO_MEMORY", "ONE_STATEMENT", "STOPPED", "Problem", "close_names", "described_table"]
__all__ += ["explain", "listed", "mentioned", "other_columns", "place", "unknown_table"]

_LISTED = 20
"""Names that are listed at most."""
_AROUND = 40
"""Characters of the query shown on either side of an error."""

STOPPED = "The query was stopped after {seconds:g} s. Make it do less."
NO_MEMORY = "The query needs more memory than is allowed. Make it do less."
ONE_STATEMENT = "Only one statement at a time is allowed."
_READING = "Only reading is allowed: SELECT, WITH, VALUES, EXPLAIN, PRAGMA table_info(...)."
_READERS = ("SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA")
_OURS = re.compile(
    r"SQLITE_(CORRUPT|NOTADB|IOERR|CANTOPEN|BUSY|LOCKED|PROTOCOL|PERM|FULL|SCHEMA)\w*"
    r"|\w*NotFoundError|PermissionError|OSError"
)
_SYNTAX = re.compile(
    r"incomplete input|unrecognized token|syntax error|parser stack overflow|too (many|large|deep)"
    r"|at most \d+ tables"
)
_AFTER_TABLE = """
    AND ON WHERE GROUP ORDER HAVING LIMIT JOIN LEFT RIGHT FULL INNER CROSS NATURAL OUTER UNION
    EXCEPT INTERSECT USING SET WINDOW INDEXED NOT
""".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure as SQLite tells it.

    `name` is its error's name; `denied` what the authorizer refused, as (action, about what);
    `at` is the position of a syntax error in the query, if that is known.
    """

    query: str
    message: str
    name: str = ""
    denied: tuple[tuple[str, str], ...] = ()
    at: int | None = None
    seconds: float = 0.0

    @property
    def names_something(self) -> bool:
        """True if the schema helps to explain the failure."""
        return self.message.startswith(("no such table", "no such column", "ambiguous column"))


def explain(problem: Problem, schema: Schema | None = None) -> tuple[ErrorKind, str]:
    """The kind of the error and the text for the model."""
    message = problem.message
    if problem.name == "SQLITE_INTERRUPT":
        return ErrorKind.TIMEOUT, STOPPED.format(seconds=problem.seconds)
    if problem.name in ("MemoryError", "SQLITE_NOMEM", "SQLITE_TOOBIG"):
        return ErrorKind.MEMORY, NO_MEMORY
    if _OURS.fullmatch(problem.name):
        return ErrorKind.UNAVAILABLE, f"the database can't be read: {message}"
    if problem.denied or problem.name in ("SQLITE_AUTH", "SQLITE_READONLY") or not message:
        return ErrorKind.FORBIDDEN, _forbidden(problem)
    if "one statement at a time" in message:
        return ErrorKind.FORBIDDEN, ONE_STATEMENT
    if "bindings" in message or "binding " in message:
        text = "The query has parameters (? or :name), which have no values here. Write the values."
        return ErrorKind.ARGUMENTS, text
    if _SYNTAX.search(message):
        return ErrorKind.SYNTAX, _syntax(problem)
    if found := re.match(r"no such (table|column|function): (.*)", message, re.DOTALL):
        name = found[2].split(" - should this be")[0].strip('"')
        if found[1] == "function":
            close = difflib.get_close_matches(name.lower(), sorted(FUNCTIONS), 2, 0.75)
            guess = f" Did you mean {listed(close)}?" if close else ""
            return ErrorKind.NOT_FOUND, f"no such function: {name}.{guess}"
        if schema is None:
            return ErrorKind.NOT_FOUND, f"{message}."
        if found[1] == "table":
            return ErrorKind.NOT_FOUND, _table(name, schema)
        return ErrorKind.NOT_FOUND, _column(name, problem.query, schema)
    if message.startswith("ambiguous column name: ") and schema is not None:
        name = message.removeprefix("ambiguous column name: ")
        owners = [t.name for t in mentioned(problem.query, schema) if _own(t, name)]
        return ErrorKind.EXCEPTION, f"{message}. It is in: {listed(owners)}. Write table.{name}."
    return ErrorKind.EXCEPTION, f"{message[:500]}."


def described_table(query: str) -> str | None:
    """The table that a query asks `table_info` about, if it does."""
    asked = r"(?:\b|pragma_)table_x?info\s*(?:\(|=)\s*([\"'`\[]?)([^\"'`\])]+)"
    found = re.search(asked, query, re.IGNORECASE)
    return found[2].strip() if found is not None else None


def unknown_table(name: str, schema: Schema) -> str | None:
    """The text about a table that does not exist, or None if it does."""
    if any(_same(table.name, name) for table in schema.tables):
        return None
    return _table(name, schema)


def _forbidden(problem: Problem) -> str:
    first = words(problem.query)[0].text.upper()
    if first.isalpha() and first not in _READERS:
        return f"{first[:40]} is not allowed. {_READING}"
    action, about = problem.denied[0] if problem.denied else ("", "")
    if action == "function":
        return f"The function {about}() is not allowed."
    if action == "printf":
        return f"printf: the field {about} is too wide; at most 1000, written as a number."
    if action == "pragma":
        return f"PRAGMA {about} is not allowed. {_READING}"
    if about.casefold().startswith("sqlite_"):
        return "The query uses a table that is not allowed."
    return f"Not allowed: {action}. {_READING}" if action not in ("", "other") else _READING


def _syntax(problem: Problem) -> str:
    message, query = problem.message, problem.query
    if message == "incomplete input":
        return "Syntax error: the query ends too early; something is missing at its end."
    if found := re.fullmatch(r'unrecognized token: "(.*)"', message, re.DOTALL):
        token = found[1]
        at = query.find(token)
        if token[:1] in "'\"`[":
            return f"Syntax error: a quote is not closed{place(query, at, 1)}."
        return f"Syntax error: {token[:40]!r} has no meaning{place(query, at, len(token))}."
    if found := re.fullmatch(r'near "(.*)": syntax error', message, re.DOTALL):
        where = "" if problem.at is None else place(query, problem.at, len(found[1]))
        return f'Syntax error near "{found[1][:40]}"{where}.'
    return f"{message[:300]}."


def place(query: str, at: int, length: int) -> str:
    """The place of `length` characters from `at`, as line, character and what is around it."""
    if at < 0:
        return ""
    line = query.count("\n", 0, at) + 1
    begin = query.rfind("\n", 0, at) + 1
    end = query.find("\n", at)
    end = len(query) if end < 0 else end
    before = query[max(begin, at - _AROUND) : at].lstrip()
    after = query[at + length : max(at + length, min(end, at + length + _AROUND))].rstrip()
    token = query[at : at + length][:_AROUND]
    return f" (line {line}, character {at - begin + 1}): {before}>>>{token}<<<{after}"


def _table(name: str, schema: Schema) -> str:
    tables = [table.name for table in schema.tables]
    close = close_names(name.rpartition(".")[2], tables)
    guess = f" Did you mean {listed(close)}?" if close else ""
    return f"no such table: {name}.{guess} Tables: {listed(tables) or 'none'}."


def _column(name: str, query: str, schema: Schema) -> str:
    qualifier, _, column = name.rpartition(".")
    tables = mentioned(query, schema)
    if qualifier:
        owner = _aliases(query, schema).get(qualifier.rpartition(".")[2].casefold())
        tables = [owner] if owner is not None else tables
    start = f"no such column: {name}."
    close = close_names(column, [c.name for table in tables for c in table.columns])
    if close:
        owned = [
            f"{table.name}.{c.name}" for each in close for table in tables for c in table.columns
            if c.name == each
        ]  # fmt: skip
        return f"{start} Did you mean {listed(owned)}?"
    elsewhere = [table.name for table in schema.tables if _own(table, column)]
    return f"{start} {other_columns(column, elsewhere, tables, schema)}"


def other_columns(
    missing: str, elsewhere: Sequence[str], tables: Sequence[Table], schema: Schema
) -> str:
    """The text about a missing column without a close name.

    It names the tables `elsewhere` that have the column, else the columns of the query's `tables`,
    else all tables.
    """
    if elsewhere:
        return f"The column {missing} is in: {listed(elsewhere)}."
    columns = [f"{table.name} ({listed([c.name for c in table.columns])})" for table in tables[:3]]
    if columns:
        return f"The columns: {'; '.join(columns)}."
    return f"Tables: {listed([table.name for table in schema.tables])}."


def mentioned(query: str, schema: Schema) -> list[Table]:
    """The tables that a query names, in the schema's order."""
    named = names(query)
    return [table for table in schema.tables if table.name.casefold() in named]


def _aliases(query: str, schema: Schema) -> dict[str, Table]:
    """The tables by the names that a query may use: their own, and the aliases it gives them."""
    tables = {table.name.casefold(): table for table in schema.tables}
    found = dict(tables)
    query_words = words(query)
    for i, word in enumerate(query_words):
        table = tables.get((word.name or "").casefold())
        alias = _alias(query_words[i + 1 : i + 3])
        if table is not None and alias:
            found[alias.casefold()] = table
    return found


def _alias(after: list[Word]) -> str | None:
    if after and after[0].is_keyword("AS"):
        after = after[1:]
    if not after or after[0].text.upper() in _AFTER_TABLE:
        return None
    return after[0].name


def close_names(name: str, among: Iterable[str]) -> list[str]:
    """The names that `name` may have meant, the closest first, letter case aside.

    A part of a name counts too: `nmae` is close to `city_name`.
    """
    known: dict[str, list[str]] = {}
    for each in sorted(set(among)):
        whole = each.casefold()
        for key in {whole, *(part for part in re.split(r"[\W_]+", whole) if len(part) > 2)}:
            known.setdefault(key, []).append(each)
    matches = difflib.get_close_matches(name.casefold(), known, 3, 0.7)
    return list(dict.fromkeys(each for match in matches for each in known[match]))[:3]


def _own(table: Table, column: str) -> bool:
    return any(_same(each.name, column) for each in table.columns)


def _same(a: str, b: str) -> bool:
    return a.casefold() == b.casefold()


def listed(names: Sequence[str]) -> str:
    """The names, or the first of them and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

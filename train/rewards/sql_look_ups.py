"""News that the look-ups of an episode brought: ReEx-SQL's exploration.

The paper (arXiv 2505.12768) names the part and gives no formula: this definition is ours.

A *fact* is a text that the gold query holds and the question does not, letter for letter: how the
database spells a place, the code of a state. A number is not, since rows show any by chance.
"""

import re

from ...rollout.trajectory import CallRecord, Episode
from ...tools.sql import Schema
from ...tools.sql.lexer import words

__all__ = ["Named", "brings_news", "spelt"]

_COMPARES = ("=", "like", "glob", "in", "is", "(")
"""Words and signs between a column and a text that it is compared with."""
_WIDTH = 2
"""Columns of a look-up that asks: a value and its meaning."""
_ROWS = 3
"""Rows of a wider look-up that asks: it compared a column with a text."""


class Named:
    """The tables, columns and values that are in a query, in lower case."""

    def __init__(self, query: str, schema: Schema) -> None:
        tables = {table.name.casefold() for table in schema.tables}
        columns = {column.name.casefold() for table in schema.tables for column in table.columns}
        self.tables: set[str] = set()
        self.columns: set[str] = set()
        self.numbers: set[str] = set()
        self.texts: set[str] = set()
        """The strings, letter for letter."""
        self.asked: set[str] = set()
        """The strings that a column is compared with."""
        self.star = False
        before = named = ""
        comparing = False
        for word in words(query):
            name = (word.name or "").casefold()
            if name in tables:
                self.tables.add(name)
            if name in columns:
                self.columns.add(name)
            if word.kind == "string" or (word.kind == "quoted" and name not in tables | columns):
                text = word.name or word.text[1:-1].replace("''", "'")
                self.texts.add(text)
                if word.kind == "string" and comparing:
                    self.asked.add(_plain(text))
            elif word.kind == "number":
                self.numbers.add(word.text)
            elif word.text == "*":  # all columns; not a product, and not count(*)
                self.star |= before in ("select", "distinct", ",", ".")
            comparing = word.text.casefold() in _COMPARES and (comparing or named in columns)
            before, named = word.text.casefold(), name

    @property
    def all(self) -> set[tuple[str, str]]:
        """Everything, with its kind."""
        named = {"table": self.tables, "column": self.columns}
        named |= {"string": set(map(_plain, self.texts)), "number": self.numbers}
        return {(kind, name) for kind, names in named.items() for name in names}


def brings_news(episode: Episode, gold: str, schema: Schema, question: str, prompt: str) -> bool:
    """True if a look-up brought to light what the gold query rests on and the prompt does not say.

    `prompt` is all that the policy was told before its first word. A look-up is a call that ran,
    reads a table, gave rows, and is neither the final nor the gold query. A dump never counts: a
    look-up of more than two columns, or of `*`, unless it compares a column with a text and gave at
    most three rows. Of the rows that were shown, one must hold

    - a fact that is neither in the prompt nor in the look-up; or
    - a fact that the prompt shows as one value among others, from a table that the gold query does
      not read, together with its meaning: a text beside it, or one that the look-up asked for; or
    - where the look-up asked for the name of a column of the gold query, a text that is neither in
      the prompt nor in the look-up: documentation of the column.
    """
    wanted = Named(gold, schema)
    facts = {text for text in wanted.texts if text and not _stands_in(text, question)}
    finals = {spelt(gold), spelt(episode.answer or "")}
    for trajectory in episode.trajectories:
        for call in trajectory.calls:
            query = (call.arguments or {}).get("query")
            if call.tool != "sql" or call.error is not None or not isinstance(query, str):
                continue
            look = Named(query, schema)
            if not look.tables or spelt(query) in finals or _is_dump(look, call):
                continue
            # Without the names of the columns, and the count of rows at the end.
            for row in call.output.splitlines()[1:-1]:
                if _tells(row.split(" | "), look, wanted, facts, prompt):
                    return True
    return False


def _is_dump(look: Named, call: CallRecord) -> bool:
    columns, rows = call.details.get("columns"), call.details.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, int):
        return True  # not the `sql` tool's
    narrow = len(columns) <= _WIDTH and not look.star
    return not narrow and not (look.asked and rows <= _ROWS)


def _tells(row: list[str], look: Named, wanted: Named, facts: set[str], prompt: str) -> bool:
    line = " | ".join(row)
    elsewhere = bool(look.tables - wanted.tables)
    for fact in facts - look.texts:
        if not _stands_in(fact, line):
            continue
        beside = any(_is_text(cell) and not _stands_in(fact, cell) for cell in row)
        if not _stands_in(fact, prompt) or (elsewhere and (beside or look.asked)):
            return True
    if look.asked & wanted.columns:
        return any(
            _is_text(cell) and cell not in look.texts and not _stands_in(cell, prompt)
            for cell in row
        )
    return False


def _is_text(cell: str) -> bool:
    return any(map(str.isalpha, cell)) and cell != "NULL"


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _stands_in(value: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def spelt(query: str) -> tuple[str, ...]:
    """The words of a query: names without quotes and, as keywords, in lower case."""
    spelt = [(word.name or word.text).casefold() if word.kind in ("name", "quoted") else word.text
             for word in words(query)]  # fmt: skip
    while spelt and spelt[-1] == ";":
        spelt.pop()
    return tuple(spelt)

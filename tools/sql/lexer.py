"""SQL as a list of words: what is a comment, a string, a quoted name, and how deeply nested it is.

Not a parser: SQLite decides what a query means and an authorizer what it may do. This is for what
is said about a query: whether it is empty, whether it orders its rows, where it went wrong.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Word", "is_empty", "names", "order_by", "quoted", "quoted_text", "words"]

_WORD = re.compile(
    r"""
      (?P<blank> \s+ | --[^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string> '(?:[^']|'')*(?:'|\Z) )
    | (?P<quoted> "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
    | (?P<number> (?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][-+]?\d+)? )
    | (?P<name> [^\W\d][\w$]* )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `kind`: string, quoted, number, name (a keyword too) or sign.

    `depth` is the number of parentheses around it.
    """

    kind: str
    text: str
    start: int
    depth: int

    def is_keyword(self, *keywords: str) -> bool:
        """True if it is one of these, given in capitals."""
        return self.kind == "name" and self.text.upper() in keywords

    @property
    def name(self) -> str | None:
        """The name that it spells, without quotes, or None if it is not a name."""
        if self.kind == "name":
            return self.text
        if self.kind == "quoted":
            quote = {"[": "]"}.get(self.text[0], self.text[0])
            inner = self.text[1:].removesuffix(quote)
            return inner if quote == "]" else inner.replace(quote * 2, quote)
        return None


def words(sql: str) -> list[Word]:
    """The words of a query, without blanks and comments.

    Example:
        >>> [word.text for word in words("select 'a;' -- b")]
        ['select', "'a;'"]
    """
    found, depth = [], 0
    for match in _WORD.finditer(sql):
        kind, text = str(match.lastgroup), match.group()
        if kind == "blank":
            continue
        if text == ")":
            depth -= 1
        found.append(Word(kind, text, match.start(), depth))
        if text == "(":
            depth += 1
    return found


def is_empty(sql: str) -> bool:
    """True if there is nothing but blanks, comments and semicolons."""
    return all(word.text == ";" for word in words(sql))


def quoted(name: str) -> str:
    """A name as it is written in a query, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """A text as it is written in a query."""
    return "'" + text.replace("'", "''") + "'"


def names(sql: str) -> set[str]:
    """All names in a query (keywords too), in lower case."""
    return {name.casefold() for word in words(sql) if (name := word.name) is not None}


def order_by(sql: str) -> list[list[Word]] | None:
    """The terms by which a query orders its result, or None if it does not.

    An ORDER BY in a subquery, a window or an aggregate orders something else.

    Example:
        >>> order_by("select a from (select a from t order by a)") is None
        True
        >>> [term[0].text for term in order_by("select a, b from t order by b desc, a limit 3")]
        ['b', 'a']
    """
    query = [word for word in words(sql) if word.text != ";"]
    at_depth: dict[int, list[int]] = {}
    for i, word in enumerate(query):
        at_depth.setdefault(word.depth, []).append(i)
    depth, last = 0, len(query) - 1
    while depth < last and query[depth].text == "(" and query[last].text == ")":
        if any(depth < i < last for i in at_depth.get(depth, ())):
            break  # two parts in parentheses of their own
        depth, last = depth + 1, last - 1
    query = query[depth : last + 1]
    for i, (word, after) in enumerate(pairwise(query)):
        if word.depth == depth and word.is_keyword("ORDER") and after.is_keyword("BY"):
            return list(_terms(query[i + 2 :], depth))
    return None


def _terms(rest: list[Word], depth: int) -> Iterator[list[Word]]:
    term: list[Word] = []
    for word in rest:
        if word.depth == depth and word.is_keyword("LIMIT", "OFFSET", "FETCH", "FOR"):
            break
        if word.depth == depth and word.text == ",":
            yield term
            term = []
        else:
            term.append(word)
    if term:
        yield term

"""Spider's exact set match: two queries are the same component by component.

Source: taoyds/test-suite-sql-eval (`evaluation.py`, `eval_exact_match`), for Spider (arXiv
1809.08887). All of these must be equal: the select terms and the where conditions, in any order;
the words that join conditions; the tables; the group terms with the having conditions; the order
terms, and whether there is a limit; and, recursively, the queries of INTERSECT, UNION and EXCEPT.
Values and DISTINCT do not count, nor do the conditions of joins; aliases are resolved, and a
foreign key is the column that it refers to. Nested queries are compared in the same way, where the
original compares them term by term in their order.

A query outside Spider's grammar (WITH, CASE, windows) can't be compared.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ...tools.sql import Schema
from ...tools.sql.lexer import Word, words

__all__ = ["Unmatched", "set_match"]

_Form: TypeAlias = tuple[object, ...]
_CLAUSES = ("SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT")
_SETS = ("INTERSECT", "UNION", "EXCEPT")
_OTHER = ("WITH", "CASE", "OVER", "WINDOW", "VALUES", "FILTER")
_JOIN = ("JOIN", "LEFT", "RIGHT", "INNER", "OUTER", "CROSS", "NATURAL", "FULL")
_MOST = 2_000
"""Words of a query."""


class Unmatched(ValueError):
    """A query is not of Spider's grammar; the message says why."""


def set_match(query: str, gold: str, schema: Schema) -> bool:
    """True if two queries match by Spider's rules. Raises Unmatched if `gold` can't be compared.

    Example:
        >>> set_match("select b, a from t", "SELECT x.a, x.b FROM t AS x", Schema(()))
        True
    """
    reader = _Reader(schema)
    wanted = reader.form(words(gold), {})
    try:
        return reader.form(words(query), {}) == wanted
    except (Unmatched, RecursionError):
        return False


class _Reader:
    def __init__(self, schema: Schema) -> None:
        self._columns = {
            table.name.casefold(): {column.name.casefold() for column in table.columns}
            for table in schema.tables
        }
        self._refers = {
            f"{table.name}.{column.name}".casefold(): ".".join(column.target).casefold()
            for table in schema.tables
            for column in table.columns
            if column.target is not None
        }

    def form(self, query: Sequence[Word], outer: Mapping[str, str]) -> _Form:
        """The components of a query, such that equal ones match."""
        query = [word for word in query if word.text != ";"]
        if not query or len(query) > _MOST:
            raise Unmatched("there is no query, or a very long one")
        depth = query[0].depth
        for place, word in enumerate(query):
            if word.is_keyword(*_OTHER):
                raise Unmatched(f"{word.text.upper()} is not of Spider's grammar")
            if word.depth == depth and word.is_keyword(*_SETS) and place:
                rest = query[place + 1 :]
                if rest and rest[0].is_keyword("ALL"):
                    rest = rest[1:]
                left, right = self.form(query[:place], outer), self.form(rest, outer)
                return (word.text.upper(), left, right)
        starts = [i for i, w in enumerate(query) if w.depth == depth and w.is_keyword(*_CLAUSES)]
        found = [query[i].text.upper() for i in starts]
        if found != [name for name in _CLAUSES if name in found] or found[:2] != ["SELECT", "FROM"]:
            raise Unmatched("its clauses are not those of one SELECT ... FROM, in their order")
        if starts[0]:
            raise Unmatched("it does not begin with SELECT")
        ends = [*starts[1:], len(query)]
        clause = {
            name: query[start + 1 : end]
            for name, start, end in zip(found, starts, ends, strict=True)
        }
        for name in {"GROUP", "ORDER"} & clause.keys():
            if len(clause[name]) < 2 or not clause[name][0].is_keyword("BY"):
                raise Unmatched(f"{name} has no BY with terms")
        tables, scope = self._tables(clause["FROM"], depth, outer)
        select = [self._term(t, scope) for t in _split(clause["SELECT"], depth)]
        where, joined = self._conditions(clause.get("WHERE", []), depth, scope)
        having = self._conditions(clause.get("HAVING", []), depth, scope)
        group = [self._term(t, scope) for t in _split(clause.get("GROUP", [])[1:], depth)]
        order = [self._order(t, scope) for t in _split(clause.get("ORDER", [])[1:], depth)]
        return (
            tuple(sorted(select, key=repr)),
            tables,
            (tuple(sorted(where, key=repr)), frozenset(joined)),
            (tuple(group), tuple(having[0]), tuple(having[1])),
            tuple(order),
            "LIMIT" in clause,
        )

    def _tables(
        self, clause: Sequence[Word], depth: int, outer: Mapping[str, str]
    ) -> tuple[_Form, dict[str, str]]:
        """The tables of FROM, sorted, and what each alias and table name stands for."""
        units: list[object] = []
        scope = dict(outer)
        inner: list[str] = []
        for part in _split(clause, depth, _JOIN):
            ends = (
                i for i, w in enumerate(part) if w.depth == depth and w.is_keyword("ON", "USING")
            )
            part = part[: next(ends, len(part))]
            if not part:
                continue
            if part[0].text == "(":
                close = _closing(part, 0)
                units.append(self.form(part[1:close], scope))
                name, rest = "", part[close + 1 :]
            else:
                name, rest = (part[0].name or "").casefold(), part[1:]
                units.append(name)
                scope[name] = name
                inner.append(name)
            if rest and rest[0].is_keyword("AS"):
                rest = rest[1:]
            if rest:
                scope[(rest[0].name or "").casefold()] = name
        if not units:
            raise Unmatched("FROM names no table")
        scope[""] = " ".join(inner)
        return tuple(sorted(units, key=repr)), scope

    def _conditions(
        self, clause: Sequence[Word], depth: int, scope: Mapping[str, str]
    ) -> tuple[list[_Form], list[str]]:
        """The conditions of a clause, and the words that join them."""
        conditions: list[list[Word]] = [[]] if clause else []
        joined: list[str] = []
        between = False
        for word in clause:
            if word.depth == depth and word.is_keyword("AND", "OR") and not between:
                joined.append(word.text.upper())
                conditions.append([])
                continue
            between = word.is_keyword("BETWEEN") or (between and not word.is_keyword("AND"))
            conditions[-1].append(word)
        return [self._term(each, scope) for each in conditions], joined

    def _order(self, term: Sequence[Word], scope: Mapping[str, str]) -> _Form:
        descending = term[-1].is_keyword("DESC")
        if term[-1].is_keyword("ASC", "DESC"):
            term = term[:-1]
        return (self._term(term, scope), descending)

    def _term(self, term: Sequence[Word], scope: Mapping[str, str]) -> _Form:
        """The words of a term, with columns by table and values without their value."""
        form: list[object] = []
        place = 0
        while place < len(term):
            word = term[place]
            after = term[place + 1] if place + 1 < len(term) else None
            if word.text == "(" and after is not None and after.is_keyword("SELECT"):
                close = _closing(term, place)
                form.append(self.form(term[place + 1 : close], scope))
                place = close
            elif word.is_keyword("AS"):
                break
            elif word.kind in ("string", "number"):
                form.append("value")
            elif word.name is not None and after is not None and after.text == ".":
                if place + 2 == len(term):
                    raise Unmatched("a name ends with a dot")
                column = (term[place + 2].name or term[place + 2].text).casefold()
                table = scope.get(word.name.casefold(), word.name.casefold())
                form.append(column if column == "*" else self._column(table, column))
                place += 2
            elif word.name is not None and not word.is_keyword("DISTINCT"):
                form.append(self._name(word, after, scope))
            elif word.text == ">" and form[-1:] == ["<"]:  # <> is !=
                form[-1:] = ["!", "="]
            elif not word.is_keyword("DISTINCT"):
                form.append(word.text)
            place += 1
        if not form:
            raise Unmatched("a term is empty")
        return tuple(form)

    def _name(self, word: Word, after: Word | None, scope: Mapping[str, str]) -> str:
        name = (word.name or "").casefold()
        tables = scope[""].split(" ")
        holders = [table for table in tables if name in self._columns.get(table, ())]
        if holders:
            return self._column(holders[0], name)
        if word.kind == "quoted" and word.text[0] == '"':
            return "value"
        known = bool(self._columns)
        function = after is not None and after.text == "("
        if known or function or len(tables) != 1 or word.is_keyword(*_OPERATORS):
            return name
        return self._column(tables[0], name)

    def _column(self, table: str, name: str) -> str:
        """A column, or the one that it refers to as a foreign key, however indirectly."""
        column, seen = f"{table}.{name}", set[str]()
        while column in self._refers and column not in seen:
            seen.add(column)
            column = self._refers[column]
        return column


_OPERATORS = ("NOT", "IN", "LIKE", "IS", "NULL", "BETWEEN", "AND", "OR", "EXISTS", "COLLATE")


def _split(clause: Sequence[Word], depth: int, keywords: Sequence[str] = ()) -> list[list[Word]]:
    """The parts between commas, or keywords, that stand in no parentheses."""
    parts: list[list[Word]] = [[]]
    for word in clause:
        if word.depth == depth and (word.text == "," or word.is_keyword(*keywords)):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]


def _closing(term: Sequence[Word], place: int) -> int:
    for i in range(place + 1, len(term)):
        if term[i].text == ")" and term[i].depth == term[place].depth:
            return i
    raise Unmatched("a parenthesis is not closed")

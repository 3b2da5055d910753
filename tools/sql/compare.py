"""When two results are equal: four rules, as pure functions of results.

What all four have in common:

- NULL equals NULL and nothing else; NaN equals NaN and nothing else.
- An integer equals another only if it is the same. Where one of two numbers is a float they are
  equal if they differ by at most `tolerance` times the larger one, or by a thousandth of it
  (near zero); so 2 equals 2.0.
- Text equals only the same text (case counts, and '2' is not 2); a blob only the same blob.
- The names of columns do not count.
- A result that is cut is never equal to anything, not even to itself: the rest is unknown.

| rule | order of rows | duplicate rows | order of columns |
|---|---|---|---|
| `ordered` | counts | count | counts |
| `multiset` | - | count | counts |
| `bird` | - | - | counts |
| `spider` | counts if told so | count | - |

`bird` is the rule of the BIRD benchmark's evaluation (sets of rows), `spider` that of Spider's
test suites (one permutation of the columns for all rows).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .database import Cut, Rows, Value
from .lexer import Word, order_by

__all__ = ["RULES", "TOLERANCE", "Comparison", "Rule"]
__all__ += ["bird", "equal_results", "multiset", "ordered", "spider"]

TOLERANCE = 1e-9
"""Relative: the noise of a sum of a million floats in another order is a thousandth of it."""
_WORK = 20_000_000
"""Values that `spider` looks at, over all permutations, before it gives up: some seconds."""

Row: TypeAlias = tuple[object, ...]
Rule: TypeAlias = Literal["ordered", "multiset", "bird", "spider"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome of comparing two results: equal or not, and why not.

    `comparable` is False if this can't be known because a result is cut. `both_empty` says that
    neither has a row: equal, but so would be every query that finds nothing.
    """

    equal: bool
    why: str = ""
    comparable: bool = True
    both_empty: bool = False

    def __bool__(self) -> bool:
        return self.equal


def ordered(
    a: Rows, b: Rows, *, keys: Sequence[int] | None = None, tolerance: float = TOLERANCE
) -> Comparison:
    """The same rows in the same order.

    `keys` are the columns of `b` by which it was ordered: rows that tie on all of them may come
    in any order among themselves. Without keys every row has its place.
    """
    return _compare(a, b, tolerance, _by_rows, _places(b, keys))


def multiset(a: Rows, b: Rows, *, tolerance: float = TOLERANCE) -> Comparison:
    """The same rows, each as often, in any order."""
    return _compare(a, b, tolerance, _by_rows)


def bird(a: Rows, b: Rows, *, tolerance: float = TOLERANCE) -> Comparison:
    """The same set of rows: neither their order nor how often each comes counts."""
    return _compare(a, b, tolerance, _by_set)


def spider(
    a: Rows,
    b: Rows,
    *,
    in_order: bool = False,
    keys: Sequence[int] | None = None,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """The same rows, each as often, for some order of the columns; `in_order`, in their order."""
    return _compare(a, b, tolerance, _by_columns, _places(b, keys) if in_order else None)


RULES: dict[Rule, Callable[[Rows, Rows], Comparison]] = {
    "ordered": ordered,
    "multiset": multiset,
    "bird": bird,
    "spider": spider,
}


def equal_results(
    gold_query: str,
    predicted: Rows,
    gold: Rows,
    rule: Rule = "ordered",
    *,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compare a predicted query's result with the gold query's, under a rule.

    For `ordered` and `spider` the order of rows counts only where the gold query has an ORDER BY
    of its own (one in a subquery or a window does not count), and rows that tie may change places
    where the terms of the ORDER BY are columns of the result. Which of tied rows a LIMIT leaves
    out can't be known: there it is the gold query's choice that counts.

    Example:
        >>> a, b = Rows.of(["n"], [[1], [2]]), Rows.of(["n"], [[2], [1]])
        >>> bool(equal_results("select n from t", a, b))
        True
        >>> equal_results("select n from t order by n desc", a, b).why
        'the rows differ'
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
    if rule == "bird":
        return bird(predicted, gold, tolerance=tolerance)
    terms = order_by(gold_query) if rule in ("ordered", "spider") else None
    keys = None if terms is None else _keys(terms, gold.columns)
    if rule == "spider":
        in_order = terms is not None
        return spider(predicted, gold, in_order=in_order, keys=keys, tolerance=tolerance)
    if terms is None:
        return multiset(predicted, gold, tolerance=tolerance)
    return ordered(predicted, gold, keys=keys, tolerance=tolerance)


def _keys(terms: Sequence[Sequence[Word]], columns: Sequence[str]) -> list[int] | None:
    """The result's columns that an ORDER BY names, by number or by name; None if any is not one."""
    names = [name.casefold() for name in columns]
    keys = []
    for term in terms:
        words = list(term)
        while len(words) > 1 and words[-1].is_keyword("ASC", "DESC", "NULLS", "FIRST", "LAST"):
            words.pop()
        if len(words) != 1:
            return None
        name = (words[0].name or "").casefold()
        if words[0].kind == "number" and words[0].text.isdecimal():
            place = int(words[0].text) - 1
            if not 0 <= place < len(names):
                return None
            keys.append(place)
        elif names.count(name) == 1:
            keys.append(names.index(name))
        else:
            return None
    return keys


# -- how they are compared ----------------------------------------------------------------------

Same: TypeAlias = Callable[[list[Row], list[Row]], "bool | None"]
Places: TypeAlias = Callable[[list[Row]], list[int]]


def _compare(
    a: Rows, b: Rows, tolerance: float, same: Same, places: Places | None = None
) -> Comparison:
    if not a.whole or not b.whole:
        both = not (a.whole or b.whole)
        which = "both are" if both else f"the {'second' if a.whole else 'first'} one is"
        return Comparison(False, f"{which} cut", comparable=False)
    sets = same is _by_set
    both_empty = not a.rows and not b.rows
    # BIRD compares sets of rows: without rows it sees no columns.
    if a.width != b.width and not (sets and both_empty):
        why = f"{a.width} column{'s' if a.width != 1 else ''}, not {b.width}"
        return Comparison(False, why, both_empty=both_empty)
    if len(a.rows) != len(b.rows) and not sets:
        return Comparison(False, f"{len(a.rows)} rows, not {len(b.rows)}")
    first, second = _classed(a, b, tolerance)
    if places is not None:
        # Order as a column: each row is in its counterpart's place, or run of ties.
        place = places(second)
        first = [(p, *row) for p, row in zip(place, first, strict=True)]
        second = [(p, *row) for p, row in zip(place, second, strict=True)]
    equal = same(first, second)
    if equal is None:
        return Comparison(False, "too many columns look alike to be told apart", comparable=False)
    return Comparison(equal, "" if equal else "the rows differ", both_empty=both_empty)


def _places(b: Rows, keys: Sequence[int] | None) -> Places:
    """The place of each row: its number, or that of the run of rows that tie with it on `keys`."""
    if keys is None:
        return lambda rows: list(range(len(rows)))
    if any(not 0 <= key < b.width for key in keys):
        raise ValueError(f"keys must be columns from 0 to {b.width - 1}, got {list(keys)!r}")

    def runs(rows: list[Row]) -> list[int]:
        found: list[int] = []
        for i, row in enumerate(rows):
            ties = i > 0 and all(row[key] == rows[i - 1][key] for key in keys)
            found.append(found[-1] if ties else i)
        return found

    return runs


def _by_rows(a: list[Row], b: list[Row]) -> bool:
    return Counter(a) == Counter(b)


def _by_set(a: list[Row], b: list[Row]) -> bool:
    return set(a) == set(b)


def _by_columns(a: list[Row], b: list[Row]) -> bool | None:
    """True if some permutation of a's columns gives b's rows, or None if it takes too long.

    A row's place, if it has one, is a column like the others: it can only match itself, or a
    column that is equal to it.
    """
    if not a:
        return True
    ours, theirs = list(zip(*a, strict=True)), list(zip(*b, strict=True))
    if Counter(map(_counted, ours)) != Counter(map(_counted, theirs)):
        return False
    return _Permutation(ours, theirs).search([0] * len(a), [0] * len(b), frozenset())


class _Permutation:
    """Fixes the columns one after the other; those that are fixed must give the same rows so far.

    The rows so far are carried along as a number for each.
    """

    def __init__(self, ours: Sequence[Row], theirs: Sequence[Row]) -> None:
        self._ours = ours
        self._theirs = theirs
        self._left = _WORK

    def search(self, a: list[int], b: list[int], used: frozenset[int]) -> bool | None:
        if len(used) == len(self._theirs):
            return True
        target = list(zip(b, self._theirs[len(used)], strict=True))
        wanted = Counter(target)
        numbers = {pair: i for i, pair in enumerate(wanted)}
        seen: set[Row] = set()
        for i, column in enumerate(self._ours):
            if i in used or column in seen:  # of columns that are the same, one is enough
                continue
            seen.add(column)
            self._left -= len(a)
            if self._left < 0:
                return None
            pairs = list(zip(a, column, strict=True))
            if Counter(pairs) == wanted:
                next_a, next_b = [numbers[p] for p in pairs], [numbers[p] for p in target]
                if (found := self.search(next_a, next_b, used | {i})) is not False:
                    return found
        return False


def _counted(column: Row) -> frozenset[tuple[object, int]]:
    return frozenset(Counter(column).items())


# -- when two values are equal -------------------------------------------------------------------


def _classed(a: Rows, b: Rows, tolerance: float) -> tuple[list[Row], list[Row]]:
    """Both results with each value replaced by the class of the values that it equals."""
    numbers = {
        (type(value) is int, value)
        for rows in (a.rows, b.rows)
        for row in rows
        for value in row
        if isinstance(value, int | float) and value == value
    }
    classes = _classes(numbers, tolerance)

    def of(value: Value) -> object:
        if isinstance(value, int | float):
            if value != value:
                return "NaN"
            return classes[(type(value) is int, value)]
        if isinstance(value, Cut):
            raise AssertionError("a result that is cut is not compared")
        return value if value is None else (type(value).__name__, value)

    return (
        [tuple([of(value) for value in row]) for row in a.rows],
        [tuple([of(value) for value in row]) for row in b.rows],
    )


def _classes(numbers: set[tuple[bool, float]], tolerance: float) -> dict[tuple[bool, float], int]:
    """A class for each number: neighbours closer than the tolerance share it.

    That makes equality transitive, so rows can be counted and sorted out instead of matched
    pairwise. Two different integers never share a class.
    """
    classes: dict[tuple[bool, float], int] = {}
    number, before, whole = 0, -math.inf, None
    for is_int, value in sorted(numbers, key=lambda n: (n[1], not n[0])):
        apart = value != before and not (math.isfinite(value) and _near(before, value, tolerance))
        if apart or (is_int and whole is not None and whole != value):
            number, whole = number + 1, None
        if is_int:
            whole = value
        classes[(is_int, value)] = number
        before = value
    return classes


def _near(a: float, b: float, tolerance: float) -> bool:
    if not math.isfinite(a):
        return False
    return abs(b - a) <= tolerance * max(abs(a), abs(b), 1e-3)

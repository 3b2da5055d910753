"""When two results are equal: the rules as examples, and what holds for all results."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interlace.tools.sql import (
    Comparison,
    Cut,
    Rows,
    Rule,
    Value,
    bird,
    compare,
    equal_results,
    multiset,
    ordered,
    spider,
)

COMPARISONS: dict[str, Callable[[Rows, Rows], Comparison]] = {
    "ordered": ordered,
    "multiset": multiset,
    "bird": bird,
    "spider": spider,
    "spider_in_order": lambda a, b: spider(a, b, in_order=True),
}


def rows(*lines: Sequence[Value]) -> Rows:
    return Rows.of([f"c{i}" for i in range(len(lines[0]))], lines)


def verdicts(a: Rows, b: Rows) -> str:
    """The rules that call the two equal."""
    return " ".join(name for name, rule in COMPARISONS.items() if rule(a, b))


ALL = "ordered multiset bird spider spider_in_order"


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (rows((1, "a"), (2, "b")), rows((1, "a"), (2, "b")), ALL),
        (rows((2, "b"), (1, "a")), rows((1, "a"), (2, "b")), "multiset bird spider"),
        (rows((1, "a"), (1, "a")), rows((1, "a")), "bird"),
        (rows(("a", 1), ("b", 2)), rows((1, "a"), (2, "b")), "spider spider_in_order"),
        (rows(("b", 2), ("a", 1)), rows((1, "a"), (2, "b")), "spider"),
        (rows((1, 2), (2, 1)), rows((1, 1), (2, 2)), ""),
        (rows((1, 2, 3)), rows((1, 2)), ""),
        # 2 is 2.0, but not '2'; NULL is no text and no zero
        (rows((2, 3)), rows((2.0, 3.0)), ALL),
        (rows(("2",)), rows((2,)), ""),
        (rows((None,)), rows((None,)), ALL),
        (rows((None,)), rows((0,)), ""),
        (rows((None,)), rows(("NULL",)), ""),
        (rows(("",)), rows((None,)), ""),
        (rows(("a",)), rows(("A",)), ""),
        (rows(("a",)), rows((b"a",)), ""),
        (rows((math.nan,)), rows((math.nan,)), ALL),
        (rows((math.nan,)), rows((None,)), ""),
        (rows((math.inf,)), rows((math.inf,)), ALL),
        (rows((math.inf,)), rows((-math.inf,)), ""),
        (rows((math.inf,)), rows((1.7e308,)), ""),
        (rows((0.0,)), rows((-0.0,)), ALL),
        # floats: the noise of another order of summation, but no more
        (rows((0.1 + 0.2,)), rows((0.3,)), ALL),
        (rows((0.1 + 0.2 - 0.3,)), rows((0,)), ALL),
        (rows((1e-7,)), rows((0,)), ""),
        (rows((1.0000001,)), rows((1.0,)), ""),
        # the noise must not decide which rows are paired
        (rows((0.3, 1), (0.1 + 0.2, 2)), rows((0.1 + 0.2, 1), (0.3, 2)), ALL),
        (rows((0.3,), (0.1 + 0.2,)), rows((0.3,), (0.3,)), ALL),
        # integers are exact, however large, whatever floats lie between them
        (rows((10**15,)), rows((10**15 + 1,)), ""),
        (rows((2**62, 2**62 + 1.5)), rows((2**62 + 1, 2**62 + 1.5)), ""),
        # rows of mixed and unhashable-looking values
        (rows((1, None, b"x", "y", 0.5)), rows((1, None, b"x", "y", 0.5)), ALL),
    ],
)
def test_the_rules(a: Rows, b: Rows, equal: str) -> None:
    assert verdicts(a, b) == equal
    if "spider_in_order" not in equal or "ordered" in equal:
        assert verdicts(b, a) == equal


def test_a_result_that_is_cut_is_equal_to_nothing() -> None:
    whole = rows((1,), (2,))
    for cut in (
        Rows(("c0",), ((1,),), 1, 2),  # a row is missing
        Rows(("c0",), ((1,), (2,)), 1, 2, ended=False),  # there may be more
        Rows(("c0",), ((1,), (2,)), 2, 2),  # a column is missing
        rows((1,), (Cut("2", 2000),)),
    ):
        for rule in COMPARISONS.values():
            for a, b in ((cut, whole), (whole, cut), (cut, cut)):
                result = rule(a, b)
                assert not result and not result.comparable and result.why.endswith("cut")


def test_two_empties_are_equal_and_flagged() -> None:
    one, two = Rows.of(["a"], []), Rows.of(["a", "b"], [])
    assert verdicts(one, one) == ALL
    assert all(rule(one, one).both_empty for rule in COMPARISONS.values())
    assert verdicts(one, two) == "bird"  # which sees sets of rows, and no columns
    assert verdicts(one, rows((1,))) == ""
    assert not multiset(one, rows((1,))).both_empty


@pytest.mark.parametrize(
    ("gold", "ordered_by_it"),
    [
        ("select a from t order by a", True),
        ("SELECT a FROM t ORDER\n /* by */ BY a DESC LIMIT 3;", True),
        ("with x as (select 1) select a from t order by a", True),
        ("select a from t union select b from u order by 1", True),
        ("(select a from t order by a)", True),
        ("select a from t", False),
        ("select a from (select a from t order by a)", False),
        ("with x as (select a from t order by a) select a from x", False),
        ("select row_number() over (order by a) from t", False),
        ("select group_concat(a order by a) from t", False),
        ("select a from t where b = 'order by a'", False),
        ("select a from t -- order by a", False),
        ('select "order by" from t', False),
        ("select [order by a], `order`, by from t", False),
        ("(select a from t order by a) union (select a from t order by a)", False),
    ],
)
def test_order_counts_only_where_the_gold_query_orders(gold: str, ordered_by_it: bool) -> None:
    a, b = Rows.of(["a"], [[1], [2]]), Rows.of(["a"], [[2], [1]])
    rules: tuple[Rule, ...] = ("ordered", "spider")
    for rule in rules:
        assert bool(equal_results(gold, a, b, rule)) is not ordered_by_it
        assert equal_results(gold, b, b, rule)
    assert equal_results(gold, a, b, "multiset") and equal_results(gold, a, b, "bird")


@pytest.mark.parametrize(
    ("terms", "may_swap"),
    [
        ("people", True),
        ("people desc nulls last", True),
        ("2", True),
        ("city.people", False),  # not a plain name: taken strictly
        ("people + 0", False),
        ("people, name", False),
        ("area", False),  # not in the result: nobody can see which rows tie
        ("9", False),
    ],
)
def test_rows_that_tie_may_change_places(terms: str, may_swap: bool) -> None:
    gold = Rows.of(["name", "people"], [["a", 1], ["b", 2], ["c", 2], ["d", 3]])
    tied = Rows.of(["name", "people"], [["a", 1], ["c", 2], ["b", 2], ["d", 3]])
    moved = Rows.of(["name", "people"], [["b", 2], ["a", 1], ["c", 2], ["d", 3]])
    query = f"select name, people from city order by {terms}"
    rules: tuple[Rule, ...] = ("ordered", "spider")
    for rule in rules:
        assert bool(equal_results(query, tied, gold, rule)) is may_swap
        assert not equal_results(query, moved, gold, rule)


def test_many_columns_that_look_alike_are_told_apart() -> None:
    rng = random.Random(0)
    lines = [[rng.randint(0, 1) for _ in range(40)] for _ in range(50)]
    order = list(range(40))
    rng.shuffle(order)
    turned = [[line[i] for i in order] for line in lines]
    assert spider(rows(*turned), rows(*lines))
    turned[0][0] = 1 - turned[0][0]
    assert not spider(rows(*turned), rows(*lines))
    # the rows of each are the twelve rotations of 0..11
    a = rows(*[[(i + j) % 12 for j in range(12)] for i in range(12)])
    b = rows(*[[(5 * i + 7 * j) % 12 for j in range(12)] for i in range(12)])
    assert spider(a, b)


def test_a_comparison_that_would_take_too_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_WORK", 3)
    result = spider(rows((1, 2), (2, 1)), rows((1, 2), (2, 1)))
    assert not result and not result.comparable and "told apart" in result.why


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="bird"):
        equal_results("select 1", rows((1,)), rows((1,)), "fuzzy")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keys"):
        ordered(rows((1,)), rows((1,)), keys=[1])


# -- what holds for all results -------------------------------------------------------------------

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(),
    st.sampled_from([0.1 + 0.2, 0.3, 1.0, -0.0]),
    st.text(max_size=3),
    st.binary(max_size=2),
)


@st.composite
def results(draw: st.DrawFn, least: int = 0) -> Rows:
    width = draw(st.integers(1, 4))
    lines = st.lists(st.lists(VALUES, min_size=width, max_size=width), min_size=least, max_size=6)
    return Rows.of([f"c{i}" for i in range(width)], draw(lines))


def shuffled(result: Rows, seed: int) -> Rows:
    lines = list(result.rows)
    random.Random(seed).shuffle(lines)
    return Rows.of(result.columns, lines)


def permuted(result: Rows, seed: int) -> Rows:
    order = list(range(result.width))
    random.Random(seed).shuffle(order)
    return Rows.of([result.columns[i] for i in order], [[r[i] for i in order] for r in result.rows])


@relaxed
@given(results())
def test_every_whole_result_equals_itself(a: Rows) -> None:
    assert verdicts(a, a) == ALL


@relaxed
@given(results(), results(), st.integers(0, 99))
def test_equality_is_symmetric(a: Rows, b: Rows, seed: int) -> None:
    for one, other in ((a, b), (a, permuted(a, seed)), (a, shuffled(a, seed))):
        assert verdicts(one, other) == verdicts(other, one)


@relaxed
@given(results(), results(), results())
def test_equality_is_transitive_where_no_noise_is_involved(a: Rows, b: Rows, c: Rows) -> None:
    for rule in COMPARISONS.values():
        if rule(a, b) and rule(b, c):
            assert rule(a, c)


@relaxed
@given(results(), st.integers(0, 99))
def test_the_order_of_rows_counts_only_where_it_is_promised(a: Rows, seed: int) -> None:
    b = shuffled(a, seed)
    assert multiset(a, b) and bird(a, b) and spider(a, b) and spider(a, permuted(b, seed))
    query = "select * from t"
    assert equal_results(query, b, a, "ordered") and equal_results(query, b, a, "spider")


@relaxed
@given(results(), st.integers(0, 99))
def test_duplicates_count_except_for_bird(a: Rows, seed: int) -> None:
    if a.rows:
        extra = random.Random(seed).choice(a.rows)
        assert verdicts(Rows.of(a.columns, [*a.rows, extra]), a) == "bird"


@relaxed
@given(results(least=1), st.integers(0, 99))
def test_one_other_value_makes_them_unequal(a: Rows, seed: int) -> None:
    rng = random.Random(seed)
    lines = [list(row) for row in a.rows]
    lines[rng.randrange(len(lines))][rng.randrange(a.width)] = "a value found nowhere else"
    b = Rows.of(a.columns, lines)
    assert verdicts(a, b) == "" == verdicts(b, a)


@relaxed
@given(results(), results())
def test_what_is_equal_under_a_stricter_rule_is_equal_under_a_weaker_one(a: Rows, b: Rows) -> None:
    if ordered(a, b):
        assert multiset(a, b) and spider(a, b, in_order=True)
    if multiset(a, b):
        assert bird(a, b) and spider(a, b)


SMALL: st.SearchStrategy[Value] = st.sampled_from([None, 0, 1, "0", "a", b"a"])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Rows, Rows]:
    """Two results with few values, so that they are often equal under some rule."""
    width = draw(st.integers(1, 3))
    line = st.lists(SMALL, min_size=width, max_size=width)
    a = draw(st.lists(line, min_size=1, max_size=4))
    b = draw(st.one_of(st.permutations(a), st.lists(line, min_size=1, max_size=4)))
    order = draw(st.permutations(range(width)))
    names = [f"c{i}" for i in range(width)]
    return Rows.of(names, a), Rows.of(names, [[each[i] for i in order] for each in b])


@relaxed
@given(pairs())
def test_the_rules_are_what_the_benchmarks_compute(pair: tuple[Rows, Rows]) -> None:
    """Against the rules written down naively: lists, multisets, sets, some order of columns."""
    a, b = (list(each.rows) for each in pair)
    turned = [
        [tuple(row[i] for i in order) for row in a]
        for order in itertools.permutations(range(pair[0].width))
    ]
    naive = {
        "ordered": a == b,
        "multiset": Counter(a) == Counter(b),
        "bird": set(a) == set(b),
        "spider": any(Counter(each) == Counter(b) for each in turned),
        "spider_in_order": any(each == b for each in turned),
    }
    assert verdicts(*pair) == " ".join(name for name, equal in naive.items() if equal)

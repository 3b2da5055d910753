"""What holds for every table that a model is shown, whatever stands in it."""

import re
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.tools.sql import Rows, Value, render
from interlace.tools.sql.render import show

relaxed = settings(deadline=None, max_examples=200)

NASTY = ["NULL", "'", "1", "1.0", "x'00'", "\n", "\r", "\u2028", "|", "\\", "\\n", " ", "\x1b"]
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(NASTY),
    st.tuples(st.sampled_from(NASTY), st.sampled_from(NASTY)).map("".join),
)
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    TEXTS,
    st.binary(max_size=16),
)


def words(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    names = draw(st.lists(TEXTS, min_size=1, max_size=4))
    line = st.lists(VALUES, min_size=len(names), max_size=len(names))
    return Rows.of(names, draw(st.lists(line, max_size=12)))


@relaxed
@given(tables(), st.integers(1, 300), st.sampled_from([len, words]))
def test_a_table_keeps_to_its_budget_and_says_what_it_leaves_out(
    rows: Rows, budget: int, count: Callable[[str], int]
) -> None:
    text, shown = render(rows, budget=budget, count=count)
    assert count(text) <= budget or shown <= 1
    *lines, summary = text.splitlines()  # no value breaks a line, with whatever sign
    assert len(lines) == 1 + shown
    assert lines == render(rows)[0].splitlines()[: 1 + shown]
    if shown < rows.total:
        assert summary == f"(the first {shown} of {rows.total} rows)"
    else:
        assert re.fullmatch(r"\((no|\d+) rows?\)", summary)


@relaxed
@given(VALUES, VALUES)
def test_two_values_that_look_alike_are_the_same(a: Value, b: Value) -> None:
    same = type(a) is type(b) and repr(a) == repr(b)
    assert (show(a) == show(b)) is same


@relaxed
@given(tables())
def test_columns_stay_apart(rows: Rows) -> None:
    """A bar inside a value is not a bar between two."""
    for line in render(rows)[0].splitlines()[1:-1]:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == rows.width - 1

r"""Answers of every kind, and what math-verify alone makes of the same pairs."""

import importlib.util
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.answer_kinds import bare, pairs
from support.answer_pairs import PAIRS

from interlace.rollout.task import Task, equal_answers
from interlace.train.rewards import Checker, MathVerify, Unscored

if importlib.util.find_spec("math_verify") is None:
    pytest.skip("needs interlace[train]", allow_module_level=True)


@pytest.fixture(scope="module")
def math() -> Iterator[MathVerify]:
    with MathVerify() as math:
        yield math


@pytest.mark.parametrize("kind", PAIRS)
def test_spellings_of_one_value_are_equal_and_close_ones_are_not(
    math: MathVerify, kind: str
) -> None:
    refused, accepted = [], []
    for gold, same, others in PAIRS[kind]:
        refused += [(gold, answer) for answer in [gold, *same] if not math.equal(gold, answer)]
        accepted += [(gold, answer) for answer in others if math.equal(gold, answer)]
    assert (refused, accepted) == ([], [])


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("2250", "2,250", True),
        ("2250", "22,50", False),
        ("2250", "2,2,5,0", False),
        ("60", "6,0", False),
        ("1,5,7", "157", False),
        ("1,5,7", "15,7", False),
        ("0,9", "9", False),
        ("-4", "−4", True),  # noqa: RUF001
        ("7e300", "7E300", True),
        ("Ask", "ask", True),
        ("$", "%", False),
    ],
)
def test_exact_takes_a_comma_for_a_thousands_mark_only_where_it_is_one(
    gold: str, answer: str, equal: bool
) -> None:
    assert equal_answers(gold, answer) is equal
    with Checker() as checker:
        assert checker.right(Task("a", "?", gold), answer) is equal


# -- structured kinds ----------------------------------------------------------------------------

ENTRIES = st.lists(st.integers(-30, 30), min_size=2, max_size=4)
SHAPES: dict[str, Callable[[list[int]], str]] = {
    "point": lambda v: f"({', '.join(map(str, v))})",
    "column": lambda v: "\\begin{pmatrix}" + "\\\\".join(map(str, v)) + "\\end{pmatrix}",
    "row": lambda v: "\\begin{bmatrix} " + " & ".join(map(str, v)) + " \\end{bmatrix}",
}


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(sorted(SHAPES)), ENTRIES, ENTRIES)
def test_a_vector_is_its_entries_in_their_order(
    math: MathVerify, shape: str, one: list[int], other: list[int]
) -> None:
    write = SHAPES[shape]
    assert math.equal(write(one), write(one).replace(" ", ""))
    for near in (other, one[::-1], [one[0] + 1, *one[1:-1], one[-1] - 1], [*one, 0]):
        assert math.equal(write(one), write(near)) is (one == near)


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(-30, 30), min_size=1, max_size=5), st.integers(-30, 30), st.randoms())
def test_a_set_is_its_members_in_any_order(
    math: MathVerify, members: set[int], more: int, chance: random.Random
) -> None:
    shuffled = sorted(members)
    chance.shuffle(shuffled)
    gold = "\\{" + ", ".join(map(str, members)) + "\\}"
    assert math.equal(gold, "\\{" + ",".join(map(str, shuffled)) + "\\}")
    other = members ^ {more}
    assert not math.equal(gold, "\\{" + ",".join(map(str, other)) + "\\}")


@settings(deadline=None, max_examples=60)
@given(st.integers(-30, 30), st.integers(1, 30), st.booleans(), st.booleans())
def test_an_interval_is_its_ends_and_which_of_them_belong_to_it(
    math: MathVerify, low: int, width: int, left: bool, right: bool
) -> None:
    def interval(low: int, high: int, left: bool, right: bool) -> str:
        return f"{'[' if left else '('}{low}, {high}{']' if right else ')'}"

    def relation(low: int, high: int, left: bool, right: bool) -> str:
        signs = ["\\le" if closed else "<" for closed in (left, right)]
        return f"{low} {signs[0]} x {signs[1]} {high}"

    high = low + width
    gold = interval(low, high, left, right)
    assert math.equal(gold, relation(low, high, left, right))
    others = (
        (low, high, not left, right),
        (low, high, left, not right),
        (low - 1, high, left, right),
    )
    for ends in others:
        assert not math.equal(gold, interval(*ends)) and not math.equal(gold, relation(*ends))


@settings(deadline=None, max_examples=80)
@given(st.integers(10, 10**9))
def test_digits_that_commas_split_are_another_answer(math: MathVerify, number: int) -> None:
    digits = str(number)
    assert math.equal(digits, f"{number:,}") and equal_answers(digits, f"{number:,}")
    for at in range(1, len(digits)):
        split = f"{digits[:at]},{digits[at:]}"
        if len(digits) - at != 3 or at > 3:
            assert not math.equal(digits, split) and not equal_answers(digits, split)
        assert not math.equal(digits, split.replace(",", ", "))


def test_rewrites_are_equal_and_near_misses_are_not(math: MathVerify) -> None:
    wrong = [pair for pair in pairs(1, seed=4) if math.equal(*pair[1:3]) is not pair.equal]
    assert wrong == []


@pytest.mark.slow
def test_it_is_never_worse_than_math_verify_alone(math: MathVerify) -> None:
    made = pairs(3, seed=5)
    theirs = bare((pair.gold, pair.answer) for pair in made)
    errors = Counter(
        (pair.kind, pair.equal, who)
        for pair, other in zip(made, theirs, strict=True)
        for who, said in (("ours", math.equal(pair.gold, pair.answer)), ("bare", other))
        if said is not pair.equal
    )
    worse = [key for key in errors if key[2] == "ours" and errors[key] > errors[*key[:2], "bare"]]
    assert worse == []
    assert sum(errors[key] for key in errors if key[2] == "bare") > 100  # what it is here for


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hostile",
    ["3^{3^{3^{3^{3}}}}", r"\frac{(10^9)!}{1}", "((" * 500, "{" * 900, r"\sqrt{" * 200 + "}" * 200,
     "9" * 1_000_000, "1,2," * 400, r"\pm " * 300 + "1", r"\frac12" * 250],
)  # fmt: skip
def test_what_would_never_end_is_wrong_and_the_next_answer_is_checked(hostile: str) -> None:
    with MathVerify(seconds=2.0) as math:
        assert not math.equal(r"\sqrt{8}", hostile)
        assert math.equal(r"\sqrt{8}", r"2\sqrt{2}")


def test_a_process_that_cannot_be_started_leaves_the_answer_without_a_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: "object"
) -> None:
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/nothing-is-here")
    with MathVerify() as math, pytest.raises(Unscored, match="can be started"):
        math.equal(r"\sqrt{8}", r"2\sqrt{2}")

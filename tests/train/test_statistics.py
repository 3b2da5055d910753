"""Statistics against what can be counted by hand or enumerated."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.train.evaluation.intervals import (
    bootstrap,
    bounded_mean,
    free_mean,
    mcnemar,
    pass_at_k,
    sign_flip,
    wilson,
)


@settings(deadline=None)
@given(n=st.integers(1, 8), data=st.data())
def test_pass_at_k_is_the_share_of_all_choices_of_k_attempts_with_a_right_one(
    n: int, data: st.DataObject
) -> None:
    right = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    k = data.draw(st.integers(1, n))
    choices = list(combinations(right, k))
    assert pass_at_k(n, sum(right), k) == pytest.approx(sum(map(any, choices)) / len(choices))


@settings(deadline=None)
@given(only_a=st.integers(0, 7), only_b=st.integers(0, 7))
def test_mcnemar_counts_the_splits_that_are_at_least_as_uneven(only_a: int, only_b: int) -> None:
    splits = list(product((0, 1), repeat=only_a + only_b))
    uneven = abs(only_a - only_b)
    extreme = sum(abs(2 * sum(split) - len(split)) >= uneven for split in splits)
    assert mcnemar(only_a, only_b) == pytest.approx(extreme / len(splits))


def test_wilsons_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Agresti and Coull (1998), table 1: it covers 95 % on average, also where n is small."""
    rng = np.random.default_rng(0)
    covered = []
    for truth in (0.05, 0.3, 0.5, 0.9):
        for successes in rng.binomial(20, truth, 500):
            found = wilson(int(successes), 20)
            covered.append(found.low <= truth <= found.high)
    assert 0.93 < np.mean(covered) < 0.98
    assert wilson(0, 9).low == 0 and wilson(9, 9).high == 1


def test_a_bootstrap_narrows_with_the_tasks_and_is_repeatable() -> None:
    rng = np.random.default_rng(1)
    few, many = rng.random(25).tolist(), rng.random(400).tolist()
    a, b = bootstrap(few), bootstrap(many)
    assert a.low < a.value < a.high
    expected = 2 * 1.96 * np.std(many) / 20  # the normal approximation
    assert b.high - b.low == pytest.approx(expected, rel=0.1)
    assert b.high - b.low < (a.high - a.low) / 2
    assert bootstrap(many) == b
    with pytest.raises(ValueError):
        bootstrap([])


def test_sign_flips_of_three_equal_differences_are_extreme_in_two_cases_of_eight() -> None:
    assert sign_flip([0.1, 0.1, 0.1]) == pytest.approx(2 / 8, abs=0.02)
    assert sign_flip([0.1, -0.1]) == 1
    assert sign_flip([0.5] * 40) < 0.001


def test_equal_values_leave_as_much_doubt_as_the_tasks_do() -> None:
    for count in (2, 5, 200):
        found = bounded_mean([1.0] * count)
        assert found.low == pytest.approx(wilson(count, count).low) and found.high == 1
        half = bounded_mean([0.5] * count)
        assert half.low < 0.5 < half.high
        differences = bounded_mean([0.0] * count, lowest=-1)
        assert differences.high == -differences.low == pytest.approx(wilson(0, count).high)
    two = free_mean([1.0, 2.0])  # with one degree of freedom: 12.706 standard errors of 0.5
    assert [two.low, two.high] == pytest.approx([1.5 - 6.353, 1.5 + 6.353], abs=1e-3)
    five = free_mean([1.0, 2.0, 3.0, 4.0, 5.0])  # 2.776 of them
    assert five.high - 3 == pytest.approx(2.776 * math.sqrt(0.5), rel=0.01)
    assert free_mean([float(n) for n in range(12)]) == bootstrap([float(n) for n in range(12)])
    assert math.isnan(bounded_mean([1.0]).low) and math.isnan(free_mean([3.0, 3.0]).high)


def test_an_interval_of_task_means_holds_the_truth_for_few_tasks_too() -> None:
    """Four attempts at each task; a bootstrap over five such tasks covers 85 % only."""
    rng = np.random.default_rng(5)
    for tasks in (3, 5, 20):
        for a, b in ((2, 2), (0.3, 0.3), (9, 1)):
            held = []
            for _ in range(300):
                found = bounded_mean((rng.binomial(4, rng.beta(a, b, tasks)) / 4).tolist())
                held.append(found.low <= a / (a + b) <= found.high)
            assert np.mean(held) > 0.92, (tasks, a, b)


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.sampled_from([0.0, -1.0]))
def test_an_interval_is_never_without_width_nor_outside_its_range(
    right: list[int], lowest: float
) -> None:
    values = [lowest + (1 - lowest) * each / 4 for each in right]
    found = bounded_mean(values, lowest=lowest)
    assert lowest - 1e-12 <= found.low <= found.value <= found.high <= 1 + 1e-12
    # However many attempts there are, the tasks are as many.
    assert found.high - found.low > 0.3 * (1 - lowest) * wilson(0, len(values)).high
    assert bounded_mean(values[::-1], lowest=lowest) == found

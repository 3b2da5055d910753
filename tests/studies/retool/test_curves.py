"""What is read off runs: areas, paired differences, who passes whom; and the token budget."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies.retool.curves import areas, compare, curve, passes
from studies.retool.runs import Point, Run, TokenBudget
from studies.retool.tasks import Stories


def run(seed: int, accuracies: list[float], pace: float = 1.0) -> Run:
    """Ten steps between points, 100 tokens a step, `pace` seconds a step."""
    points = [
        Point(10 * i, 1000 * i, 10 * i * pace, accuracy, 0, 0, 0, 0)
        for i, accuracy in enumerate(accuracies)
    ]
    return Run("tools", seed, points)


def test_an_arm_passes_the_other_where_its_mean_reaches_the_others_last() -> None:
    quick = [run(0, [0.3, 0.6, 0.8]), run(1, [0.3, 0.4, 0.8])]
    slow = [run(0, [0.3, 0.4, 0.5], pace=2), run(1, [0.3, 0.4, 0.5], pace=2)]
    found = passes(quick, slow)
    assert found is not None and (found.step, found.tokens, found.seconds) == (10, 1000, 10)
    assert passes(slow, quick) is None


def test_over_seconds_runs_are_compared_up_to_the_end_of_the_shorter() -> None:
    quick, slow = [run(0, [0.2, 0.4, 0.6])], [run(0, [0.2, 0.4, 0.6], pace=2)]
    assert areas(quick, "step", 20) == pytest.approx(areas(slow, "step", 20))
    assert areas(quick, "seconds", 20)[0] == pytest.approx(0.4)
    assert areas(slow, "seconds", 20)[0] == pytest.approx(0.3)
    assert curve(quick + slow, "seconds").at[-1] == 20


def test_differences_are_paired() -> None:
    """Seeds that differ much, and an arm that is better by the same in each."""
    worse = [0.1, 0.3, 0.5, 0.7, 0.2, 0.6, 0.4, 0.8]
    found = compare([value + 0.05 for value in worse], worse)
    assert found.difference.low == pytest.approx(0.05)
    assert found.p < 0.02


@given(st.lists(st.floats(10, 60), min_size=12, max_size=12))
@settings(deadline=None, max_examples=20)
def test_every_arm_samples_the_same_number_of_tokens_however_long_it_speaks(
    lengths: list[float],
) -> None:
    """Whatever responses cost in each step, the sum is off by what one step was wrong about."""
    budget = TokenBudget(iter(Stories(0)), tokens=4000, group=8, each=30.0)
    for step, length in enumerate(lengths):
        used, expected = budget.used, 30.0 if not step else lengths[step - 1]
        tokens = len(budget.draw(16)) * 8 * length
        budget.note(tokens)
        left = (step + 1) * 4000 - used
        wanted = max(16 * expected, left)
        assert abs(tokens - wanted * length / expected) <= 8 * length

"""Stories: what they ask follows from their words, and both ways to work them out lead there."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from studies.retool.tasks import FURTHER, SHOWN, SPLITS, Stories, expression, working

SIGNS = {verb: sign for verbs in (SHOWN, FURTHER) for sign in "+-" for verb in verbs[sign]}


@given(st.integers(0, 99), st.sampled_from(SPLITS), st.integers(0, 10**6), st.booleans())
@settings(deadline=None)
def test_the_words_of_a_story_settle_its_answer(
    seed: int, split: str, index: int, shown: bool
) -> None:
    task = Stories(seed, split, shown=shown)[index]
    has, *changes, _ = re.split(r", |\. ", task.question)
    left = int(has.split()[2])
    for change in changes:
        verb, number = change.split()
        assert not shown or verb not in FURTHER["+"] + FURTHER["-"]
        left += int(SIGNS[verb] + number)
        assert left >= 2
    assert task.answer == str(left) == str(eval(expression(task)))
    steps = working(task).split(", ")
    assert all(eval(step.replace("=", "==")) for step in steps)
    assert steps[-1].endswith(f"={left}")


def test_no_story_of_one_split_has_the_numbers_of_another() -> None:
    seen = {
        split: {tuple(Stories(7, split)[index].data["numbers"]) for index in range(400)}
        for split in SPLITS
    }
    assert not seen["train"] & (seen["choose"] | seen["test"])
    assert not seen["choose"] & seen["test"]

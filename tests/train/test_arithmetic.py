"""The arithmetic problems: the same from the same seed, exact, and split for good."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlace.rollout.task import Task
from interlace.train.data.generators import Arithmetic, check
from interlace.train.data.generators.operations import OPERATIONS
from interlace.train.data.generators.stories import STORIES


def draw(count: int, **settings: object) -> list[Task]:
    return list(islice(Arithmetic(**settings), count))  # type: ignore[arg-type]


def solve(steps: list[str]) -> str:
    result: object = ""
    for step in steps:
        result = eval(step.format(r=result))
    return str(result)


seeds = st.integers(0, 10**6)
splits = st.sampled_from(["train", "test", "held_out"])


@given(seed=seeds, split=splits, index=st.integers(0, 10**5))
def test_the_answer_is_what_python_gives_for_the_steps(seed: int, split: str, index: int) -> None:
    task = Arithmetic(seed, split)[index]
    assert task.answer == solve(task.data["steps"])
    assert check(task, task.answer)
    assert not check(task, f"{task.answer}1")
    assert not check(task, None)


@given(seed=seeds, split=splits)
def test_a_seed_gives_the_same_tasks_in_any_order(seed: int, split: str) -> None:
    source = Arithmetic(seed, split)
    assert [source[2], source[0], source[1]] == [
        draw(3, seed=seed, split=split)[i] for i in (2, 0, 1)
    ]


@given(seed=seeds, level=st.integers(1, 7))
def test_what_is_asked_can_be_answered_from_the_question(seed: int, level: int) -> None:
    task = Arithmetic(seed, levels=(level,))[0]
    assert "{" not in task.question
    text = "".join(c if c.isdigit() else " " for c in task.question).split()
    assert {str(number) for number in task.data["numbers"].values()} <= set(text)


def test_numbers_of_test_problems_never_occur_in_training_whatever_the_seeds() -> None:
    def numbers(split: str, seed: int) -> set[tuple[int, ...]]:
        tasks = draw(3000, seed=seed, split=split, levels=(1, 2, 3))
        return {
            tuple(sorted(task.data["numbers"].values()))
            for task in tasks
            if task.data["kind"] != "small_sum"  # 45 in all: known by heart
        }

    assert not numbers("train", 1) & numbers("test", 2)


def test_held_out_templates_are_all_there_is_in_their_split_and_nowhere_else() -> None:
    held_out = {story.name for story in STORIES if story.held_out}
    assert {task.data["template"] for task in draw(500, seed=3, split="held_out")} == held_out
    trained = {task.data["template"] for task in draw(2000, seed=3)}
    assert trained == {story.name for story in STORIES} - held_out
    trained_operations = {story.operation for story in STORIES if not story.held_out}
    assert len(OPERATIONS.keys() - trained_operations) == 2  # known only to held-out stories


def test_both_kinds_come_in_the_share_that_was_asked_for() -> None:
    tasks = draw(2000, seed=5, without_tool=0.4)
    assert 0.35 < sum(not task.data["needs_tool"] for task in tasks) / 2000 < 0.45
    assert all(task.data["needs_tool"] for task in draw(50, seed=5, needs_tool=True))
    assert {task.data["level"] for task in tasks} >= {1, 2, 3, 4, 5}


def test_a_split_or_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        Arithmetic(0, "validation")
    with pytest.raises(ValueError, match="numbers of digits"):
        Arithmetic(0, levels=(0,))

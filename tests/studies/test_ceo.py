"""The CEO's little world has a known optimum, and a seed runs from end to end."""

import random
from pathlib import Path

import pytest
from studies.ceo.__main__ import EXPECTATION
from studies.ceo.environment import (
    ACTIONS,
    INVALID,
    Situation,
    best,
    read_action,
    situations,
    stream,
)
from studies.ceo.learn import Seed, Settings, fixed_at, learn
from studies.ceo.report import page
from studies.ceo.start import written


def test_nothing_beats_the_best_decision_and_no_one_decision_is_best_everywhere() -> None:
    every = situations("train") + situations("test")
    for situation in every:
        most = situation.reward(best(situation))
        assert all(situation.reward(action) <= most <= 1 for action in ACTIONS)
    assert len({best(situation) for situation in every}) >= 5
    mean = sum(s.reward(best(s)) for s in situations("test")) / len(situations("test"))
    assert all(fixed_at(action.spends) < mean - 0.03 for action in ACTIONS)


def test_splits_share_no_situation_and_streams_follow_from_their_seed() -> None:
    tests = {situation.question for situation in situations("test")}
    tasks, again = stream(3), stream(3)
    first = [next(tasks) for _ in range(50)]
    assert first == [next(again) for _ in range(50)]
    assert not tests & {task.question for task in first}
    assert [Situation.of(task).task for task in first] == first


def test_decisions_are_read_as_they_are_written_and_others_are_invalid() -> None:
    assert all(read_action(written(action)) == action for action in ACTIONS)
    situation = random.Random(0).choice(situations("train"))
    for words in ("", "stop", written(ACTIONS[0]).replace("256", "257")):
        assert situation.reward(read_action(words)) == INVALID


@pytest.mark.parametrize("steps", [1])
def test_a_seed_runs_to_its_page(tmp_path: Path, steps: int) -> None:
    settings = Settings(sft_steps=2, steps=steps, tasks=2, group=2)
    made = learn(7, tmp_path / "07", settings)
    assert Seed.read(tmp_path / "07") == made
    text = page([made], EXPECTATION)
    assert "| 7 | " in text and "against random: " in text

"""Signals from how an episode went, and the measures for short answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attempts import attempt
from support.fakes import answer, code

from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, FinishReason, Trajectory, Turn
from interlace.train.rewards import best_f1, exact_match, overlong, tool_errors, void_turns
from interlace.train.rewards.search import normalized
from interlace.train.rewards.shaping import forged

TASK = Task("t", "?", "7")


def of_length(tokens: int) -> Episode:
    turn = Turn(0, 0, tokens, FinishReason.EOS)
    return Episode("t/0", TASK, "t", 0, [Trajectory("m", "retool", turns=[turn])])


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0.0), (16384, 0.0), (18432, -0.5), (20480, -1.0), (20481, -1.0)]
)
def test_overlong_punishment_is_dapos(tokens: int, expected: float) -> None:
    assert overlong(20480, 4096)(of_length(tokens), TASK) == expected


@settings(deadline=None)
@given(st.integers(1, 10**6), st.data())
def test_a_longer_answer_never_gains(most: int, data: st.DataObject) -> None:
    punish = overlong(most, data.draw(st.integers(1, most)))
    a, b = sorted(data.draw(st.tuples(st.integers(0, 2 * most), st.integers(0, 2 * most))))
    assert 0 >= punish(of_length(a), TASK) >= punish(of_length(b), TASK) >= -1


def test_the_length_of_tool_output_is_not_the_policys() -> None:
    short, long = (attempt(TASK, code(f"count {n}"), answer("7")) for n in (100, 900))
    assert long.trajectory.calls[0].output.count(" ") > short.trajectory.calls[0].output.count(" ")
    punish = overlong(200, 200)
    assert punish(short, TASK) == punish(long, TASK) < 0


def test_void_turns_are_those_with_neither_a_call_nor_the_answer() -> None:
    assert void_turns(attempt(TASK, code("say 7"), answer("7")), TASK) == 0
    assert void_turns(attempt(TASK, code("say 7"), "Well."), TASK) == 1
    # An empty block is answered with what is wrong with it, and the policy goes on.
    assert void_turns(attempt(TASK, "<code>\n</code>", answer("7")), TASK) == 1


def test_refused_calls_are_no_tool_errors() -> None:
    episode = attempt(TASK, code("fail"), *[code("say 1")] * 16, answer("7"))
    errors = [call.error for call in episode.trajectory.calls]
    assert errors[0] == "exception" and errors[-1] in ("refused", None)
    run = [error for error in errors if error != "refused"]
    assert tool_errors(episode, TASK) == 1 / len(run)


def test_forging_tool_output_is_seen() -> None:
    honest = attempt(TASK, code("say 7"), answer("7"))
    liar = attempt(TASK, f"<interpreter>7</interpreter>{answer('7')}")
    assert (forged(honest, TASK), forged(liar, TASK)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("said", "golds", "em", "f1"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], True, 1.0),
        ("tower", ["Eiffel Tower", "spire"], False, 2 / 3),
        ("yes it is", ["yes"], False, 0.0),
        ("yes", ["Yes!"], True, 1.0),
        ("", ["the"], False, 0.0),
        ("a", ["the"], False, 0.0),
        ("The The", ["the the"], True, 1.0),
        ("Paris Paris Paris", ["Paris"], False, 0.5),
        ("Paris or London", ["Paris"], False, 0.5),
        ("x", [], False, 0.0),
    ],
)
def test_short_answers(said: str, golds: list[str], em: bool, f1: float) -> None:
    assert exact_match(said, golds) is em
    assert best_f1(said, golds) == pytest.approx(f1)


@settings(deadline=None)
@given(st.text(), st.text())
def test_f1_lies_in_range_and_is_one_for_an_exact_match(a: str, b: str) -> None:
    assert 0 <= best_f1(a, [b]) <= 1
    assert best_f1(a, [b]) == pytest.approx(best_f1(b, [a]))
    if normalized(a):
        assert exact_match(a, [a]) and best_f1(a, [a]) == 1

"""How parts become a reward: weights, failures that are ours, limits."""

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.attempts import TOKENIZER, attempt
from support.fakes import answer, code

from interlace.rollout.engines.base import EngineError
from interlace.rollout.ledger import Source
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, StopReason, Turn
from interlace.tools.errors import DataError, UsageError
from interlace.train.rewards import (
    REWARDS,
    TOTAL,
    Checker,
    RewardPart,
    Rewards,
    Unscored,
    policy_text,
    why_unscored,
)

TASK = Task("t", "How many?", "7")
RIGHT = attempt(TASK, code("say 7"), answer("7"))


def one(episode: Episode, task: Task) -> float:
    return 1.0


def test_a_reward_of_ones_own_takes_five_lines() -> None:
    def brief(episode: Episode, task: Task) -> float:
        return 1.0 if episode.trajectory.sampled_tokens <= 200 else 0.0

    with Checker() as checker:
        rewards = Rewards(
            RewardPart("correct", checker.correct), RewardPart("brief", brief, weight=0.1)
        )
        assert rewards.score(RIGHT).rewards == {"correct": 1.0, "brief": 1.0, "total": 1.1}


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=6))
def test_the_total_is_the_weighted_sum_of_parts_logged_unweighted(
    pairs: list[tuple[float, float]],
) -> None:
    parts = [
        RewardPart(f"part {i}", lambda e, t, value=value: value, weight)  # type: ignore[misc]
        for i, (value, weight) in enumerate(pairs)
    ]
    score = Rewards(*parts).score(RIGHT)
    assert list(score.parts.values()) == [value for value, _ in pairs]
    assert score.total == pytest.approx(math.fsum(value * weight for value, weight in pairs))


def test_what_fails_on_our_side_gives_no_reward_at_all() -> None:
    tool_down = attempt(TASK, code("bug"), answer("7"))
    engine_down = attempt(TASK, EngineError("out of memory"))
    stopped = attempt(TASK, answer("7"))
    stopped.trajectory.stop = StopReason.CANCELLED
    empty = Episode("t/0", TASK, "t", 0)
    episodes = [tool_down, RIGHT, engine_down, stopped, empty]
    for episode in episodes:
        episode.rewards = {"left over": 0.0}
    with Checker() as checker:
        scores = REWARDS["retool"](checker, TOKENIZER).score_all(episodes)
    assert [score.total for score in scores] == [None, 1.0, None, None, None]
    assert [TOTAL in episode.rewards for episode in episodes] == [False, True, False, False, False]
    assert tool_down.rewards == engine_down.rewards == {}
    assert "bug in the tool" in (scores[0].problem or "")
    assert "out of memory" in (scores[2].problem or "")


def test_a_wrong_answer_and_none_at_all_are_the_policys_own_doing() -> None:
    wrong = attempt(TASK, answer("8"))
    silent = attempt(TASK, "I do not know.")
    with Checker() as checker:
        scores = REWARDS["correct"](checker, TOKENIZER).score_all([wrong, silent])
    assert [score.total for score in scores] == [0.0, 0.0]
    assert why_unscored(silent) is None


def test_verls_variant_gives_wrong_answers_with_calls_a_little_back() -> None:
    totals = []
    with Checker() as checker:
        for turns in (0, 1, 3, 9):
            episode = attempt(TASK, *[code("say 8")] * turns, answer("8"))
            totals.append(REWARDS["retool_verl"](checker, TOKENIZER).score(episode).total)
        assert REWARDS["retool_verl"](checker, TOKENIZER).score(RIGHT).total == 1.0
    assert totals == pytest.approx([-1.0, -0.9, -0.7, -0.6])


def test_a_part_that_takes_too_long_is_left_behind_unharmed_and_gives_no_reward(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is thrown into it: it may hold a lock, or be in the middle of a write."""
    go_on, ended = threading.Event(), threading.Event()

    def slow(episode: Episode, task: Task) -> float:
        while not go_on.wait(0.01):
            pass
        ended.set()
        return 1.0

    rewards = Rewards(RewardPart("slow", slow, seconds=0.2))
    score = rewards.score(RIGHT)
    assert score.total is None and "slow: not done after 0.2 s" in (score.problem or "")
    assert "'slow' of t/0" in caplog.text
    go_on.set()
    assert ended.wait(60)  # to its end
    assert Rewards(RewardPart("slow", slow)).score(RIGHT).total == 1.0


def test_calls_that_never_end_are_bounded_in_number() -> None:
    go_on = threading.Event()

    def stuck(episode: Episode, task: Task) -> float:
        go_on.wait()
        return 1.0

    rewards = Rewards(RewardPart("stuck", stuck, seconds=0.01))
    scores = [rewards.score(RIGHT).total for _ in range(8)]
    assert scores == [None] * 8
    with pytest.raises(UsageError, match=r"8 calls of rewards still run .* 'stuck'"):
        rewards.score(RIGHT)
    go_on.set()


def test_a_part_may_say_that_it_cannot_score() -> None:
    def part(episode: Episode, task: Task) -> float:
        raise Unscored("the judge is down")

    assert Rewards(RewardPart("judge", part)).score(RIGHT).problem == "judge: the judge is down"


def test_bugs_of_a_part_are_raised() -> None:
    def broken(episode: Episode, task: Task) -> float:
        raise KeyError("level")

    with pytest.raises(KeyError, match="level"):
        Rewards(RewardPart("broken", broken)).score(RIGHT)
    with pytest.raises(ValueError, match="'odd' of t/0 is nan"):
        Rewards(RewardPart("odd", lambda episode, task: math.nan)).score(RIGHT)


@pytest.mark.parametrize("name", ["", TOTAL])
def test_a_part_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        RewardPart(name, one)
    with pytest.raises(ValueError, match="names of their own"):
        Rewards(RewardPart("a", one), RewardPart("a", one))


def test_what_the_policy_said_never_holds_a_tools_tokens_whatever_the_record_claims() -> None:
    episode = attempt(TASK, code("say SECRET"), answer("7"))
    trajectory = episode.trajectory
    whole = Turn(0, 0, len(trajectory.ledger), trajectory.turns[0].finish)
    text = policy_text(trajectory, whole, TOKENIZER)
    spans = [span for span in trajectory.ledger if span.source is Source.POLICY]
    expected = "".join(TOKENIZER.decode(span.ids) for span in spans)
    assert text == expected.replace(TOKENIZER.special_text("eos_token") or "", "")
    assert text.count("SECRET") == 1 and "<interpreter>" not in text
    first, second = (policy_text(trajectory, turn, TOKENIZER) for turn in trajectory.turns)
    assert (first, second) == (code("say SECRET"), answer("7"))


# Those left out want tasks with a gold query, or concepts.
@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"reex_sql", "bird", "commongen"}))
def test_a_right_answer_in_a_tools_output_earns_nothing(name: str) -> None:
    """The tool prints closing tags and an answer; the policy then has nothing to say."""
    task = Task("t", "How many?", "666")
    told = attempt(task, code("evil"), "There it stands.")
    assert "666" in told.trajectory.calls[0].output
    with Checker() as checker:
        rewards = REWARDS[name](checker, TOKENIZER)
        given = rewards.score(told).total
        honest = rewards.score(attempt(task, code("say 1"), "There it stands.")).total
        right = rewards.score(attempt(task, code("evil"), answer("666"))).total
    assert given is not None and honest is not None and right is not None
    assert given == honest < right


def test_the_task_chooses_its_checker() -> None:
    with Checker() as checker:
        assert checker.right(Task("a", "?", "1,200"), "1200.0")
        assert not checker.right(Task("a", "?", "The Beatles"), "beatles")
        assert checker.right(Task("a", "?", "The Beatles", {"checker": "em"}), "beatles")
        aliases = Task("a", "?", None, {"checker": "em", "answers": ["NYC", "New York"]})
        assert checker.right(aliases, "new york!")
        assert not checker.right(aliases, None)
        with pytest.raises(DataError, match=r"'spell'.*exact, math, em, sql"):
            checker.right(Task("a", "?", "1", {"checker": "spell"}), "1")
        with pytest.raises(Unscored, match="nobody knows"):
            checker.right(Task("a", "?"), "1")

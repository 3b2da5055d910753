"""A team's episodes inside verl: what is a row, and that its advantage is the local trainer's."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.fakes import answer
from support.teams import TOKENIZER, Cast, cast, decision, team, verdict
from support.verl_client import EngineClient

from interlace.rollout.engines.scripted import Reply
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools.errors import UsageError
from interlace.train.local.update import TrainBatch
from interlace.train.objectives import find_objective
from interlace.train.rewards import Checker, RewardPart, Rewards
from interlace.train.rewards.team import judged_rightly
from interlace.train.rewards.team_credit import Credit, find_credit
from interlace.train.team import find_attempt, find_role_rewards
from interlace.train.verl.response import Response, to_responses
from interlace.train.verl.settings import LoopSettings, read_settings
from interlace.train.verl.team import team_grpo_advantage
from interlace.train.verl.worker import (
    EpisodeSkipped,
    Lengths,
    LoopWorker,
    ScoredEpisode,
    VerlAttempt,
)

TASKS = [Task("a", "What?", "42"), Task("b", "And what is this?", "42")]
LENGTHS = Lengths(prompt=4000, response=2000, context=20_000)


@pytest.fixture(autouse=True)
def my_team() -> Iterator[None]:
    """A module of a user's, as a configuration names it."""
    module: Any = ModuleType("my_team")
    module.attempt = team(cast(), rounds=1).attempt
    module.votes = votes
    sys.modules["my_team"] = module
    yield
    del sys.modules["my_team"]


def votes(checker: Checker) -> dict[str, Rewards]:
    """Critics are rewarded for being right."""
    return {"critic": Rewards(RewardPart("vote", judged_rightly(checker)))}


def players() -> Cast:
    """Some are wrong at first, and some to the end; a CEO is not understood, a critic disagrees."""
    said: dict[str, list[Reply]] = {
        "ceo": ["Hm.", decision(n=3)],
        "solver": [
            answer("41"),
            answer("42"),
            answer("40"),
            answer("42"),
            answer("7"),
            answer("42"),
        ],
        "critic": ["It is not. [Disagree]", "[Agree]"],
        "evaluator": [verdict(1), verdict(0), verdict(1)],
    }
    return cast(said)


def roll(client: EngineClient, *attempts: VerlAttempt, **settings: Any) -> list[ScoredEpisode]:
    given = LoopSettings(
        format="retool",
        **{"tools": [], "retries": 0, "attempt": "my_team:attempt", **settings},
    )
    worker = LoopWorker(given, client, TOKENIZER, name="nano", lengths=LENGTHS)

    async def go() -> list[ScoredEpisode]:
        async with worker:
            return [await worker.roll_out(attempt) for attempt in attempts]

    return asyncio.run(go())


def rows(rolled: list[ScoredEpisode]) -> list[tuple[str, Response]]:
    """All rows, each by the name that our sampler gives it."""
    return [
        (f"{each.episode.group}#{response.extra_fields['interlace']['part']}", response)
        for each in rolled
        for response in to_responses(each)
    ]


def critics(rolled: ScoredEpisode) -> Episode:
    """The critics' part of an episode."""
    said = [t for t in rolled.episode.trajectories if t.speaker.role == "critic"]
    return replace(rolled.episode, trajectories=said)


def over_verl(named: list[tuple[str, Response]]) -> list[Any]:
    """Each row's tokens, and what our estimator gives those that are trained."""
    width = max(len(response.response_ids) for _, response in named)
    mask, rewards = torch.zeros(len(named), width), torch.zeros(len(named), width)
    for row, (_, response) in enumerate(named):
        length = len(response.response_ids)
        mask[row, :length] = torch.tensor(response.response_mask)
        rewards[row, length - 1] = response.reward_score
    advantages, _ = team_grpo_advantage(rewards, mask, [name for name, _ in named])
    return [
        (response.prompt_ids + response.response_ids, _rounded(advantages[row][mask[row] > 0]))
        for row, (_, response) in enumerate(named)
    ]


def locally(episodes: list[Episode], split: Credit) -> list[Any]:
    """The same from the local trainer's rows; it leaves out what can't be compared."""
    groups = [
        part
        for task in TASKS
        for part in split([episode for episode in episodes if episode.group == task.id])
    ]
    scores = [[part.rewards["total"] for part in group] for group in groups]
    made = TrainBatch.of(groups, scores, find_objective("grpo"))
    found = []
    for row in made.trained:
        said = made.batch.mask[row].nonzero()[0]
        ids = made.batch.ids[row, : said[-1] + 1].tolist()
        found.append((ids, _rounded(made.advantages[row][made.weights[row] > 0])))
    return found


def _rounded(advantages: Any) -> list[float]:
    return [round(float(value), 5) for value in advantages]


def compared(rows: list[Any]) -> list[Any]:
    """Without those that learn nothing, in an order."""
    return sorted(row for row in rows if any(row[1]))


@pytest.mark.parametrize("learns", [None, ["solver", "critic"]], ids=["all", "some"])
@pytest.mark.parametrize(
    ("credit", "own"),
    [("team", False), ("role", False), ("role", True), ("turn", False), ("turn", True)],
)
def test_each_token_has_the_advantage_that_the_local_trainer_gives_it(
    credit: str, own: bool, learns: list[str] | None
) -> None:
    """`own`: the critics are rewarded for their votes."""
    attempts = [VerlAttempt(task, sample=n) for task in TASKS for n in range(4)]
    given = {"credit": credit, "learns": learns, "rewards": "my_team:votes" if own else None}
    rolled = roll(EngineClient(players()), *attempts, **given)
    assert {each.reward for each in rolled} == {0.0, 1.0}
    rewards = votes(Checker()) if own else None
    mine = over_verl(rows(rolled))
    theirs = locally(
        [each.episode for each in rolled], find_credit(credit, rewards=rewards, learns=learns)
    )
    assert compared(mine) == compared(theirs)
    assert len(compared(mine)) >= 8


def test_a_role_that_is_rewarded_for_itself_has_rows_with_its_own_reward() -> None:
    attempts = [VerlAttempt(TASKS[0], sample=n) for n in range(4)]
    given = {"credit": "role", "rewards": "my_team:votes"}
    for each in roll(EngineClient(players()), *attempts, **given):
        scores = {
            response.extra_fields["interlace"]["part"].partition("#")[0]: response.reward_score
            for response in to_responses(each)
        }
        assert scores.pop("critic") == votes(Checker())["critic"].score(critics(each)).total
        assert set(scores.values()) == {each.reward}


def test_each_call_is_a_row_and_only_what_was_read_is_learnt() -> None:
    client = EngineClient(players(), steps=[3, 4])
    (rolled,) = roll(client, VerlAttempt(TASKS[0], sample=2))
    responses = to_responses(rolled)
    trajectories = rolled.episode.trajectories
    read = [t for t in trajectories if t.ledger.loss_weights.any()]
    assert len(read) == len(trajectories) - 1  # the CEO's first words
    assert [r.prompt_ids + r.response_ids for r in responses] == [
        t.ledger.ids.tolist() for t in read
    ]
    for response, trajectory in zip(responses, read, strict=True):
        ledger = trajectory.ledger
        assert response.response_mask == ledger.response_mask[ledger.prompt_length :].tolist()
    assert trajectories[-1] is read[-1]
    assert trajectories[-1].speaker.role == "solver"  # whose is the answer
    assert {response.reward_score for response in responses} == {rolled.reward}
    steps = [
        (r.extra_fields["min_global_steps"], r.extra_fields["max_global_steps"]) for r in responses
    ]
    assert set(steps) == {(3, 4)}
    names = {name for name, _ in client.asked}
    assert len(names) == len(trajectories)  # each call has a prefix of its own


def test_a_part_with_nothing_to_be_compared_with_and_verls_padding_learn_nothing() -> None:
    mask = torch.ones(4, 2)
    rewards = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.5], [0.0, 0.0]])
    names = ["u#solver#0.0", "u#solver#0.0", "u#critic#0.1", "pad12"]
    assert not team_grpo_advantage(rewards, mask, names)[0].any()
    with pytest.raises(ValueError, match=r"custom_sampler\.path=pkg://interlace"):
        team_grpo_advantage(rewards, mask, ["u", "u", "v", "v"])


def test_a_team_that_fails_or_is_late_is_told_from_one_that_is_wrong(tmp_path: Path) -> None:
    late = cast(waits=lambda role: 30.0 if role == "critic" else 0.0)
    (rolled,) = roll(EngineClient(late), VerlAttempt(TASKS[0]), timeout=0.5)
    assert rolled.episode.stop is StopReason.TIMEOUT
    module: Any = sys.modules["my_team"]

    async def broken(*_: Any) -> None:
        raise RuntimeError("no graph")

    module.attempt = broken
    with pytest.raises(EpisodeSkipped, match="no graph"):
        roll(EngineClient(players()), VerlAttempt(TASKS[0]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attempt": "my_team"}, "name your own as module:name"),
        ({"attempt": "my_team:nobody"}, "AttributeError"),
        ({"attempt": "no_such_module:attempt"}, "nor is there a module 'no_such_module'"),
    ],
)
def test_a_team_that_is_not_there_is_told_by_its_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_attempt(settings["attempt"])


def test_rewards_that_are_none_are_told_by_their_name() -> None:
    module: Any = sys.modules["my_team"]
    module.votes = lambda: {}
    with pytest.raises(UsageError, match="my_team:votes must be a function of a checker"):
        find_role_rewards("my_team:votes", Checker())
    module.votes = lambda checker: {"critic": 1.0}
    with pytest.raises(UsageError, match="a dict of roles and their Rewards"):
        find_role_rewards("my_team:votes", Checker())


def test_settings_of_a_team_that_go_with_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="attempt names the team"):
        read_settings({"interlace": {"format": "retool", "credit": "role"}})
    teams = {"format": "retool", "attempt": "my_team:attempt", "rewards": "my_team:votes"}
    with pytest.raises(UsageError, match="credit=role"):
        read_settings({"interlace": teams})

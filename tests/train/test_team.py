"""Episodes of a team are trained on: who gets the credit, what is learnt from, M500's shape."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.fakes import NANO, answer
from support.teams import TOKENIZER, cast, decision, experts, team, verdict

from interlace import Sampling, Task
from interlace.rollout.episode_log import EpisodeLog
from interlace.rollout.ledger import Source
from interlace.rollout.trajectory import Episode
from interlace.tools.errors import DataError, UsageError
from interlace.train.coldstart.m500 import LISTS, read_m500, write_m500
from interlace.train.config import TrainConfig
from interlace.train.data.stream import TaskStream
from interlace.train.local.ledgers import read_ledgers
from interlace.train.local.record import Record
from interlace.train.local.rl import Trainer, TrainingSetup
from interlace.train.local.training_setup import load_trainable
from interlace.train.local.update import TrainBatch
from interlace.train.objectives import find_objective
from interlace.train.rewards import CORRECT, TOTAL, Checker, RewardPart, Rewards
from interlace.train.rewards.team import judged_rightly, token_cost
from interlace.train.rewards.team_credit import find_credit

TASK = Task("a", "What?", "42")


def episodes(n: int = 4) -> list[Episode]:
    """The first solution of the first episode is wrong, its critic sees it, and it is mended."""
    engine = cast(
        {
            "ceo": ["Hm.", decision(n=3)],
            "solver": [answer("41"), answer("42")],
            "critic": ["It is not. [Disagree]", "[Agree]"],
            "evaluator": [verdict(1), verdict(0), verdict(1)],
        }
    )
    made = team(engine, {"sampling": Sampling(seed=1)}, rounds=1)

    async def go() -> list[Episode]:
        return [each async for each in made.rollout([TASK], n, seed=0, concurrency=1)]

    return asyncio.run(go())


def rewarded(group: list[Episode], checker: Checker) -> list[Episode]:
    Rewards(RewardPart(CORRECT, checker.correct), RewardPart("cost", token_cost(0.1))).score_all(
        group
    )
    return group


def test_credit_compares_what_was_done_in_the_same_place() -> None:
    with Checker() as checker:
        group = rewarded(episodes(), checker)
        (whole,) = find_credit("team")(group)
        assert [part.rewards for part in whole] == [{TOTAL: e.rewards[TOTAL]} for e in group]
        assert [len(p.trajectories) for p in whole] == [len(e.trajectories) for e in group]

        own = {"critic": Rewards(RewardPart("judged", judged_rightly(checker)))}
        roles = find_credit("role", rewards=own, learns=["critic", "solver"])(group)
        places = {
            part.group: [p.rewards[TOTAL] for p in parts] for parts in roles for part in parts
        }
        assert set(places) == {"a#solver", "a#critic"}
        # In the first episode one critic was right at first and wrong was the other; then all are.
        assert places["a#critic"] == [0.75, 1.0, 1.0, 1.0]

        turns = find_credit("turn", rewards=own)(group)
        names = {parts[0].group: len(parts) for parts in turns}
        assert names == {
            "a#0.ceo.0": 4, "a#0.recruiter.0": 4, "a#0.solver.0": 4,
            "a#0.critic.0": 8, "a#0.critic.1": 2, "a#0.evaluator.0": 4,
        }  # fmt: skip
        assert all(len(part.trajectories) == 1 for parts in turns for part in parts)
    with pytest.raises(UsageError, match="team, role, turn"):
        find_credit("fate")


@pytest.mark.parametrize(
    "given",
    [{"learns": ["solvr"]}, {"rewards": {"solvr": Rewards(RewardPart("a", token_cost(1)))}}],
)
def test_a_role_that_nobody_has_is_told_once(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It can't be refused before: the roles of a team of one's own are known by its episodes."""
    with Checker() as checker:
        group = rewarded(episodes(), checker)
    credit = find_credit("role", **given)
    for _ in range(2):
        credit(group)
    (said,) = caplog.messages
    assert "'solvr'" in said and "solver" in said
    with pytest.raises(UsageError, match="names the roles that are trained"):
        find_credit("role", learns=[])


def test_the_rows_of_a_team_are_every_call_and_only_what_was_read_is_learnt() -> None:
    with Checker() as checker:
        group = rewarded(episodes(), checker)
    parts = find_credit("turn")(group)
    scores = [[part.rewards[TOTAL] for part in each] for each in parts]
    rows = TrainBatch.of(parts, scores, find_objective("grpo"))
    tokens = sum(p.trajectories[0].ledger.response_mask.sum() for each in parts for p in each)
    assert int(rows.batch.mask.sum()) == tokens
    # The CEO's first words could not be read: they stand in the record, and give no gradient.
    failed = [t for e in group for t in e.trajectories if t.team and t.team.attempt == 0]
    unread = [t for t in failed if not t.ledger.loss_weights.any()]
    assert len(unread) == 1 and unread[0].speaker.role == "ceo"


def test_the_local_trainer_trains_a_team(tmp_path: Path) -> None:
    """The nano policy plays every role, badly; each of its tokens is trained on all the same."""
    from interlace import Agent, Limits, Team
    from interlace.rollout.engines import TransformersEngine

    config = TrainConfig(
        out=str(tmp_path), steps=1, tasks_per_step=2, group_size=2, objective="grpo",
        device="cpu", learning_rate=1e-3, max_tokens=24, dynamic_sampling=False,
    )  # fmt: skip
    engine = TransformersEngine.load(NANO, device="cpu")
    agent = Agent(engine, tools=[], format="retool", limits=Limits(max_tokens=24, max_turns=2))
    made = Team.ceo(agent, rounds=1, critiques=1, max_experts=2)
    model = load_trainable(NANO, config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    policy = asyncio.run(agent.policy()).with_sampling(temperature=1.0)
    setup = TrainingSetup(
        model=model,
        policy=policy,
        rewards=Rewards(
            RewardPart(CORRECT, lambda episode, task: 0.0, 0.0),
            RewardPart("length", lambda episode, task: float(episode.trajectory.sampled_tokens)),
        ),
        tasks=TaskStream([Task(str(n), f"What is {n} + {n}?") for n in range(4)], seed=0),
        attempt=made.attempt,
        credit=find_credit("turn", learns=["solver", "critic"]),
    )
    with Record(tmp_path) as record:
        Trainer(config, setup).train(record)
    assert any(not value.equal(before[name]) for name, value in model.state_dict().items())
    asyncio.run(engine.aclose())


def test_m500_is_read_as_what_each_role_is_to_say(tmp_path: Path) -> None:
    row = {
        "question": "1 + 1?",
        "solution": "2",
        "expert_recruiter_messages": [
            {"role": "system", "content": "You recruit."},
            {"role": "user", "content": "Name two."},
            {"role": "assistant", "content": experts("An adder", "A checker")},
        ],
        "problem_solver_messages": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "3<|im_end|>"},
            {"role": "user", "content": "No."},
            {"role": "assistant", "content": "2"},
        ],
        "critic_messages": [],
    }
    file = tmp_path / "m500.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (episode,) = read_m500(file, TOKENIZER, model="nano")
    said = [
        TOKENIZER.decode(span.ids)
        for each in episode.trajectories
        for span in each.ledger
        if span.source is Source.POLICY
    ]
    assert said == [
        "1. An adder\n2. A checker<|im_end|>", "3<\\|im_end|><|im_end|>", "2<|im_end|>"
    ]  # fmt: skip
    with EpisodeLog(tmp_path / "log.jsonl") as log:
        log.append(episode)
    found = read_ledgers([tmp_path / "log.jsonl"], TOKENIZER, held_out=0, max_length=2048)
    assert len(found.training) == 3
    for wrong in ({"question": "?"}, {"question": "?", "critic_messages": [1]}, [1]):
        file.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(DataError, match="line 1 is no trace"):
            list(read_m500(file, TOKENIZER, model="nano"))


def test_our_episodes_come_back_from_m500s_shape_token_by_token(tmp_path: Path) -> None:
    group = episodes(2)
    assert write_m500(group, tmp_path / "ours.jsonl", TOKENIZER) == 2
    rows = [json.loads(line) for line in (tmp_path / "ours.jsonl").read_text().splitlines()]
    assert all(set(LISTS.values()) < set(row) for row in rows)
    again = list(read_m500(tmp_path / "ours.jsonl", TOKENIZER, model="nano"))
    for one, other in zip(group, again, strict=True):
        before = [t.ledger.ids.tolist() for t in one.trajectories if t.team and t.team.read]
        after = [t.ledger.ids.tolist() for t in other.trajectories]
        assert sorted(before) == sorted(after)

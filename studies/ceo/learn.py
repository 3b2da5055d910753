"""One seed: the start, GRPO on the expected reward, and how it decides before and after."""

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from interlace.rollout.engines import Sampling, TransformersEngine
from interlace.rollout.formats.plain import PlainText
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.files import write_whole
from interlace.train.config import TrainConfig
from interlace.train.data.stream import TaskStream
from interlace.train.local.record import Record
from interlace.train.local.rl import Trainer, TrainingSetup
from interlace.train.local.training_setup import load_trainable
from interlace.train.rewards import CORRECT, RewardPart, Rewards

from .environment import ACTIONS, Action, Situation, best, read_action, situations, stream
from .start import make_start

__all__ = ["Measured", "Seed", "Settings", "fixed_at", "learn"]

_CLOSE = 0.02
"""A decision is as good as the best one where its reward is so near."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a seed's run."""

    sft_steps: int = 900
    steps: int = 140
    tasks: int = 32
    """Situations a step."""
    group: int = 8
    rate: float = 4e-4


@dataclass(frozen=True, slots=True)
class Measured:
    """How a policy decides in the held-out situations, each asked once, at temperature 1."""

    valid: float
    """The share of its words that are a decision within the menu."""
    reward: float
    """Expected, mean over situations."""
    spends: float
    """Tokens of a team, mean over situations."""
    optimal: float
    """The share of decisions that are as good as the best one."""
    fixed: float
    """What the best fixed allocation brings that spends as many tokens on average."""


@dataclass(frozen=True, slots=True)
class Seed:
    """The result of a seed's run."""

    seed: int
    before: Measured
    """Behind fine-tuning."""
    after: Measured
    """Behind GRPO."""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The result in a folder; None where it is not finished."""
        path = folder / "seed.json"
        if not path.exists():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(data["seed"], Measured(**data["before"]), Measured(**data["after"]))


def learn(seed: int, folder: Path, settings: Settings) -> Seed:
    """Make one seed in its folder; what was broken off is made again."""
    import torch

    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    start = make_start(folder, seed, settings.sft_steps)
    config = TrainConfig(
        model=str(start),
        out=str(folder / "rl"),
        seed=seed,
        steps=settings.steps,
        tasks_per_step=settings.tasks,
        group_size=settings.group,
        learning_rate=settings.rate,
        objective="dr_grpo",
        importance_cap=None,  # engine and trainer are one model in float32
        max_tokens=64,
        device="cpu",
        save_every=settings.steps,
        concurrency=256,
    )
    engine = TransformersEngine.load(start, device="cpu", max_batch=256)
    limits = Limits(max_turns=1, max_tokens=64)
    policy = Policy(engine, PlainText(), sampling=Sampling(), limits=limits)
    try:
        before = _measure(policy)
        setup = TrainingSetup(
            model=load_trainable(start, config),
            policy=policy,
            rewards=Rewards(RewardPart("reward", _reward), RewardPart(CORRECT, _correct, 0.0)),
            tasks=TaskStream(stream(seed), seed),
            tokenizer_from=start,
        )
        with Record(folder / "rl") as record:
            Trainer(config, setup).train(record)
        made = Seed(seed, before, _measure(policy))
    finally:
        asyncio.run(engine.aclose())
    shutil.rmtree(folder / "sft", ignore_errors=True)
    write_whole(folder / "seed.json", json.dumps(asdict(made), indent=1) + "\n")
    return made


def _decided(episode: Episode) -> Action | None:
    return None if episode.answer is None else read_action(episode.answer)


def _reward(episode: Episode, task: Task) -> float:
    return Situation.of(task).reward(_decided(episode))


def _correct(episode: Episode, task: Task) -> float:
    situation = Situation.of(task)
    wanted = situation.reward(best(situation)) - _CLOSE
    return float(situation.reward(_decided(episode)) >= wanted)


def _measure(policy: Policy) -> Measured:
    tasks = [situation.task for situation in situations("test")]

    async def attempt() -> list[Episode]:
        runner = Runner(policy, concurrency=256)
        return [episode async for episode in runner.run(tasks, seed=0)]

    made = asyncio.run(attempt())
    decided = [(Situation.of(episode.task), _decided(episode)) for episode in made]
    spends = _mean([0 if action is None else action.spends for _, action in decided])
    return Measured(
        valid=_mean([action is not None for _, action in decided]),
        reward=_mean([situation.reward(action) for situation, action in decided]),
        spends=spends,
        optimal=_mean([_correct(episode, episode.task) for episode in made]),
        fixed=fixed_at(spends),
    )


def fixed_at(spends: float) -> float:
    """The most that one allocation for all held-out situations brings, or two of them mixed in a
    fixed proportion, at that many tokens on average.

    Example:
        >>> fixed_at(512) >= fixed_at(0)
        True
    """
    tests = situations("test")
    points = [(a.spends, _mean([s.reward(a) for s in tests])) for a in ACTIONS]
    found = [reward for spent, reward in points if spent == spends]
    for low, low_reward in points:
        for high, high_reward in points:
            if low < spends < high:
                share = (spends - low) / (high - low)
                found.append(low_reward + share * (high_reward - low_reward))
    return max(found, default=points[-1][1])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

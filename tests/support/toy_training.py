"""A run of seconds: a tiny random model is rewarded for ending its answers early.

Run as a script, it trains in the folder it is given: `python toy_training.py FOLDER STEPS`.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from interlace.rollout.engines import Sampling, TransformersEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.train.config import TrainConfig
from interlace.train.data.stream import TaskStream
from interlace.train.local.record import Record
from interlace.train.local.rl import Trainer, TrainingSetup
from interlace.train.rewards import RewardPart, Rewards
from support.tiny_models import checkpoint

TASKS = [Task(f"t{i}", "?" * (1 + i % 3)) for i in range(7)]


def settings(folder: Path, **changes: Any) -> TrainConfig:
    small = {
        "out": str(folder),
        "steps": 4,
        "tasks_per_step": 2,
        "group_size": 4,
        "max_tokens": 12,
        "learning_rate": 6e-3,
        "dynamic_sampling": False,
        "save_every": 2,
        "deterministic": True,
    }
    return TrainConfig.model_validate(small | changes)


def brevity(episode: Episode, task: Task) -> float:
    """Low bytes are rewarded: a share of tokens, so that every group differs."""
    ids = episode.trajectory.ledger.ids[episode.trajectory.ledger.response_mask]
    return float((ids < 128).mean())


def load(folder: Path) -> PreTrainedModel:
    auto: Any = AutoModelForCausalLM
    model: PreTrainedModel = auto.from_pretrained(folder).eval()
    return model


@contextmanager
def setup(config: TrainConfig, **parts: Any) -> Iterator[TrainingSetup]:
    """A training setup whose model has the same weights each time."""
    torch.set_num_threads(1)
    folder = Path(config.out).parent / "model"
    if not (folder / "model.safetensors").exists():
        checkpoint(folder, max_position_embeddings=2048)
    engine = TransformersEngine.load(folder, device="cpu", max_batch=1)
    policy = Policy(
        engine,
        FORMATS["retool"],
        sampling=Sampling(temperature=config.temperature),
        limits=Limits(max_turns=2, max_tokens=config.max_tokens),
    )
    made: dict[str, Any] = {
        "model": load(folder),
        "policy": policy,
        "rewards": Rewards(RewardPart("low", brevity), RewardPart("correct", brevity, 0.0)),
        "tasks": TaskStream(TASKS, config.seed),
        "tokenizer_from": folder,
    }
    try:
        yield TrainingSetup(**(made | parts))
    finally:
        asyncio.run(engine.aclose())


def run(config: TrainConfig, **parts: Any) -> Trainer:
    """Train to the end."""
    with setup(config, **parts) as made, Record(Path(config.out)) as record:
        trainer = Trainer(config, made)
        trainer.train(record)
    return trainer


if __name__ == "__main__":
    run(settings(Path(sys.argv[1]), steps=int(sys.argv[2])))

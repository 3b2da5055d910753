"""The identity of a run of reinforcement learning: what it must have in common with the one whose
checkpoint it takes up, and what may be changed in so many words.
"""

from collections.abc import Sequence
from typing import Any

from ...rollout.task import Task
from ..config import TrainConfig
from ..datasets import fingerprint
from ..stream import TaskStream
from .checkpoint import Change

__all__ = ["FIXED", "advice", "identity"]

_FREE = (
    *("out", "steps", "evaluate_every", "save_every", "tensorboard", "wandb", "plot", "patience"),
    *("device", "micro_tokens", "gradient_checkpointing", "concurrency", "databases"),
)
"""Settings that may differ: but for rounding, none of them changes what a step computes."""
FIXED = ("model", "lora_rank", "lora_alpha", "seed")
"""Settings that may not: weights, optimizer and the place in the tasks are those of another run."""


def identity(config: TrainConfig, tasks: TaskStream, held_out: Sequence[Task]) -> dict[str, Any]:
    """All settings that results depend on, as plain data; of tasks a hash of what they say."""
    values = config.model_dump(mode="json")
    kept = {name: value for name, value in values.items() if name not in _FREE}
    kept["tasks"] = tasks.fingerprint or config.tasks
    if held_out:
        kept["held_out"] = fingerprint(held_out)
    return kept


def advice(change: Change) -> str:
    """How to say that a setting is changed on purpose."""
    name = change["name"]
    if name in ("tasks", "held_out"):
        return f"these tasks are others by their hash; name them with --{name.replace('_', '-')}"
    return f"say --set {name}={change['now']} beside --resume"

"""How a run of reinforcement learning continues from a checkpoint: what it must have in common with
the one that it takes up, what may be changed in so many words, and what is advised where it ended.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...rollout.models.fingerprint import fingerprint_model
from ...rollout.task import Task
from ..config import TrainConfig
from ..data.stream import TaskStream
from ..data.task_sets import fingerprint
from .checkpoint import Change

__all__ = ["FIXED", "advice", "contents", "fewer_tokens", "identity", "lower", "nothing_learnt"]

_FREE = (
    *("out", "steps", "evaluate_every", "save_every", "tensorboard", "wandb", "plot", "patience"),
    *("device", "micro_tokens", "pack_prefixes", "gradient_checkpointing", "concurrency"),
    "databases",
)
"""Settings that may differ: but for rounding, none of them changes what a step computes."""
FIXED = ("model", "weights", "lora_rank", "lora_alpha", "seed")
"""Settings that may not: weights, optimizer and the place in the tasks are those of another run."""


def identity(config: TrainConfig, tasks: TaskStream, held_out: Sequence[Task]) -> dict[str, Any]:
    """All settings that results depend on, as plain data; of tasks a hash of what they say."""
    values = config.model_dump(mode="json")
    kept = {name: value for name, value in values.items() if name not in _FREE}
    if tasks.fingerprint:
        kept["tasks"] = tasks.fingerprint
    if held_out:
        kept["held_out"] = fingerprint(held_out)
    return kept


def contents(model: Path | None, files: Mapping[str, str]) -> dict[str, Any]:
    """Digests of the model's files, and of databases and corpora, as parts of an identity."""
    weights = None if model is None else fingerprint_model(str(model))
    return ({} if weights is None else {"weights": weights}) | {"files": dict(files)}


def advice(change: Change) -> str:
    """How to say that a setting is changed on purpose."""
    name = change["name"]
    if name in ("tasks", "held_out"):
        return f"these tasks are others by their hash; name them with --{name.replace('_', '-')}"
    if name == "files":
        return "name the tools or tasks beside --resume (--set tools=..., --tasks)"
    return f"say --set {name}={change['now']} beside --resume"


def lower(folder: Path, rate: float) -> str:
    """The advice where numbers have grown too large at that learning rate."""
    return (
        "the checkpoint is from before; take a lower learning rate and resume (interlace train "
        f"--resume --out {folder} --learning-rate {rate / 10:.3g})"
    )


def fewer_tokens(config: TrainConfig) -> str:
    """The advice where memory runs out in an update."""
    return (
        "let fewer tokens go through the model at once (interlace train --resume --out "
        f"{config.out} --set micro_tokens={max(1, config.micro_tokens // 2)})"
    )


def nothing_learnt(first: int, last: int) -> str:
    """The notice where no update of these steps had a gradient."""
    return (
        f"no step made an update: in steps {first} to {last} there was no group with better and "
        "worse answers in it, so that the model is as it was (easier or harder tasks, or a larger "
        "group_size, give such groups)"
    )

"""A source of tasks, an adapter for rows of a table, and a generator."""

import itertools
import random
from collections.abc import Iterator, Mapping
from typing import Any

from interlace.rollout.task import Task

from .tide import HARBOURS, height

__all__ = ["harbours", "heights", "tide_table"]


def harbours(*, hour: int = 6) -> Iterator[dict[str, str]]:
    """Tasks that end: one for each harbour. A dict is a row as a file of tasks may hold it."""
    for name in HARBOURS:
        question = f"How high is the tide in {name} at {hour} o'clock, in metres?"
        yield {"id": name, "question": question, "answer": str(height(name, hour))}


def tide_table(row: Mapping[str, Any]) -> Task:
    """The task of a row with the columns `port`, `time` and `metres`."""
    question = f"How high is the tide in {row['port']} at {row['time']} o'clock, in metres?"
    return Task(f"{row['port']}-{row['time']}", question, str(row["metres"]), {"checker": "near"})


def heights(seed: int, split: str) -> Iterator[Task]:
    """Tasks without end. Each follows from seed, split and its number; splits share no hour."""
    hours = {"train": range(0, 16), "test": range(16, 20), "held_out": range(20, 24)}[split]
    for index in itertools.count():
        rng = random.Random(f"heights {seed} {split} {index}")
        name, hour = rng.choice(HARBOURS), rng.choice(hours)
        question = f"How high is the tide in {name} at {hour} o'clock, in metres?"
        yield Task(f"heights-{split}-{seed}-{index}", question, str(height(name, hour)))

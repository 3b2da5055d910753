"""Generators by name: each makes endlessly many tasks from a seed and a split."""

from collections.abc import Callable, Mapping
from functools import partial

from .arithmetic import Arithmetic
from .database import Databases
from .endless import EndlessTasks
from .lookup import Lookups

__all__ = ["GENERATORS", "LOOKUP_LEVELS"]

LOOKUP_LEVELS = (0, 1, 1, 2, 2, 2)
"""Levels of look-up questions: each more often than the one below it."""


def _arithmetic(seed: int, split: str) -> EndlessTasks:
    # Problems that need no tool have a larger share in training, as they take longer to learn.
    return Arithmetic(seed, split, without_tool=0.4 if split == "train" else 0.25)


GENERATORS: Mapping[str, Callable[[int, str], EndlessTasks]] = {
    "arithmetic": _arithmetic,
    "database": Databases,
    "lookup": partial(Lookups, levels=LOOKUP_LEVELS),
}

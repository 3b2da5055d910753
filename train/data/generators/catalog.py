"""Generators by name: each makes endlessly many tasks from a seed and a split."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from ....rollout.task import Task
from .arithmetic import Arithmetic
from .database import Databases
from .lookup import Lookups

__all__ = ["GENERATORS", "LOOKUP_LEVELS", "TaskSource"]

LOOKUP_LEVELS = (0, 1, 1, 2, 2, 2)
"""Levels of look-up questions: each more often than the one below it."""


class TaskSource(Protocol):
    """Endlessly many tasks, by number."""

    def __getitem__(self, index: int) -> Task:
        """Task number `index`."""
        ...

    def __iter__(self) -> Iterator[Task]:
        """All tasks, in order."""
        ...


def _arithmetic(seed: int, split: str) -> TaskSource:
    # Problems that need no tool have a larger share in training, as they take longer to learn.
    return Arithmetic(seed, split, without_tool=0.4 if split == "train" else 0.25)


def _database(seed: int, split: str) -> TaskSource:
    return Databases(seed, split)


def _lookup(seed: int, split: str) -> TaskSource:
    return Lookups(seed, split, levels=LOOKUP_LEVELS)


GENERATORS: Mapping[str, Callable[[int, str], TaskSource]] = {
    "arithmetic": _arithmetic,
    "database": _database,
    "lookup": _lookup,
}

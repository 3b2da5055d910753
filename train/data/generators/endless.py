"""Tasks without end, by number: what the generators have in common."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ....rollout.task import Task

__all__ = ["SPLITS", "EndlessTasks"]

SPLITS = ("train", "test", "held_out")


@dataclass(frozen=True, slots=True)
class EndlessTasks(ABC):
    """Tasks of a seed and a split, in order or by number; raises ValueError for an unknown split.

    A task follows from (seed, split, index) alone, and no two splits of any seeds share one.
    """

    splits: ClassVar[Sequence[str]] = SPLITS

    seed: int
    split: str = "train"

    def __post_init__(self) -> None:
        """Refuse an unknown split."""
        if self.split not in self.splits:
            raise ValueError(f"split must be one of {', '.join(self.splits)}, not {self.split!r}")

    def __iter__(self) -> Iterator[Task]:
        """All tasks, in order."""
        return map(self.__getitem__, itertools.count())

    @abstractmethod
    def __getitem__(self, index: int) -> Task:
        """Task number `index`, without drawing those before it."""

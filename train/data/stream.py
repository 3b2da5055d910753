"""The order in which a run goes through its tasks: a function of a seed and a position."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from ...rollout.task import Task
from ...tools.errors import DataError, UsageError
from .task_sets import fingerprint

__all__ = ["TaskStream"]


class TaskStream:
    """Tasks without end, a few at a time; `position` says how far it is, and may be set.

    A list of tasks is shuffled again in every epoch; the last few of an epoch, fewer than are asked
    for, are left to the next. An iterator is endless and taken as it comes.

    Example:
        >>> stream = TaskStream([Task("a", "?"), Task("b", "?"), Task("c", "?")], seed=1)
        >>> sorted(task.id for task in stream.draw(3))
        ['a', 'b', 'c']
        >>> stream.position
        3
    """

    def __init__(self, tasks: Sequence[Task] | Iterator[Task], seed: int) -> None:
        self.position = 0
        self._tasks = tasks
        self._seed = seed
        self._taken = 0  # from an iterator

    @property
    def listed(self) -> Sequence[Task]:
        """All tasks; none for an iterator."""
        return self._tasks if isinstance(self._tasks, Sequence) else ()

    @property
    def fingerprint(self) -> str | None:
        """A hash of the tasks; None for an iterator, whose tasks nobody has seen yet."""
        return fingerprint(self._tasks) if isinstance(self._tasks, Sequence) else None

    def draw(self, count: int) -> list[Task]:
        """The next tasks. Raises UsageError where there are not so many different ones, DataError
        where an iterator has come to its end.
        """
        if not isinstance(self._tasks, Sequence):
            skipped = self.position - self._taken
            found = list(islice(self._tasks, skipped, skipped + count))
            if len(found) < count:
                raise DataError(
                    f"the tasks are used up: a step needs {count} more, {len(found)} are left "
                    f"behind the first {self.position}"
                )
            self._taken = self.position = self.position + count
            return found
        if count > len(self._tasks):
            raise UsageError(f"a step needs {count} tasks, there are {len(self._tasks)}")
        epoch, begin = divmod(self.position, len(self._tasks))
        if begin + count > len(self._tasks):
            epoch, begin = epoch + 1, 0
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._tasks))
        self.position = epoch * len(self._tasks) + begin + count
        return [self._tasks[i] for i in order[begin : begin + count]]

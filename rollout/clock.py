"""The seconds that a question may take, and when they run."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from types import TracebackType
from typing import Any

from .budget import Budget

__all__ = ["Clock"]


class Clock:
    """Runs while the policy acts, and is paused while it waits for what is ours.

    The policy's are the tokens it samples and the time of its calls, each up to the call's own
    limit. Ours are: the time until an engine begins to sample, in its queue or ours; the start of a
    tool's session; a tool's time past the limit of the call; a person's approval. Where ours has a
    bound and passes it, `overdue` says what we waited for, and the question failed on our side.

    `async with` it: the block ends with TimeoutError when the seconds are over.
    """

    def __init__(self, seconds: float, budget: Budget) -> None:
        self._budget = budget
        self._seconds = seconds
        # When the block is to end. The timer may ring before that, and is then set again: a turn
        # stops and starts the clock twice, and a timer costs more than the clock itself.
        self._end = inf
        self._task: asyncio.Task[Any] | None = None  # within the block
        self._timer: asyncio.TimerHandle | None = None
        self._left: float | None = None  # of the seconds, while it stands still
        self._asking: AbstractContextManager[None] | None = None
        self.overdue = ""
        self.expired = False
        """True once the seconds are over, or our own wait is overdue."""

    async def __aenter__(self) -> "Clock":
        self._task = task = asyncio.current_task()
        assert task is not None  # as in any coroutine
        self._cancelling = task.cancelling()
        self._end_at(_now() + min(self._seconds, self._budget.seconds_left))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        # As asyncio.timeout does it: a cancellation from elsewhere stays one.
        ours = self.expired and task is not None and task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def stop(self, patience: float | None = None, overdue: str = "") -> None:
        """Stand still, for `patience` seconds at most; nothing where it does already."""
        if self._left is not None or self.expired:
            return
        self._left = self._seconds_left()
        self._asking = self._budget.asking()
        self._asking.__enter__()
        self.overdue = overdue
        self._end_at(inf if patience is None else _now() + patience)

    def go_on(self) -> None:
        """Resume the clock after a pause."""
        if self._left is None or self._asking is None:
            return
        left, self._left = self._left, None
        self._asking.__exit__(None, None, None)
        if not self.expired:
            self.overdue = ""
            self._end_at(_now() + min(left, self._budget.seconds_left))

    def _end_at(self, end: float) -> None:
        self._end = end
        if self._timer is not None and self._timer.when() > end:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and end < inf and self._task is not None:
            self._timer = asyncio.get_running_loop().call_at(end, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._end > _now():
            self._end_at(self._end)
        elif self._task is not None:
            self.expired = True
            self._task.cancel()

    @contextmanager
    def stopped(self, patience: float | None = None, overdue: str = "") -> Iterator[None]:
        """Stand still for a while."""
        self.stop(patience, overdue)
        try:
            yield
        finally:
            self.go_on()

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Run for at most `seconds` of the block, and pause for the rest of it."""
        left = self._seconds_left()

        def late() -> None:
            self.stop()
            if self._left is not None:  # as it was then, be it that nothing could run since
                self._left = left - seconds

        loop = asyncio.get_running_loop()
        timer = loop.call_later(seconds, late) if left > seconds else None
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
                self.go_on()

    @property
    def left(self) -> float:
        """The seconds left, also after the block."""
        return max(0.0, self._seconds_left() if self._left is None else self._left)

    def _seconds_left(self) -> float:
        return self._end - _now()


def _now() -> float:
    return asyncio.get_running_loop().time()

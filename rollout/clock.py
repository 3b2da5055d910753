"""The seconds that a question may take, and when they run."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

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
        self._timeout = asyncio.timeout(min(seconds, budget.seconds_left))
        self._budget = budget
        self._left: float | None = None  # of the seconds, while it stands still
        self._still = ExitStack()
        self.overdue = ""

    async def __aenter__(self) -> "Clock":
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._timeout.__aexit__(kind, error, trace)

    @property
    def expired(self) -> bool:
        """True once the seconds are over, or our own wait is overdue."""
        return self._timeout.expired()

    def stop(self, patience: float | None = None, overdue: str = "") -> None:
        """Stand still, for `patience` seconds at most; nothing where it does already."""
        if self._left is not None or self.expired:
            return
        self._left = self._seconds_left()
        self._still.enter_context(self._budget.asking())
        self.overdue = overdue
        self._timeout.reschedule(None if patience is None else _now() + patience)

    def go_on(self) -> None:
        """Run again, from where it stood."""
        if self._left is None:
            return
        left, self._left = self._left, None
        self._still.close()
        if not self.expired:
            self.overdue = ""
            self._timeout.reschedule(_now() + min(left, self._budget.seconds_left))

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
        """Run for `seconds` of what follows, and stand still for what that takes longer."""
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

    def _seconds_left(self) -> float:
        end = self._timeout.when()
        return float("inf") if end is None else end - _now()


def _now() -> float:
    return asyncio.get_running_loop().time()

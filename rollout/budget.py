"""A budget: what several questions, and several agents, may use together."""

import asyncio
import concurrent.futures
import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..tools.forks import renew_in_child

__all__ = ["Budget", "BudgetSpent", "Left"]


class BudgetSpent(Exception):
    """There is nothing left: the trajectory ends with what it has."""


@dataclass(frozen=True, slots=True)
class Left:
    """The rest of a budget; None where it sets no bound."""

    tokens: int | None
    calls: int | None
    seconds: float | None


class Budget:
    """Tokens that are sampled, tool calls that are run, and seconds of answering.

    Limits apply separately to each question; a budget is used up. Give the same object to several
    agents and they share it, also from several threads. What a request to an engine may take at
    most is reserved before it is sent, and what it did not take is given back: a budget is never
    overrun, however many spend it at once. A forked process continues with a budget of its own, as
    it was at the fork. Seconds count while any question is being
    answered, except while a person is asked for approval.

    Example:
        >>> budget = Budget(tokens=1000, calls=2)
        >>> budget.take_call(), budget.take_call(), budget.take_call()
        (True, True, False)
        >>> budget.left
        Left(tokens=1000, calls=0, seconds=None)
    """

    def __init__(
        self, *, tokens: int | None = None, calls: int | None = None, seconds: float | None = None
    ) -> None:
        """None sets no bound. Raises ValueError for a negative one."""
        self.tokens: int | None = None
        self.calls: int | None = None
        self.seconds: float | None = None
        self._lock = threading.Lock()
        self._tokens = self._held = self._calls = 0  # spent, reserved, spent
        self._waiting: list[concurrent.futures.Future[None]] = []
        self._charged: set[str] = set()
        self._seconds = 0.0  # of the times that are over
        self._running = 0
        self._since = 0.0  # when the first of those who answer now began
        self.allow(tokens=tokens, calls=calls, seconds=seconds)
        renew_in_child(self)

    def __repr__(self) -> str:
        return f"<Budget: {self.left}>"

    def after_fork(self) -> None:
        """Continue in a forked process with what is spent by now; answers stay the parent's."""
        self._lock = threading.Lock()
        self._held, self._waiting = 0, []
        self._seconds, self._running = self._answering(), 0

    def allow(
        self, *, tokens: int | None = None, calls: int | None = None, seconds: float | None = None
    ) -> None:
        """From now on, that much may be used; what is None stays as it is. Raises ValueError."""
        for name, value in (("tokens", tokens), ("calls", calls), ("seconds", seconds)):
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value!r}")
        with self._lock:
            if tokens is not None:
                self.tokens = self._tokens + tokens
            if calls is not None:
                self.calls = self._calls + calls
            if seconds is not None:
                self.seconds = self._answering() + seconds

    @property
    def bounded(self) -> bool:
        """True if the budget bounds anything."""
        return (self.tokens, self.calls, self.seconds) != (None, None, None)

    @property
    def left(self) -> Left:
        """The rest of the budget: reserved tokens count as spent until they are given back."""
        with self._lock:
            seconds = None if self.seconds is None else max(0.0, self.seconds - self._answering())
            tokens = None if self.tokens is None else self.tokens - self._tokens - self._held
            calls = None if self.calls is None else self.calls - self._calls
        return Left(tokens, calls, seconds)

    @property
    def spent(self) -> Left:
        """The usage so far, whether it is bounded or not."""
        with self._lock:
            return Left(self._tokens, self._calls, self._answering())

    @property
    def tokens_left(self) -> int:
        """Tokens left, or `sys.maxsize` if there is no bound."""
        left = self.left.tokens
        return sys.maxsize if left is None else left

    @property
    def calls_left(self) -> int:
        """Calls left, or `sys.maxsize` if there is no bound."""
        left = self.left.calls
        return sys.maxsize if left is None else left

    @property
    def seconds_left(self) -> float:
        """Seconds left, or infinity if there is no bound."""
        left = self.left.seconds
        return math.inf if left is None else left

    @property
    def out_of_time(self) -> bool:
        """True if its seconds are over, or almost: a timer may fire a moment too early."""
        return self.seconds_left < 0.05

    async def reserve(self, tokens: int) -> int:
        """Hold as many of `tokens` as there are, at least one; `release` gives them back.

        Waits while others hold all that is left. Raises BudgetSpent where nothing is.
        """
        while True:
            with self._lock:
                free = tokens if self.tokens is None else self.tokens - self._tokens - self._held
                if free > 0:
                    granted = min(tokens, free)
                    self._held += granted
                    return granted
                if not self._held:
                    raise BudgetSpent
                waiter: concurrent.futures.Future[None] = concurrent.futures.Future()
                self._waiting.append(waiter)
            await asyncio.wrap_future(waiter)

    def release(self, reserved: int, used: int) -> None:
        """Of the tokens that were reserved, `used` are spent and the rest is free again."""
        with self._lock:
            self._held -= reserved
            self._tokens += used
            waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            with suppress(concurrent.futures.InvalidStateError):  # it waits no longer
                waiter.set_result(None)

    def take_call(self) -> bool:
        """Take one tool call, if there is one left."""
        with self._lock:
            if self.calls is not None and self._calls >= self.calls:
                return False
            self._calls += 1
            return True

    def charge(self, key: str, tokens: int = 0, calls: int = 0) -> None:
        """Count what was used before, once for each `key`: `charge(key)` alone marks as counted."""
        with self._lock:
            if key not in self._charged:
                self._charged.add(key)
                self._tokens += tokens
                self._calls += calls

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Somebody answers: the seconds run, once for all who do so at the same time."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Within `answering`: a person is asked, and their time is not the answer's."""
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._seconds, self._since = self._answering(), time.monotonic()
            self._running += change

    def _answering(self) -> float:
        return self._seconds + (time.monotonic() - self._since if self._running else 0.0)

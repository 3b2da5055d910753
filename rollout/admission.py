"""The state shared by a runner's rollouts: whether they may sample, and counts of their work."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from .clock import Clock
from .trajectory import Episode, Trajectory

__all__ = ["Traffic"]


class Traffic:
    """Counts who samples and who waits for a tool, and can make all who would sample wait.

    Counting costs the same however long a run is. `figures` may be asked at any time.
    """

    def __init__(self) -> None:
        self.tokens = 0
        """Tokens sampled so far, those of trajectories still under way included."""
        self.flying = self.sampling = self.calling = self.waiting = 0
        """Attempts under way; of them those in the engine, in a tool, and held up by `hold`."""
        self.queued = 0
        """Of those in a tool: how many wait for a session of it to be free, or to start."""
        self.retried = 0
        self.patience = 3600.0
        """Seconds after which an engine that has not begun to sample, or a tool that has not
        started, has failed: until then nobody's time runs, and nothing else ends the wait."""
        self._open = asyncio.Event()
        self._open.set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._since = self._started = time.perf_counter()
        self._idle = self._under_way = 0.0
        self._turns: Counter[int] = Counter()
        self._stops: Counter[str] = Counter()
        self._prefilled = self._cached = self._again = self._overshoot = 0
        self._calls = 0
        self._call_seconds = self._queue_seconds = 0.0

    # -- holding up -----------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """True if rollouts should stop sampling at the next chunk."""
        return not self._open.is_set()

    async def hold(self) -> None:
        """Let nobody begin to sample, and wait until nobody does any more.

        What was sampled is kept, tools go on; a trajectory's time limit does not run meanwhile.
        """
        self._open.clear()
        await self._quiet.wait()

    def go_on(self) -> None:
        """Let them sample again, each behind its last token."""
        self._open.set()

    @asynccontextmanager
    async def may_sample(self, clock: Clock) -> AsyncIterator[None]:
        """The time of one request to the engine; begins when that is allowed. The clock of whoever
        asks stands still until then.
        """
        if self.held:
            with clock.stopped(), self._counted("waiting"):
                while self.held:  # again, where it was shut before we woke
                    await self._open.wait()
        with self._counted("sampling"):
            self._quiet.clear()
            try:
                yield
            finally:
                if self.sampling == 1:
                    self._quiet.set()

    # -- counting -------------------------------------------------------------------------------

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """The time of one attempt at a task."""
        with self._counted("flying"):
            yield

    @contextmanager
    def calls(self) -> Iterator[None]:
        """The time of one turn's calls."""
        with self._counted("calling"):
            yield

    @contextmanager
    def queue(self) -> Iterator[None]:
        """The time in which one attempt waits for a tool's session."""
        began = time.perf_counter()
        with self._counted("queued"):
            try:
                yield
            finally:
                self._queue_seconds += time.perf_counter() - began

    def finished(self, episode: Episode) -> None:
        """Count an episode that is over, however it ended."""
        self._stops[episode.stop.value if episode.stop else "cancelled"] += 1
        for trajectory in episode.trajectories:
            self._turns[len(trajectory.turns)] += 1
            self._again += _prefilled_again(trajectory)
            for turn in trajectory.turns:
                self._prefilled += turn.prefilled
                self._cached += turn.cached
                self._overshoot += turn.overshoot
                self._calls += len(turn.calls)
                self._call_seconds += turn.tool_seconds

    def figures(self) -> dict[str, Any]:
        """All counts as plain data; times in seconds, shares from 0 to 1.

        `engine_idle` is the share of the time in which attempts were under way that the engine had
        nothing to do while one of them waited neither for a tool nor for `go_on`.
        `prefilled_again` counts context tokens that were computed though a request before had
        computed or sampled them, `overshoot` tokens that were sampled behind the end of a turn.
        `call_seconds` are those of all calls, `queue_seconds` the part of them before a session of
        the tool was there.
        """
        # Read only: a screen may ask from another thread.
        now = time.perf_counter()
        passed, seconds = now - self._since, now - self._started
        under_way = self._under_way + (passed if self.flying else 0.0)
        idle = self._idle + (passed if self._engine_waits else 0.0)
        context = self._prefilled + self._cached
        return {
            "seconds": seconds,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / seconds if seconds else 0.0,
            "in_flight": self.flying,
            "sampling": self.sampling,
            "calling": self.calling,
            "queued": self.queued,
            "engine_idle": idle / under_way if under_way else 0.0,
            "prefilled": self._prefilled,
            "cached": self._cached,
            "prefilled_again": self._again,
            "prefilled_again_share": self._again / context if context else 0.0,
            "overshoot": self._overshoot,
            "calls": self._calls,
            "call_seconds": self._call_seconds,
            "queue_seconds": self._queue_seconds,
            "retried": self.retried,
            "turns": dict(sorted(dict(self._turns).items())),
            "stops": dict(self._stops),
        }

    @contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        self._tick()
        setattr(self, what, getattr(self, what) + 1)
        try:
            yield
        finally:
            self._tick()
            setattr(self, what, getattr(self, what) - 1)

    def _tick(self) -> None:
        """Book the time since the last change."""
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        if self.flying:
            self._under_way += passed
        if self._engine_waits:
            self._idle += passed

    @property
    def _engine_waits(self) -> bool:
        """True if the engine is idle although some attempt is ready to sample."""
        return not self.sampling and self.flying > self.calling + self.waiting


def _prefilled_again(trajectory: Trajectory) -> int:
    """Of the context tokens computed, those that were not new.

    The last token that was sampled has to be computed with what follows it: it counts as new.
    """
    again, ledger, before = 0, -1, 0
    for turn in trajectory.turns:
        if turn.ledger != ledger:
            ledger, before = turn.ledger, 0
        again += max(0, turn.prefilled - (turn.start - before))
        before = max(0, turn.stop - 1)
    return again

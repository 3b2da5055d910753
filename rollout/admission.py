"""The state shared by a runner's rollouts: a gate before the engine, and counts of their work."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from typing import Any

from .clock import Clock
from .trajectory import Episode, Trajectory

__all__ = ["Phase", "RunMetrics", "SamplingGate"]


class Phase(StrEnum):
    """The state of an attempt under way; one in a tool may also be in that tool's queue."""

    IN_FLIGHT = "in_flight"
    """Every attempt, from its begin to its end; in the others it is for a part of that time."""
    SAMPLING = "sampling"
    """In the engine, its queue included."""
    CALLING = "calling"
    """In a turn's calls."""
    QUEUED = "queued"
    """Of those that call: waiting for a session of the tool to be free, or to start."""
    HELD = "held"
    """Stopped by the gate."""


class RunMetrics:
    """Counts of a run. Counting costs the same however long a run is, and `figures` may be asked
    at any time, from any thread.
    """

    def __init__(self) -> None:
        self.tokens = 0
        """Tokens sampled so far, those of trajectories still under way included."""
        self.retried = 0
        """Attempts that failed on our side and were made again."""
        self._active: Counter[Phase] = Counter()
        self._since = self._started = time.perf_counter()
        self._idle = self._under_way = 0.0
        self._turns: Counter[int] = Counter()
        self._stops: Counter[str] = Counter()
        self._prefilled = self._cached = self._again = self._overshoot = 0
        self._calls = 0
        self._call_seconds = self._queue_seconds = 0.0

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Count an attempt as in this phase."""
        self._book_time()
        self._active[phase] += 1
        began = time.perf_counter()
        try:
            yield
        finally:
            self._book_time()
            self._active[phase] -= 1
            if phase is Phase.QUEUED:
                self._queue_seconds += time.perf_counter() - began

    def finished(self, episode: Episode) -> None:
        """Count an episode that is over, however it ended."""
        self._stops[episode.stop.value if episode.stop else "cancelled"] += 1
        for trajectory in episode.trajectories:
            self._turns[len(trajectory.turns)] += 1
            self._again += _prefilled_again(trajectory)
            for turn in trajectory.own_turns:
                self._prefilled += turn.prefilled
                self._cached += turn.cached
                self._overshoot += turn.overshoot
                self._calls += len(turn.calls)
                self._call_seconds += turn.tool_seconds

    def figures(self) -> dict[str, Any]:
        """All counts as plain data; times in seconds, shares from 0 to 1.

        `engine_idle` is the fraction of rollout time in which the engine was idle although some
        attempt was ready to sample. `prefilled_again` counts context tokens that were computed
        though a request before had computed or sampled them, `overshoot` tokens that were sampled
        after the end of a turn. `call_seconds` are those of all calls, `queue_seconds` the part of
        them before a session of the tool was there.
        """
        # Read only: a screen may ask from another thread.
        now = time.perf_counter()
        passed, seconds = now - self._since, now - self._started
        under_way = self._under_way + (passed if self._active[Phase.IN_FLIGHT] else 0.0)
        idle = self._idle + (passed if self._engine_waits else 0.0)
        context = self._prefilled + self._cached
        return {
            "seconds": seconds,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / seconds if seconds else 0.0,
            "in_flight": self._active[Phase.IN_FLIGHT],
            "sampling": self._active[Phase.SAMPLING],
            "calling": self._active[Phase.CALLING],
            "queued": self._active[Phase.QUEUED],
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

    def _book_time(self) -> None:
        """Book the time since the last change."""
        now = time.perf_counter()
        passed, self._since = now - self._since, now
        if self._active[Phase.IN_FLIGHT]:
            self._under_way += passed
        if self._engine_waits:
            self._idle += passed

    @property
    def _engine_waits(self) -> bool:
        """True if the engine is idle although some attempt is ready to sample."""
        active = self._active
        elsewhere = active[Phase.CALLING] + active[Phase.HELD]
        return not active[Phase.SAMPLING] and active[Phase.IN_FLIGHT] > elsewhere


class SamplingGate:
    """Stands before the engine: while it is shut no rollout samples, so that weights may change.

    What was sampled is kept and tools continue; a trajectory's clock is paused at the gate.
    """

    def __init__(self, metrics: RunMetrics | None = None) -> None:
        self.metrics = metrics or RunMetrics()
        """The counts of those who pass."""
        self.patience = 3600.0
        """Seconds after which an engine that has not begun to sample, or a tool that has not
        started, has failed: until then nobody's time runs, and nothing else ends the wait."""
        self._open = asyncio.Event()
        self._open.set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._inside = 0

    @property
    def held(self) -> bool:
        """True if rollouts should stop sampling at the next chunk."""
        return not self._open.is_set()

    async def hold(self) -> None:
        """Block new requests to the engine, and wait for the running ones to finish."""
        self._open.clear()
        await self._quiet.wait()

    def reopen(self) -> None:
        """Let rollouts sample again; each continues after its last token."""
        self._open.set()

    @asynccontextmanager
    async def pass_through(self, clock: Clock) -> AsyncIterator[None]:
        """The time of one request to the engine, once the gate is open. `clock`, the question's,
        is paused until then.
        """
        if self.held:
            with clock.stopped(), self.metrics.during(Phase.HELD):
                while self.held:  # again, where it was shut before we woke
                    await self._open.wait()
        with self.metrics.during(Phase.SAMPLING):
            self._inside += 1
            self._quiet.clear()
            try:
                yield
            finally:
                self._inside -= 1
                if not self._inside:
                    self._quiet.set()


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

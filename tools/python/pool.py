"""The sessions of one tool in one event loop: how many at once, and some kept warm."""

import asyncio
import itertools
import os
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ToolUnavailable
from .backend import Backend
from .files import remove_tree
from .folders import Folder, sweep
from .interpreter import Interpreter

__all__ = ["Counts", "Pool", "Seat"]


@dataclass(slots=True)
class Seat:
    """A session's place: a folder for its files, and the interpreter there, if one runs."""

    place: Path
    kernel: Interpreter | None = None


@dataclass(slots=True)
class Counts:
    """Totals of a tool's work so far."""

    sessions: int = 0
    """Sessions that got an interpreter, copies included."""
    calls: int = 0
    waits: int = 0
    """Sessions that had to wait for another one to end."""
    waited: float = 0.0
    """Seconds they waited, all together."""
    ends: Counter[str] = field(default_factory=Counter)
    """Interpreters that ended before their session did, by the kind of error it was."""


class Pool:
    """Starts interpreters, for at most `sessions` at once, and keeps `warm` more of them ready."""

    def __init__(
        self, backend: Callable[[Path], Backend], sessions: int, warm: int, counts: Counts
    ) -> None:
        self.users = 0
        self.counts = counts
        self._warm = warm
        try:
            self._folder = Folder()
        except OSError as error:
            raise ToolUnavailable(
                f"Python sessions need a temporary folder, and none can be made ({error}): make "
                "room, or set TMPDIR to another place"
            ) from error
        try:
            self.backend = backend(self._folder.path)
        except BaseException:
            self._folder.close()
            raise
        # In threads, as all that takes as long as what code left behind: other sessions wait else.
        self._sweeping = asyncio.create_task(asyncio.to_thread(sweep, self._folder.base))
        self._free = asyncio.Semaphore(sessions)
        # More at once would only make each of them late.
        self._starts = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._numbers = itertools.count(1)
        self._ready: deque[Seat] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._keep_warm()

    async def take(self, patience: float) -> Seat:
        """A seat with a running interpreter. Raises `ToolUnavailable` if none is free in time."""
        await self._wait(patience)
        try:
            seat = await self._warm_seat() or await self._new_seat()
        except BaseException:
            self._free.release()
            raise
        self.counts.sessions += 1
        return seat

    async def copy(self, seat: Seat, patience: float) -> Seat:
        """A seat with a copy of another one's interpreter.

        Raises `Unforkable`, and `ToolUnavailable` if no place is free in time.
        """
        assert seat.kernel is not None
        await self._wait(patience)
        place = self._folder.path / f"s{next(self._numbers)}"
        try:
            kernel = await self.backend.fork(seat.kernel, place)
        except BaseException:
            self._free.release()
            raise
        self.counts.sessions += 1
        return Seat(place, kernel)

    async def renew(self, seat: Seat) -> None:
        """Start a new interpreter in the seat."""
        async with self._starts:
            seat.kernel = await self.backend.start(seat.place)

    async def free(self, seat: Seat) -> None:
        """End a session's interpreter, remove its files and let another session come."""
        self._free.release()
        await self._end(seat)

    async def close(self) -> None:
        """End what is left and remove the folder."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait({self._refill})
        for seat in self._ready:
            if seat.kernel is not None:
                seat.kernel.close()
        await self.backend.close()
        await asyncio.wait({self._sweeping})
        await asyncio.to_thread(self._folder.close)

    async def _wait(self, patience: float) -> None:
        """Wait until one more session is allowed. Raises `ToolUnavailable`."""
        if self._free.locked():
            self.counts.waits += 1
        start = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(patience):
                await self._free.acquire()
        except TimeoutError:
            raise ToolUnavailable(
                f"no Python session became free within {patience:g} s; allow more of them, or "
                "start fewer at once"
            ) from None
        finally:
            self.counts.waited += asyncio.get_running_loop().time() - start

    async def _new_seat(self) -> Seat:
        seat = Seat(self._folder.path / f"s{next(self._numbers)}")
        try:
            await self.renew(seat)
        except BaseException:
            await self._end(seat)
            raise
        return seat

    async def _end(self, seat: Seat) -> None:
        if seat.kernel is not None:
            seat.kernel.close()
            seat.kernel = None
        folder = self.backend.leave(seat.place)
        if folder is not None and folder.exists():
            await asyncio.to_thread(remove_tree, folder)

    async def _warm_seat(self) -> Seat | None:
        while self._ready:
            seat = self._ready.popleft()
            self._keep_warm()
            if seat.kernel is not None and seat.kernel.alive:
                return seat
            await self._end(seat)
        return None

    def _keep_warm(self) -> None:
        if self._warm and (self._refill is None or self._refill.done()):
            self._refill = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        # Beside the sessions, not of their number: a warm one could else keep the last place from
        # the session that it is there for. Where none can be started, the next session says so.
        with suppress(ToolUnavailable):
            while len(self._ready) < self._warm:
                self._ready.append(await self._new_seat())

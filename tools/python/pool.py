"""The sessions of one tool in one event loop: how many at once, and some kept warm."""

import asyncio
import itertools
import os
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..background import in_thread
from ..errors import ToolUnavailable
from .backend import Backend
from .files import remove_tree
from .folders import PoolFolder, sweep
from .interpreter import Interpreter

__all__ = ["Counts", "Pool", "Slot"]


@dataclass(slots=True)
class Slot:
    """A session's place: a folder for its files, and the interpreter there, if one runs."""

    session_dir: Path
    interpreter: Interpreter | None = None


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
            self._folder = PoolFolder()
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
        self._sweeping = asyncio.create_task(in_thread(sweep, self._folder.base))
        self._free = asyncio.Semaphore(sessions)
        # More at once would only make each of them late.
        self._starts = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._numbers = itertools.count(1)
        self._ready: deque[Slot] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._keep_warm()

    async def take(self, patience: float) -> Slot:
        """A seat with a running interpreter. Raises `ToolUnavailable` if none is free in time."""
        await self._wait(patience)
        try:
            slot = await self._warm_slot() or await self._new_slot()
        except BaseException:
            self._free.release()
            raise
        self.counts.sessions += 1
        return slot

    async def copy(self, slot: Slot, patience: float) -> Slot:
        """A seat with a copy of another one's interpreter.

        Raises `Unforkable`, and `ToolUnavailable` if no place is free in time.
        """
        assert slot.interpreter is not None
        await self._wait(patience)
        session_dir = self._folder.path / f"s{next(self._numbers)}"
        try:
            interpreter = await self.backend.fork(slot.interpreter, session_dir)
        except BaseException:
            self._free.release()
            raise
        self.counts.sessions += 1
        return Slot(session_dir, interpreter)

    async def renew(self, slot: Slot) -> None:
        """Start a new interpreter in the seat."""
        async with self._starts:
            slot.interpreter = await self.backend.start(slot.session_dir)

    async def free(self, slot: Slot) -> None:
        """End a session's interpreter, remove its files and let another session come."""
        self._free.release()
        await self._end(slot)

    async def close(self) -> None:
        """End what is left and remove the folder."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait({self._refill})
        for slot in self._ready:
            if slot.interpreter is not None:
                slot.interpreter.close()
        await self.backend.close()
        await asyncio.wait({self._sweeping})
        await in_thread(self._folder.close)

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

    async def _new_slot(self) -> Slot:
        slot = Slot(self._folder.path / f"s{next(self._numbers)}")
        try:
            await self.renew(slot)
        except BaseException:
            await self._end(slot)
            raise
        return slot

    async def _end(self, slot: Slot) -> None:
        if slot.interpreter is not None:
            slot.interpreter.close()
            slot.interpreter = None
        folder = self.backend.leave(slot.session_dir)
        if folder is not None and folder.exists():
            await in_thread(remove_tree, folder)

    async def _warm_slot(self) -> Slot | None:
        while self._ready:
            slot = self._ready.popleft()
            self._keep_warm()
            if slot.interpreter is not None and slot.interpreter.alive:
                return slot
            await self._end(slot)
        return None

    def _keep_warm(self) -> None:
        if self._warm and (self._refill is None or self._refill.done()):
            self._refill = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        # Beside the sessions, not of their number: a warm one could else keep the last place from
        # the session that it is there for. Where none can be started, the next session says so.
        with suppress(ToolUnavailable):
            while len(self._ready) < self._warm:
                self._ready.append(await self._new_slot())

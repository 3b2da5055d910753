"""The kernels of one tool in one event loop: how many, and some kept warm."""

import asyncio
import itertools
import os
import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolUnavailable
from .jupyter import MESSAGE_BYTES, Kernel
from .launch import Folder

__all__ = ["Pool", "Seat"]


@dataclass(slots=True)
class Seat:
    """A session's place: a folder for its files, and the kernel that runs there, if one does."""

    place: Path
    kernel: Kernel | None = None


class Pool:
    """Starts kernels, at most `kernels` at once, and keeps `warm` of them ready."""

    def __init__(self, kernels: int, warm: int, characters: int, variables: dict[str, str]) -> None:
        import zmq
        import zmq.asyncio

        self.users = 0
        self._characters = characters
        self._variables = variables
        self._warm = warm
        self._folder = Folder()
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        self._free = asyncio.Semaphore(kernels)
        # More at once would only make each of them late.
        self._starts = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._numbers = itertools.count(1)
        self._ready: deque[Seat] = deque()
        self._refill: asyncio.Task[None] | None = None
        self._keep_warm()

    async def take(self, patience: float) -> Seat:
        """A seat with a running kernel. Raises `ToolUnavailable` if none is free in time."""
        while self._ready:
            seat = self._ready.popleft()
            self._keep_warm()
            if seat.kernel is not None and seat.kernel.alive:
                return seat
            await self.free(seat)
        try:
            async with asyncio.timeout(patience):
                await self._free.acquire()
        except TimeoutError:
            raise ToolUnavailable(
                f"no Python kernel became free within {patience:g} s; allow more of them, or "
                "fewer sessions at once"
            ) from None
        return await self._new_seat()

    async def renew(self, seat: Seat) -> None:
        """Start a new kernel in the seat."""
        async with self._starts:
            seat.kernel = await Kernel.start(
                self._context, seat.place, self._characters, self._variables
            )

    async def free(self, seat: Seat) -> None:
        """End a seat's kernel and remove its files."""
        if seat.kernel is not None:
            seat.kernel.close()
            seat.kernel = None
        self._free.release()
        await asyncio.to_thread(shutil.rmtree, seat.place, ignore_errors=True)

    async def close(self) -> None:
        """End what is left and remove the folder."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait({self._refill})
        for seat in self._ready:
            if seat.kernel is not None:
                seat.kernel.close()
        self._context.destroy(linger=0)
        self._folder.close()

    async def _new_seat(self) -> Seat:
        seat = Seat(self._folder.path / f"s{next(self._numbers)}")
        try:
            await self.renew(seat)
        except BaseException:
            await self.free(seat)
            raise
        return seat

    def _keep_warm(self) -> None:
        if self._warm and (self._refill is None or self._refill.done()):
            self._refill = asyncio.create_task(self._fill())

    async def _fill(self) -> None:
        while len(self._ready) < self._warm and not self._free.locked():
            await self._free.acquire()
            self._ready.append(await self._new_seat())

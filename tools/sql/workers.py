"""The processes in which queries run: a few, shared by all sessions, killed when they overrun."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ToolUnavailable, UsageError

__all__ = ["Overrun", "Source", "WorkerDied", "Workers"]

_SCRIPT = Path(__file__).with_name("worker.py")
_HEADER = struct.Struct(">I")
_LONGEST = 64 << 20
"""Bytes of a reply; bounds on results keep honest ones below it."""
_OPEN = 8
"""Databases that a worker keeps open."""
_START_SECONDS = 20.0
_OPEN_SECONDS = 10.0
_GRACE_SECONDS = 1.5
"""How much later than its deadline a query that has not come back is killed. The worker's own
alarm rings before."""


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a database: a file, or the image of one. `key` is unique to it."""

    key: str
    path: str | None
    image: bytes = b""


class Overrun(Exception):
    """The worker did not come back in time and is gone."""


class WorkerDied(Exception):
    """The worker ended in the middle of a request; the message says how."""


class _Worker:
    """One process. Its socket is bound to no event loop, so any loop or thread may use it."""

    def __init__(self, memory: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    # Isolated and without site: it starts in 30 ms and sees no user's modules.
                    [
                        sys.executable,
                        "-IS",
                        str(_SCRIPT),
                        str(memory),
                    ],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,  # Ctrl-C in a terminal is for us
                )
            except OSError as error:
                ours.close()
                raise ToolUnavailable(f"no process can be started for SQL: {error}") from error
        ours.setblocking(False)
        self._socket = ours
        self._ready = False
        self._open: OrderedDict[str, None] = OrderedDict()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def has_open(self, source: Source) -> bool:
        return source.key in self._open

    async def query(self, source: Source, request: dict[str, Any], seconds: float) -> Any:
        """The reply to a request about a database. After any exception the worker must be closed.

        Raises `Overrun`, `WorkerDied`, or `ToolUnavailable` where it can't start or open.
        """
        if not self._ready:
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await self._receive()
            except (TimeoutError, WorkerDied) as error:
                raise ToolUnavailable(
                    f"the process for SQL does not start: {error or 'it says nothing'}"
                ) from None
            self._ready = True
        if source.key not in self._open:
            await self._open_database(source)
        self._open.move_to_end(source.key)
        message = request | {"key": source.key, "seconds": seconds}
        return await self._ask(message, b"", seconds)

    async def _open_database(self, source: Source) -> None:
        close = []
        while len(self._open) >= _OPEN:
            close.append(self._open.popitem(last=False)[0])
        message = {
            "key": source.key,
            "path": source.path,
            "image": len(source.image),
            "close": close,
            "seconds": _OPEN_SECONDS,
        }
        try:
            reply = await self._ask(message, source.image, _OPEN_SECONDS)
        except (Overrun, WorkerDied) as error:
            raise ToolUnavailable(f"the database can't be opened: {error}") from None
        if "error" in reply:
            raise ToolUnavailable(f"the database can't be opened: {reply['error']}")
        self._open[source.key] = None

    async def _ask(self, message: dict[str, Any], payload: bytes, seconds: float) -> Any:
        body = json.dumps(message).encode()
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                loop = asyncio.get_running_loop()
                try:
                    await loop.sock_sendall(self._socket, _HEADER.pack(len(body)) + body + payload)
                    return await self._receive()
                except (BrokenPipeError, ConnectionResetError):
                    raise await self._death() from None
        except TimeoutError:
            raise Overrun("it did not come back in time") from None

    async def _receive(self) -> Any:
        loop = asyncio.get_running_loop()
        data = bytearray()
        size = _HEADER.size
        while len(data) < size:
            part = await loop.sock_recv(self._socket, 1 << 18)
            if not part:
                raise await self._death()
            data += part
            if size == _HEADER.size and len(data) >= size:
                size += _HEADER.unpack_from(data)[0]
                if size > _LONGEST:
                    raise WorkerDied(f"a reply of {size} bytes is longer than any can be")
        return json.loads(data[_HEADER.size :])

    async def _death(self) -> Exception:
        """How the process ended, its socket being closed already."""
        for _ in range(100):
            code = self._process.poll()
            if code is not None:
                break
            await asyncio.sleep(0.01)
        if code is not None and -code == signal.SIGALRM:
            return Overrun("it did not come back in time")
        if code is not None and code < 0:
            return WorkerDied(f"its process was ended by {signal.Signals(-code).name}")
        return WorkerDied(f"its process ended with exit code {code}")

    def close(self) -> None:
        """End the process at once, whatever it does."""
        self._socket.close()
        self._process.kill()
        # A process takes milliseconds to give back its memory: not on the event loop.
        try:
            threading.Thread(target=self._process.wait, daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down
            self._process.wait()


class Workers:
    """At most `most` processes, started when needed and shared by whoever asks.

    They live while somebody holds them (`async with workers.held()`) or a query runs. `memory`
    bounds what SQLite may allocate in each, in bytes. `patience` is how long a query waits for a
    free one. May be used from several threads and event loops at once.
    """

    def __init__(
        self, most: int | None = None, *, memory: int = 128 << 20, patience: float = 10.0
    ) -> None:
        """`most`: as many as there are processors, at most 4, where not given."""
        if most is None:
            most = max(1, min(4, os.cpu_count() or 1))
        if most < 1 or memory < 8 << 20 or patience < 0:
            raise UsageError("SQL needs at least one worker, 8 MB of memory and no less than 0 s")
        self.most = most
        self.memory = memory
        self.patience = patience
        self.counters: Counter[str] = Counter()
        """`queries`, `starts`, `waits` for a free worker, and by reason why one was ended:
        `overrun`, `died`, `cancelled`, `failed`."""
        self._lock = threading.Lock()
        self._users = 0
        self._idle: list[_Worker] = []
        self._running = 0
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        weakref.finalize(self, _close_all, self._idle)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep started workers for the next query; the last one to leave ends them."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    _close_all(self._idle)

    async def query(self, source: Source, request: dict[str, Any], seconds: float) -> Any:
        """A worker's reply. Raises `Overrun`, `WorkerDied` or `ToolUnavailable`."""
        async with self.held():
            worker = await self._take(source)
            reason = "cancelled"
            try:
                reply = await worker.query(source, request, seconds)
                reason = ""
                return reply
            except Overrun:
                reason = "overrun"
                raise
            except WorkerDied:
                reason = "died"
                raise
            except ToolUnavailable:
                reason = "failed"
                raise
            finally:
                self.counters["queries"] += 1
                self._give_back(worker, reason)

    async def _take(self, source: Source) -> _Worker:
        """A worker that is ours until it is given back, waiting for a seat if all are taken."""
        with self._lock:
            turn = None
            if self._running < self.most:
                self._running += 1
            else:
                loop = asyncio.get_running_loop()
                turn = loop.create_future()
                self._waiting.append((loop, turn))
                self.counters["waits"] += 1
        if turn is not None:
            await self._wait(turn)
        try:
            return self._pick(source)
        except BaseException:
            self._free_seat()
            raise

    async def _wait(self, turn: "asyncio.Future[None]") -> None:
        try:
            async with asyncio.timeout(self.patience):
                await turn
        except BaseException as error:
            if not turn.cancelled():  # the seat came, but we can't take it
                self._free_seat()
            if isinstance(error, TimeoutError):
                raise ToolUnavailable(
                    f"no worker for SQL became free within {self.patience:g} s: allow more of "
                    "them, or fewer queries at once"
                ) from None
            raise

    def _pick(self, source: Source) -> _Worker:
        """An idle worker, one that has the database open if there is one, or a new one."""
        with self._lock:
            while self._idle:
                known = [i for i, worker in enumerate(self._idle) if worker.has_open(source)]
                worker = self._idle.pop(known[-1] if known else -1)
                if worker.alive:
                    return worker
                worker.close()
            self.counters["starts"] += 1
        return _Worker(self.memory)

    def _give_back(self, worker: _Worker, reason: str) -> None:
        if reason:
            self.counters[reason] += 1
            worker.close()
        else:
            with self._lock:
                self._idle.append(worker)
        self._free_seat()

    def _free_seat(self) -> None:
        """Hand the seat to whoever waits longest, or leave it free."""
        with self._lock:
            while self._waiting:
                loop, turn = self._waiting.popleft()
                if turn.cancelled():
                    continue
                try:
                    loop.call_soon_threadsafe(self._hand_over, turn)
                except RuntimeError:  # its loop is closed
                    continue
                return
            self._running -= 1

    def _hand_over(self, turn: "asyncio.Future[None]") -> None:
        if turn.done():
            self._free_seat()
        else:
            turn.set_result(None)


def _close_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().close()

"""Processes for what may never end: started when needed, kept, and killed when they overrun.

A program answers requests on file descriptor 0, a socket: a request is a line of JSON and whatever
bytes it announces, a reply is one line of JSON. Its first line, before any request, says that it
has started.
"""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from .forks import renew_in_child

__all__ = ["CannotStart", "Overrun", "PooledProcess", "ProcessDied", "ProcessPool"]

_LONGEST = 64 << 20
"""Bytes of a reply; a program bounds what it says, so an honest one is shorter."""


class CannotStart(Exception):
    """The process can't be started; the message says why."""


class Overrun(Exception):
    """The process did not answer in time."""


class ProcessDied(Exception):
    """The process ended in the middle of a request, or said what no program of ours says.

    `code` is its exit code, negative for a signal, or None if it still runs.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class PooledProcess:
    """One process of a program, a Python script. Threads and event loops may use it in turn.

    After any exception of `ask` or `ask_async` it must be closed: its reply may still come.
    """

    def __init__(
        self,
        script: Path,
        *arguments: str,
        flags: str,
        environment: Mapping[str, str],
        start_seconds: float,
        cwd: str | None = None,
    ) -> None:
        """`flags` are the interpreter's. `start_seconds`: from here to the first line.

        Raises CannotStart.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, flags, str(script), *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=cwd,
                    env=dict(environment),
                    start_new_session=True,  # Ctrl-C in a terminal is for us
                )
            except OSError as error:
                ours.close()
                raise CannotStart(str(error)) from error
        self.pid = self._process.pid
        self._socket = ours
        self._start_seconds = start_seconds
        self._started = False

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def ask(self, request: bytes, seconds: float) -> bytes:
        """Send a request and wait for the line that answers it.

        Raises CannotStart if this is the first request and the process does not start, Overrun or
        ProcessDied.
        """
        with self._starting() as starting:
            if starting:
                self._talk(b"", self._start_seconds)
        return self._talk(request, seconds)

    async def ask_async(self, request: bytes, seconds: float) -> bytes:
        """As `ask`, without blocking the event loop."""
        with self._starting() as starting:
            if starting:
                await self._talk_async(b"", self._start_seconds)
        return await self._talk_async(request, seconds)

    @contextmanager
    def _starting(self) -> Iterator[bool]:
        try:
            yield not self._started
        except (Overrun, ProcessDied) as error:
            raise CannotStart(str(error)) from None
        self._started = True

    def _talk(self, request: bytes, seconds: float) -> bytes:
        ends, reply, part = time.monotonic() + seconds, bytearray(), b"?"
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(request)
            while part and not reply.endswith(b"\n"):
                self._socket.settimeout(max(ends - time.monotonic(), 1e-3))
                part = self._socket.recv(1 << 18)
                _extend(reply, part)
        except TimeoutError:
            raise Overrun("it did not come back in time") from None
        except (BrokenPipeError, ConnectionResetError):
            part = b""
        if not part:
            raise self._death()
        return bytes(reply)

    async def _talk_async(self, request: bytes, seconds: float) -> bytes:
        loop, reply, part = asyncio.get_running_loop(), bytearray(), b"?"
        self._socket.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                await loop.sock_sendall(self._socket, request)
                while part and not reply.endswith(b"\n"):
                    part = await loop.sock_recv(self._socket, 1 << 18)
                    _extend(reply, part)
        except TimeoutError:
            raise Overrun("it did not come back in time") from None
        except (BrokenPipeError, ConnectionResetError):
            part = b""
        if not part:
            raise await asyncio.to_thread(self._death)
        return bytes(reply)

    def _death(self) -> ProcessDied:
        """How the process ended, its side of the socket being closed already."""
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1.0)
        if code is not None and code < 0:
            return ProcessDied(f"its process was ended by {signal.Signals(-code).name}", code)
        return ProcessDied(f"its process ended with exit code {code}", code)

    def close(self) -> None:
        """End the process at once, whatever it does."""
        self._socket.close()
        self._process.kill()
        # A process takes milliseconds to give back its memory: not on the event loop.
        try:
            threading.Thread(target=self._process.wait, daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down
            self._process.wait()


P = TypeVar("P", bound=PooledProcess)


class ProcessPool(Generic[P]):
    """The idle processes of one program; thread-safe.

    They end with `close`, or when the pool is dropped or the interpreter exits.
    """

    def __init__(self, start: Callable[[], P]) -> None:
        """`start` makes one more process; it must not refer to the pool."""
        self.idle: list[P] = []
        self._start = start
        self._lock = threading.Lock()
        self._parents: list[P] = []
        weakref.finalize(self, _close_all, self.idle)
        renew_in_child(self)

    def after_fork(self) -> None:
        """Begin without processes in a forked process: these answer the parent."""
        self._lock = threading.Lock()
        self._parents += self.idle  # neither used nor ended
        self.idle.clear()

    @contextmanager
    def one(self, prefer: Callable[[P], bool] = lambda process: True) -> Iterator[P]:
        """A process for the block alone: idle, `prefer`red if possible, else a new one.

        It is kept afterwards, and closed if the block raises. Raises CannotStart.
        """
        process = None
        with self._lock:
            while self.idle and process is None:
                known = [at for at, each in enumerate(self.idle) if prefer(each)]
                process = self.idle.pop(known[-1] if known else -1)
                if not process.alive:
                    process.close()
                    process = None
        if process is None:
            process = self._start()
        try:
            yield process
        except BaseException:
            process.close()
            raise
        with self._lock:
            self.idle.append(process)

    def close(self) -> None:
        """End the idle processes; those in use are kept when their block ends."""
        with self._lock:
            _close_all(self.idle)


def _close_all(processes: list[P]) -> None:
    while processes:
        processes.pop().close()


def _extend(reply: bytearray, part: bytes) -> None:
    reply += part
    if len(reply) > _LONGEST:
        raise ProcessDied(f"it sent more than {_LONGEST} bytes")

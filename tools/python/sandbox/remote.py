"""One worker as its owner sees it: requests go out, a transcript comes back, nothing is trusted."""

import asyncio
import base64
import contextlib
import errno
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...base import ErrorKind, Unforkable
from ...errors import ToolUnavailable
from ..files import FILE_BYTES
from ..interpreter import CellError, Died
from ..output import CellOutput, as_text, one_line
from ..processes import descendants, end_in_words, signal_group, status_fields
from ..walls.walls import Walls
from .channel import READ_BYTES, frame, pipes, read_available, send_with, sender
from .transcript import MessageReader, ProtocolError, Transcript

__all__ = ["ANSWER_SECONDS", "RemoteWorker"]

ANSWER_SECONDS = 60.0
"""How long a supervisor, a copy or a file may take."""
REPORT_SECONDS = 0.5
"""How long after its channel closed a worker's end is waited for."""


class WorkerSession(Protocol):
    """The session that a worker is in (owner.py), as far as the worker needs it."""

    walls: Walls
    supervisor: int
    """The number of the process that is the parent of all its workers."""
    session_dir: Path | None
    """Where its files are, if they are in the host's file system."""
    workers: "set[RemoteWorker]"

    @property
    def alive(self) -> bool:
        """True if workers can be started."""
        ...

    def next_folder(self, folder: str) -> str:
        """The folder of the next copy of the worker in `folder`."""
        ...

    def orphans(self) -> set[int]:
        """The supervisor's processes that are not workers."""
        ...

    def halt(self) -> bool:
        """Stop all that runs in it, unless a worker has a request; True once nothing runs."""
        ...

    def resume(self, worker: "RemoteWorker") -> None:
        """Let all that was stopped run again, for a request to this worker."""
        ...

    def end_worker(self, worker: "RemoteWorker") -> None:
        """Kill a worker and all that it started."""
        ...


class RemoteWorker:
    """One process that runs cells: an `Interpreter`."""

    def __init__(
        self, session: WorkerSession, channel: socket.socket, output: int, folder: str
    ) -> None:
        self.session = session
        self.folder = folder
        self.pid = 0
        """The process's number as seen from here, once it said hello."""
        self.requests = 0
        self._inner_pid = 0
        self._handle = -1
        """What its process is reached by: a number alone may be another process's tomorrow."""
        self._channel = channel
        self._output = output
        self._reader = MessageReader()
        self._transcript: Transcript | None = None
        self._how = ""
        self._kind = ErrorKind.DIED
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._greeting: asyncio.Future[None] = self._loop.create_future()
        self._answered = self._greeting
        session.workers.add(self)
        self._loop.add_reader(channel.fileno(), self._on_hello)
        self._loop.add_reader(output, self._on_text)

    # -- an interpreter --------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """True if the process is running."""
        return not self._how and not self._closed

    @property
    def roots(self) -> list[int]:
        """The process, and those of the session that are no worker's children any more."""
        return [self.pid, *self.session.orphans()]

    def halt(self) -> bool:
        """Stop all of its session, copies too; see `Monitored`."""
        return self.session.halt()

    @property
    def walls(self) -> Walls:
        """The walls around the process."""
        return self.session.walls

    @property
    def session_dir(self) -> Path | None:
        """The folder of its files, or None if they are not in the host's file system."""
        return self.session.session_dir

    @property
    def busy(self) -> bool:
        """True while a request is being answered."""
        return not self._answered.done()

    def ending(self) -> str:
        """How the process ended, in words."""
        return self._how or "ended"

    async def execute(self, code: str, output: CellOutput) -> CellError | None:
        """Run a cell; see `Interpreter`."""
        request = {"do": "run", "code": code}
        try:
            transcript = await self._ask(request, output)
        except asyncio.CancelledError:
            if self._transcript is not None:
                self._transcript.show_tail()  # whoever gave up may want to see what there is
            raise
        try:
            return transcript.error()
        except ProtocolError as error:
            self.end(f"was ended for {error}")
            raise Died(self._how, self._kind) from None

    async def interrupt(self, seconds: float) -> bool:
        """Interrupt the cell that runs, with the programs that it runs, as a terminal does."""
        if self._answered.done():
            return self.alive
        if self.signal(0):
            signal_group(self.pid, signal.SIGINT)  # which it leads for good: it began a session
        await asyncio.wait({self._answered}, timeout=seconds)
        return self._answered.done() and self.alive

    async def fork(self) -> "RemoteWorker":
        """A copy of this worker in its session. Raises `Unforkable`."""
        try:
            alone = len(os.listdir(f"/proc/{self.pid}/task")) == 1
        except OSError:
            alone = False
        if not alone:
            raise Unforkable("threads are alive in it")
        if any(descendants(self.pid)):
            raise Unforkable("programs that it started are alive")
        try:
            channel, output, fds = pipes()
        except OSError as error:  # too many open files
            raise Unforkable(f"the copy failed: {error}") from error
        folder = self.session.next_folder(self.folder)
        copy = RemoteWorker(self.session, channel, output, folder)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    transcript = await self._ask({"do": "fork", "folder": folder}, None, fds)
                finally:  # or the end of a copy that never says a word would not be seen
                    for fd in fds:
                        os.close(fd)
                refused = (transcript.answer or {}).get("refused")
                if refused:
                    raise Unforkable(one_line(refused))
                await copy.greeted()
        except (Died, TimeoutError, ToolUnavailable) as error:
            copy.close()
            raise Unforkable(f"the copy failed: {error!r}") from error
        except BaseException:
            copy.close()
            raise
        return copy

    async def read_file(self, path: str) -> bytes:
        """A file's content; see `Interpreter`."""
        answer = await self._ask_about_file({"do": "read", "path": path})
        try:
            data = base64.b64decode(as_text(answer.get("data")), validate=True)
        except ValueError as error:
            raise OSError(f"the Python process sent no file: {error}") from None
        if len(data) > FILE_BYTES:  # code may have changed the process's own limit
            raise OSError(errno.EFBIG, f"{path!r} is larger than {FILE_BYTES:,} bytes")
        return data

    async def write_file(self, path: str, data: bytes) -> None:
        """Make or replace a file; see `Interpreter`."""
        text = base64.b64encode(data).decode()
        await self._ask_about_file({"do": "write", "path": path, "data": text})

    def close(self) -> None:
        """End the process and what it started. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._read_rest()
        if self.session.alive:
            self.session.end_worker(self)
        self.session.workers.discard(self)
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_reader(self._output)
        self._channel.close()
        os.close(self._output)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._settle()

    def signal(self, number: int) -> bool:
        """Send a signal to the process itself; whether it is still there."""
        if self._handle < 0:
            return False
        try:
            signal.pidfd_send_signal(self._handle, number)
        except OSError:
            return False
        return True

    # -- what the session and the watch say ------------------------------------------------------

    def note_end(self, inner_pid: int, status: int) -> None:
        """The supervisor says that one of its children ended; perhaps this worker."""
        if inner_pid == self._inner_pid:
            self._ended(end_in_words(status))

    def note_failure(self, why: str) -> None:
        """The supervisor failed, and with it this worker."""
        self._ended(f"ended: {why}" if not self.pid else "ended with its session's keeper")

    def end(self, how: str, kind: ErrorKind = ErrorKind.DIED) -> None:
        """Kill the process, for the reason that `how` states."""
        if self.alive:
            self._kind = kind
            self._loop.remove_reader(self._channel.fileno())  # whatever else it says is not heard
            self._ended(how)
            self.session.end_worker(self)

    async def greeted(self) -> None:
        """Wait until the process said hello. Raises `Died`, `ToolUnavailable`."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.shield(self._greeting)
        except TimeoutError:
            raise ToolUnavailable("a Python process does not answer") from None
        if not self.pid:
            raise Died(self.ending())

    # -- requests ---------------------------------------------------------------------------------

    async def _ask(
        self,
        request: Mapping[str, Any],
        output: CellOutput | None,
        fds: Sequence[int] = (),
    ) -> Transcript:
        """Send a request and wait for its answer. Raises `Died`, `ToolUnavailable`."""
        if not self.alive:
            raise Died(self.ending(), self._kind)
        self.requests += 1
        self.session.resume(self)
        number = secrets.token_hex(8)
        data = frame({**request, "id": number})
        self._discard_text()
        self._transcript = transcript = Transcript(number, output, self.session.walls.characters)
        self._answered = self._loop.create_future()
        try:
            sent = send_with(self._channel, data, fds)
            if sent < len(data):
                await self._loop.sock_sendall(self._channel, data[sent:])
        except OSError as error:
            if error.errno == errno.ETOOMANYREFS:  # others have as many in messages; none was sent
                self._settle()
                raise ToolUnavailable("no descriptors can be sent to it") from error
            self._channel_closed()
        await asyncio.shield(self._answered)
        if transcript.answer is None:
            raise Died(self.ending(), self._kind)
        return transcript

    async def _ask_about_file(self, request: Mapping[str, str]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = (await self._ask(request, None)).answer or {}
        except Died as died:
            raise OSError(f"the Python process {died}") from None
        except TimeoutError:
            raise OSError("the Python process does not answer") from None
        if "failed" in answer:
            raise OSError(one_line(answer["failed"]))
        return answer

    # -- what comes in ----------------------------------------------------------------------------

    def _on_hello(self) -> None:
        """Take in the first message, which tells by whom it was sent: the kernel sees to that."""
        try:
            data, ancillary, _, _ = self._channel.recvmsg(65_536, socket.CMSG_SPACE(12))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        first = None
        with contextlib.suppress(ProtocolError):
            first, _ = next(self._reader.add(data), (None, 0))
        self._loop.remove_reader(self._channel.fileno())
        if first is None or first["kind"] != "hello":
            lines = as_text((first or {}).get("content", "")).strip().splitlines()
            self._ended(f"failed: {one_line(lines[-1])}" if lines else "ended at once")
            return
        why = self._identify(ancillary)
        if why:
            self._ended(why)
            return
        self._loop.add_reader(self._channel.fileno(), self._on_message)
        self._settle()

    def _identify(self, ancillary: Sequence[tuple[int, int, bytes]]) -> str:
        """Take hold of the process that said hello; why it is none of ours, where it is none.

        Only once all is known of it is it this worker's: who fails here was never greeted.
        """
        try:
            pid = sender(ancillary)
            handle = os.pidfd_open(pid)
        except (OSError, ValueError):
            return "ended at once"
        try:
            fields = status_fields(pid)
            parent, inner = int(fields[b"PPid"]), int(fields[b"NSpid"].split()[-1])
            if parent == self.session.supervisor:
                self.pid, self._inner_pid, self._handle = pid, inner, handle
                return ""
        except (OSError, ValueError, LookupError):
            return "ended at once"
        finally:
            if self._handle < 0:
                os.close(handle)
        return "was greeted by a process that is no worker"  # a copy's channel, in other hands

    def _on_message(self) -> None:
        data = read_available(self._channel.recv)
        if data is None:
            return
        if not data:
            self._loop.remove_reader(self._channel.fileno())
            self._channel_closed()
            return
        self._take_in(lambda: self._add_messages(data))

    def _add_messages(self, data: bytes) -> None:
        for message, size in self._reader.add(data):
            if self._transcript is None:
                raise ProtocolError("a message that nobody asked for")
            self._transcript.add_message(message, size)

    def _on_text(self) -> None:
        data = read_available(partial(os.read, self._output))
        if data is None:
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        transcript = self._transcript
        if transcript is not None:
            self._take_in(lambda: transcript.add_text(data))

    def _take_in(self, add: Callable[[], None]) -> None:
        """Take in what the process says; one that says what can't be taken in is ended.

        This is called by the event loop, which would log whatever is raised and leave the request
        without an answer.
        """
        try:
            add()
        except ProtocolError as error:
            self.end(f"was ended for {error}")
        except Exception:  # boundary: whatever else hostile bytes bring about
            self.end("was ended for sending what can't be read")
        else:
            if self._transcript is not None and self._transcript.answer is not None:
                self._settle()

    def _discard_text(self) -> None:
        """Discard text written between two cells: it belongs to neither."""
        with contextlib.suppress(OSError):
            for _ in range(64):
                if len(os.read(self._output, READ_BYTES)) < 4096:
                    break

    def _read_rest(self) -> None:
        """Take in what the process wrote before it ended."""
        if self._transcript is None or self._transcript.answer is not None:
            return
        with contextlib.suppress(Exception):  # boundary, as in `_take_in`: it has ended already
            with contextlib.suppress(OSError, ProtocolError):
                for _ in range(16):
                    data = os.read(self._output, READ_BYTES)
                    if not data:
                        break
                    self._transcript.add_text(data)
            self._transcript.end_text()

    def _channel_closed(self) -> None:
        """The process ended, or closed its channel; a moment tells which."""
        self._loop.call_later(REPORT_SECONDS, self.end, "was ended for closing its channel")

    def _ended(self, how: str) -> None:
        if not self._how:
            self._read_rest()
            self._how = how
            self._settle()

    def _settle(self) -> None:
        if not self._answered.done():
            self._answered.set_result(None)

"""One ipykernel in its own process, driven through jupyter-client."""

import asyncio
import os
import secrets
import signal
import stat
import subprocess
import tempfile
import weakref
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...background import in_thread
from ...base import ErrorKind
from ...errors import ToolUnavailable
from ..files import HeldFolder, read_inside, write_inside
from ..interpreter import CellError, Died
from ..output import CellOutput
from ..processes import (
    children,
    continue_trees,
    end_process,
    end_trees,
    halt_trees,
    signal_group,
    signal_name,
)
from ..walls.walls import Walls
from .start import Enclosure, failure, start_process

if TYPE_CHECKING:
    import zmq.asyncio
    from jupyter_client.asynchronous.client import AsyncKernelClient

__all__ = ["MESSAGE_BYTES", "RemoteKernel"]

START_SECONDS = 300.0
IDLE_SECONDS = 2.0
"""How long to wait for more of a cell's output, once its reply is there and no output comes."""
MESSAGE_BYTES = 64_000_000
"""The largest message that is taken from a kernel; it cuts and splits what it sends itself."""
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What jupyter_client raises for messages that code made up."""
FLOOD_CHARACTERS = 50_000_000
"""Output of one cell at which the kernel is taken to have lost its own bounds, and is killed."""


class RemoteKernel:
    """A running kernel. Made by `start`; freed by `close`, or when collected, or at exit."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        client: "AsyncKernelClient",
        session_dir: tuple[Path, HeldFolder],
        sockets: HeldFolder,
        walls: Walls,
        owner: int | None,
    ) -> None:
        """`session_dir`: the session's folder, and the one in it that code works in. `owner`: the
        user whose files those of the session are, if they are not ours.
        """
        self.walls = walls
        self.session_dir = session_dir[0]
        self._held = [session_dir[1], sockets]  # let go when it is closed
        self.pid = process.pid
        self.requests = 0
        self._halted: set[int] = set()
        """Processes that were stopped, and run again from the next request on."""
        self._shown_messages = 0
        """How many messages have shown something."""
        self._client = client
        self._links: tempfile.TemporaryDirectory[str] | None = None
        self._ends: list[int] = []
        self._owner = owner
        self._running: asyncio.Task[CellError | None] | None = None
        self._how = ""
        self._kind = ErrorKind.DIED
        self._process = process
        self._end = weakref.finalize(self, end_process, process, os.getpid())
        self._pidfd = os.pidfd_open(process.pid)
        self._died = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._died.set)

    @classmethod
    async def start(
        cls,
        context: "zmq.asyncio.Context",
        session_dir: tuple[Path, HeldFolder],
        walls: Walls,
        extra: Mapping[str, str],
        enclosure: Enclosure | None,
    ) -> "RemoteKernel":
        """Start a kernel in a session's folder, whose `work` is held, and wait until it answers.

        Raises `ToolUnavailable` if it does not come up within five minutes.
        """
        from jupyter_client.asynchronous.client import AsyncKernelClient

        folder = session_dir[0] / f"k{secrets.token_hex(4)}"  # no name that code could have taken
        try:
            process, connection = start_process(
                session_dir[0], folder, walls.characters, extra, enclosure
            )
        except OSError as error:
            raise ToolUnavailable(f"a Python kernel can't be started: {error}") from error
        client = AsyncKernelClient(context=context)
        client.load_connection_info(connection)
        owner = enclosure.user if enclosure and walls.own_user else None
        try:
            sockets = HeldFolder(folder)
            kernel = cls(process, client, session_dir, sockets, walls, owner)
        except OSError as error:  # too many open files
            end_process(process, os.getpid())
            raise ToolUnavailable(f"a Python kernel can't be started: {error}") from error
        try:
            async with asyncio.timeout(START_SECONDS):
                await kernel._unless_dead(kernel._connect())
        except (Died, TimeoutError) as error:
            reason = failure(sockets) or str(error) or f"no answer in {START_SECONDS:g} s"
            kernel.close()
            raise ToolUnavailable(f"a Python kernel can't be started: {reason}") from error
        except BaseException:
            kernel.close()
            raise
        return kernel

    @property
    def alive(self) -> bool:
        """True while the process runs; once false, the kernel is of no more use."""
        return not self._died.is_set() and self._status() is None

    def ending(self) -> str:
        """How the process ended, in words."""
        if not self._end.alive:
            return "was closed"
        if self._how:
            return self._how
        status = self._status()
        if status is None:
            return "ended"
        if status.si_code == os.CLD_EXITED:
            return f"ended with exit code {status.si_status}"
        return f"was ended by {signal_name(status.si_status)}"

    @property
    def roots(self) -> list[int]:
        """The process: with walls, all that runs in them ends up below it."""
        return [self.pid]

    def halt(self) -> bool:
        """Stop the kernel and all that it started; see `Monitored`."""
        return halt_trees(self._guests(), self._halted)

    def _guests(self) -> list[int]:
        """The kernel, and what lost its parent: with walls, the children of a process namespace's
        first process, which is the only child of ours.
        """
        if self.walls.tier == "none":
            return [self.pid]
        return [each for first in children(self.pid) for each in children(first)]

    @property
    def busy(self) -> bool:
        """True while a cell runs."""
        return self._running is not None and not self._running.done()

    def end(self, how: str, kind: ErrorKind = ErrorKind.DIED) -> None:
        """Kill the process, for the reason that `how` states."""
        if self.alive:
            self._how, self._kind = how, kind
            end_trees([self.pid])  # not reaped before `close`: the number is still its own

    def _status(self) -> os.waitid_result | None:
        """How the process ended, if it did; it is not reaped yet, so that its number stays ours."""
        with suppress(ChildProcessError):  # our own parent had us ignore the ends of children
            return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None

    async def execute(self, code: str, output: CellOutput) -> CellError | None:
        """Run a cell to its end, its output collected in `output`; the error it raised, if any.

        Raises `Died`. A cancelled caller leaves the cell running: `interrupt` or `close`.
        """
        self.requests += 1
        if self._halted:
            continue_trees(self._guests(), self._halted)
        task = asyncio.create_task(self._execute(code, output))
        self._running = task
        try:
            await self._unless_dead(asyncio.shield(task))
            return task.result()
        except _UNREADABLE:
            self.end("was ended for sending what can't be read")
            raise Died(self.ending(), self._kind) from None

    async def interrupt(self, seconds: float) -> bool:
        """Interrupt the cell that runs; whether the kernel was idle within `seconds`."""
        if self._running is None or self._running.done():
            return self.alive
        if self._status() is None:  # with what it started, as a terminal does
            signal_group(self._process.pid, signal.SIGINT)
        died = asyncio.create_task(self._died.wait())
        await asyncio.wait(
            {self._running, died}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        died.cancel()
        return self._running.done() and self.alive

    async def read_file(self, path: str) -> bytes:
        """A file's content; see `Interpreter`."""
        return await in_thread(read_inside, self._folder(0), path)

    async def write_file(self, path: str, data: bytes) -> None:
        """Make or replace a file; see `Interpreter`."""
        await in_thread(write_inside, self._folder(0), path, data, self._owner)

    def close(self) -> None:
        """Kill the process and free sockets and files. May be called again."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
        if self._end.alive:
            self._loop.remove_reader(self._pidfd)
            self._died.set()
            self._client.stop_channels()
            self._end()
            self._held.clear()
            for fd in (self._pidfd, *self._ends):
                os.close(fd)
            if self._links is not None:
                self._links.cleanup()

    def _folder(self, number: int) -> HeldFolder:
        """The folder that code works in (0), and the one with the sockets (1). Raises `OSError`."""
        if not self._held:
            raise OSError("the kernel was closed")
        return self._held[number]

    async def _connect(self) -> None:
        """Wait until requests are answered and output arrives."""
        while not all(self._listens(port) for port in range(1, 6)):
            await asyncio.sleep(0.005)
        self._pin(1, 2)
        self._client.start_channels(stdin=False, hb=False, control=False)
        shell, iopub = self._client.shell_channel, self._client.iopub_channel
        while True:
            # Output that is published before our subscription arrived is lost; so ask until
            # both the answer and its output came.
            request = self._client.kernel_info()
            await _until(shell, request, "kernel_info_reply")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await _until(iopub, request, "status")
                    return

    def _listens(self, port: int) -> bool:
        with suppress(OSError):
            found = os.stat(f"k-{port}", dir_fd=self._folder(1).fd, follow_symlinks=False)
            return stat.S_ISSOCK(found.st_mode)
        return False

    def _pin(self, *ports: int) -> None:
        """Connect to the sockets that are there now, whatever code puts in their place: names of
        ours that lead to descriptors. Raises `Died`.
        """
        self._links = tempfile.TemporaryDirectory(prefix="c", dir=self.session_dir.parent)
        try:
            for port in ports:
                flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
                self._ends.append(os.open(f"k-{port}", flags, dir_fd=self._folder(1).fd))
                if not stat.S_ISSOCK(os.fstat(self._ends[-1]).st_mode):
                    raise OSError("that is no socket")
                os.symlink(f"/proc/self/fd/{self._ends[-1]}", f"{self._links.name}/k-{port}")
        except OSError:
            raise Died("exchanged its sockets") from None
        self._client.ip = f"{self._links.name}/k"

    async def _execute(self, code: str, output: CellOutput) -> CellError | None:
        # stop_on_error=False: or the first request after an interrupt comes back "aborted".
        request = self._client.execute(
            code, store_history=True, allow_stdin=False, stop_on_error=False
        )
        shown = asyncio.create_task(self._collect(request, output))
        try:
            content = await _until(self._client.shell_channel, request, "execute_reply")
            heard = -1
            while not shown.done() and heard < self._shown_messages:
                heard = self._shown_messages
                await asyncio.wait({shown}, timeout=IDLE_SECONDS)
            error = shown.result() if shown.done() else None
        finally:
            shown.cancel()
        for payload in content.get("payload") or ():
            if isinstance(payload, dict) and payload.get("source") == "page":
                output.page(str(dict(payload.get("data") or {}).get("text/plain", "")))
        if content.get("status") == "ok":
            if error is not None:  # shown by the cell itself, which then went on
                output.page(error.text)
            return None
        return error or CellError(str(content.get("ename", "")), str(content.get("evalue", "")))

    async def _collect(self, request: str, output: CellOutput) -> CellError | None:
        """Take in a cell's output until the kernel is idle again; the error it showed, if any."""
        channel = self._client.iopub_channel
        error: CellError | None = None
        while True:
            kind, content = await _next_answer(channel, request)
            self._shown_messages += 1
            if kind == "status" and content.get("execution_state") == "idle":
                return error
            if kind == "error":
                if error is not None:
                    output.page(error.text)
                text = "\n".join(str(line) for line in content.get("traceback", ()))
                error = CellError(str(content.get("ename", "")), text)
            else:
                output.add(kind, content)
            if output.received > FLOOD_CHARACTERS:
                self.end(f"was ended for showing more than {FLOOD_CHARACTERS:,} characters")

    async def _unless_dead(self, work: Awaitable[object]) -> None:
        """Wait for `work`; raises `Died` if the process ends first."""
        task = asyncio.ensure_future(work)
        died = asyncio.create_task(self._died.wait())
        try:
            await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() or (task.cancelled() and self._died.is_set()):
                raise Died(self.ending(), self._kind)
            task.result()
        finally:
            task.cancel()
            died.cancel()


async def _until(channel: Any, request: str, kind: str) -> dict[str, Any]:
    """The content of the first message of that kind which answers the request."""
    while True:
        got, content = await _next_answer(channel, request)
        if got == kind:
            return content


async def _next_answer(channel: Any, request: str) -> tuple[str, dict[str, Any]]:
    """The kind and content of the next message on a channel that answers the request."""
    while True:
        # A message that can't be read is passed over, as is one that belongs to an earlier cell
        # (a thread of which still prints).
        with suppress(*_UNREADABLE):
            message = await channel.get_msg()
            if message["parent_header"].get("msg_id") == request:
                return str(message["header"]["msg_type"]), dict(message["content"])

"""The owner's side of the sandbox: one zygote, a supervisor for each session, a worker in it.

See zygote.py and worker.py for the processes, walls.py for what surrounds them. Everything here
runs in the event loop: no thread, no call that waits.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ToolUnavailable
from ..interpreter import Died
from ..output import one_line
from ..processes import FIRST_GUEST, children, continue_trees, end_trees, halt_trees
from ..programs import child_environment, python_program
from ..walls.walls import Walls
from .channel import pipes, read_available, read_packet, send_with
from .remote import ANSWER_SECONDS, RemoteWorker

__all__ = ["RemoteZygote", "SandboxSession"]

START_SECONDS = 300.0
"""A zygote that died is known to be dead at once: this is for one that hangs, and a machine may be
busy enough for its imports to take minutes."""


class RemoteZygote:
    """The process that sessions are forked from. Made by `start`; freed by `close`."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._asking = asyncio.Lock()
        self._asked = deque[asyncio.Future[dict[str, Any]]]()
        """What is not answered yet: answers come in order, also those nobody waits for any more."""
        self._loop.add_reader(control.fileno(), self._on_reply)
        self._end = weakref.finalize(self, _end_zygote, process, control, os.getpid())

    @classmethod
    async def start(
        cls, walls: Walls, folder: Path, settings: Mapping[str, Any], variables: Mapping[str, str]
    ) -> "RemoteZygote":
        """Start a zygote and wait until it has proved its walls.

        Raises `ToolUnavailable`, and `OSError` where no process can be started at all.
        """
        control, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        environment = child_environment(folder, variables)
        owner = environment.pop("JPY_PARENT_PID")
        with its_end, contextlib.ExitStack() as undo:
            undo.callback(control.close)
            process = subprocess.Popen(
                python_program("sandbox.zygote", str(its_end.fileno())),
                cwd="/",
                env=environment,
                pass_fds=[its_end.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            undo.pop_all()
        zygote = cls(process, control)
        try:
            settings = {**settings, "walls": asdict(walls), "owner": int(owner)}
            async with asyncio.timeout(START_SECONDS):
                answer = await zygote._ask(settings)
        except (OSError, TimeoutError) as error:
            answer = {"failed": str(error) or f"no answer in {START_SECONDS:g} s"}
        except BaseException:
            zygote.close()
            raise
        if "ready" not in answer:
            zygote.close()
            raise ToolUnavailable(str(answer.get("failed", "its process ended")))
        return zygote

    @property
    def alive(self) -> bool:
        """True if sessions can be forked."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def session(self, walls: Walls, user: int, folder: Path) -> "SandboxSession":
        """Fork a supervisor with its walls around it, which forks a worker for the folder `work`.

        Raises `ToolUnavailable`, and `OSError` where too many files are open.
        """
        link, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_end, contextlib.ExitStack() as undo:
            undo.callback(link.close)  # at which the supervisor, if there will be one, ends
            link.setblocking(False)
            channel, output, fds = pipes()
            undo.callback(os.close, output)
            undo.callback(channel.close)
            request = {"user": user, "folder": str(folder)}
            try:
                async with self._asking, asyncio.timeout(ANSWER_SECONDS):
                    answer = await self._ask(request, [its_end.fileno(), *fds])
                if "failed" in answer:
                    raise OSError(one_line(answer["failed"]))
                supervisor = _number(answer["supervisor"], least=FIRST_GUEST)
                session = SandboxSession(link, supervisor, walls, (channel, output))
            except (OSError, TimeoutError, LookupError, ValueError) as error:
                raise ToolUnavailable(f"a Python session can't be started: {error!r}") from error
            finally:
                for fd in fds:
                    os.close(fd)
            undo.pop_all()
        return session

    def close(self) -> None:
        """End the process, and with it every session. May be called again."""
        if self._end.alive:
            self._loop.remove_reader(self._control.fileno())
            self._end()

    async def _ask(self, request: Mapping[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """The answer to this request; empty if the process ended. Raises `OSError`."""
        send_with(self._control, json.dumps(request).encode(), fds)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._asked.append(answer)
        return await answer

    def _on_reply(self) -> None:
        data = read_available(self._control.recv)
        if data is None:
            return
        if not data:
            self._loop.remove_reader(self._control.fileno())
        while self._asked:
            asked = self._asked.popleft()
            if not asked.done():
                asked.set_result(read_packet(data))
            if data:
                break


class SandboxSession:
    """A supervisor and the workers under it: the first, what replaced it, and their copies."""

    def __init__(
        self,
        link: socket.socket,
        supervisor: int,
        walls: Walls,
        first: tuple[socket.socket, int] | None = None,
    ) -> None:
        self.walls = walls
        self.supervisor = supervisor
        self.copies = 1
        """How many copies of the session are open; the last one to leave ends it."""
        self.workers: set[RemoteWorker] = set()
        self.session_dir: Path | None = None
        """Where its files are, if they are in the host's file system."""
        self._link = link
        self._first = first
        """The channel and the output pipe of the worker it starts with, until that is asked for."""
        self._loop = asyncio.get_running_loop()
        self._copies = itertools.count(1)
        self._killed: set[int] = set()
        """Processes that are dying, which takes a while on a busy machine: they count no more."""
        self._halted: set[int] = set()
        """Processes that were stopped, and run again from the next request on."""
        handle = os.pidfd_open(supervisor)
        alone = walls.tier == "full"
        self._end = weakref.finalize(
            self, _end_session, link, supervisor, handle, alone, os.getpid()
        )
        self._loop.add_reader(link.fileno(), self._on_report)

    @property
    def alive(self) -> bool:
        """True if workers can be started."""
        return self._end.alive

    async def worker(self, folder: str) -> "RemoteWorker":
        """A worker with nothing defined yet, in the folder; the first is in `work`.

        Raises `ToolUnavailable`.
        """
        if self._first is not None:
            (channel, output), self._first = self._first, None
        else:
            channel, output = self._ask_for_worker(folder)
        worker = RemoteWorker(self, channel, output, folder)
        try:
            await worker.greeted()
        except Died as died:
            worker.close()
            raise ToolUnavailable(f"a Python process can't be started: it {died}") from None
        except BaseException:
            worker.close()
            raise
        return worker

    def _ask_for_worker(self, folder: str) -> tuple[socket.socket, int]:
        """Have the supervisor fork another worker; the channel and the output pipe that it gets."""
        try:
            channel, output, fds = pipes()
        except OSError as error:  # too many open files
            raise ToolUnavailable(f"a Python process can't be started: {error}") from error
        try:
            send_with(self._link, json.dumps({"folder": folder}).encode(), fds)
        except OSError as error:
            channel.close()
            os.close(output)
            raise ToolUnavailable(f"a Python process can't be started: {error}") from error
        finally:
            for fd in fds:
                os.close(fd)
        return channel, output

    def next_folder(self, folder: str) -> str:
        """The folder of the next copy of the worker in `folder`."""
        return str(Path(folder).parent / "forks" / str(next(self._copies)) / "work")

    def orphans(self) -> set[int]:
        """The supervisor's processes that are not workers: those a worker left, or sent away.

        Code can have its processes adopted by the supervisor at once, so as not to be found below
        its worker; whose they are can't be told then.
        """
        known = {worker.pid for worker in self.workers}
        if not self.alive or 0 in known:  # one that is about to say hello is no stray
            return set()
        found = set(children(self.supervisor))
        self._killed &= found
        return found - known - self._killed

    def halt(self) -> bool:
        """Stop all that runs in it, unless a worker has a request; True once nothing runs."""
        if any(worker.busy for worker in self.workers):
            return False
        return halt_trees(self._roots(), self._halted)

    def resume(self, worker: "RemoteWorker") -> None:
        """Let all that was stopped run again, for a request to this worker."""
        if self._halted == {worker.pid}:
            worker.signal(signal.SIGCONT)
            self._halted.clear()
        elif self._halted:
            continue_trees(self._roots(), self._halted)

    def _roots(self) -> list[int]:
        return [*(worker.pid for worker in self.workers if worker.alive), *self.orphans()]

    def end_worker(self, worker: "RemoteWorker") -> None:
        """Kill a worker and all that it started, and what earlier workers left behind."""
        roots = {worker.pid} if worker.signal(signal.SIGSTOP) else set()
        self._killed |= end_trees(roots | self.orphans())

    def close(self) -> None:
        """End every process of the session. May be called again."""
        if self._end.alive:
            self._loop.remove_reader(self._link.fileno())
            self._end()
        if self._first is not None:
            self._first[0].close()
            os.close(self._first[1])
            self._first = None
        for worker in list(self.workers):
            worker.close()

    def _on_report(self) -> None:
        data = read_available(self._link.recv)
        if data is None:
            return
        if not data:
            self._fail("its keeper ended")
            return
        message = read_packet(data)
        try:
            ended = _number(message["ended"]), _number(message["status"])
        except (ValueError, LookupError):
            self._fail(one_line(message.get("failed", "its keeper said what can't be read")))
            return
        for worker in list(self.workers):
            worker.note_end(*ended)

    def _fail(self, why: str) -> None:
        for worker in list(self.workers):
            worker.note_failure(why)
        self.close()


def _number(value: object, least: int = 0) -> int:
    """A number of a process, or what waiting for one gave. Raises `ValueError`."""
    if not isinstance(value, int) or not least <= value < 2**31:
        raise ValueError(f"{value!r:.40} is no number of a process")
    return value


def _end_zygote(process: subprocess.Popen[bytes], control: socket.socket, owner: int) -> None:
    control.close()
    if os.getpid() == owner:
        process.kill()
        process.wait()


def _end_session(
    link: socket.socket, supervisor: int, handle: int, alone: bool, owner: int
) -> None:
    if os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGSTOP)  # fails if its number is not its own
            if not alone:
                end_trees([supervisor])
            # The kernel ends a process namespace together with its first process.
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    link.close()
    os.close(handle)

"""The worker: the process in which a session's cells run.

It answers one request after another over its channel. What a cell shows as text goes into the
output pipe, to which the file descriptors 1 and 2 lead as well. Before each message about that
cell a mark is written into the pipe, so that the reader can put text and messages in their order.

The code that runs here can change all of this process: whoever reads the channel trusts nothing.
"""

import asyncio
import base64
import contextvars
import fcntl
import json
import os
import random
import resource
import selectors
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from .. import notebook
from ..files import HeldFolder, read_inside, write_inside
from ..walls import namespaces, walls
from . import cells, forking
from .channel import frame, received_descriptors

__all__ = ["WorkerMain", "fail"]

CHANNEL, OUTPUT = 3, 4
"""The file descriptors that a worker has beside 0, 1 and 2."""
LONGEST_MESSAGE = 12_000_000


def fail(channel: int, text: str) -> None:
    """Tell the owner that this process can't be a worker."""
    with suppress(OSError):
        os.write(channel, frame({"kind": "failed", "content": text}))


class CellLoop(asyncio.SelectorEventLoop):
    """An event loop whose descriptors are opened when they are first needed. Most cells await
    nothing; and forks can't share what one of them registers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.put_away()

    def put_away(self) -> None:
        """Close the descriptors: this process is about to fork, or was forked. Tasks are kept."""
        if "_selector" in vars(self):
            for each in ("_selector", "_ssock", "_csock"):
                getattr(self, each).close()
                delattr(self, each)
            self._internal_fds = 0

    def __getattr__(self, name: str) -> Any:
        if name not in ("_selector", "_ssock", "_csock"):
            raise AttributeError(name)
        self._selector = selectors.DefaultSelector()
        self._make_self_pipe()
        return getattr(self, name)

    def run_at_once(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine that awaits nothing as if this loop ran it, and return its result.

        It may start tasks: each gets its first step, as after one round of the loop.
        """
        self._thread_id: int | None = threading.get_ident()
        asyncio._set_running_loop(self)
        try:
            return cells.run_at_once(work)
        finally:
            self._thread_id = None
            asyncio._set_running_loop(None)
            if not self.idle:
                self.call_soon(self.stop)
                self.run_forever()

    @property
    def idle(self) -> bool:
        """True if nothing is left to run, by an earlier cell, and nothing is waited for."""
        watched = self._selector.get_map() if "_selector" in vars(self) else ()
        return not self._ready and not self._scheduled and len(watched) <= self._internal_fds


class WorkerMain:
    """Serves one channel.

    The zygote makes it, with all that workers can share: made in each worker, that would take time
    there, and memory that no other process shares.
    """

    def __init__(self, shell: cells.CellShell, around: walls.Walls) -> None:
        self._shell = shell
        self._walls = around
        self._session = self._folder = ""
        self._supervisor = self._pid = 0
        self._received = b""
        self._held = b""
        """Messages that are sent with the next one."""
        self._fds: list[int] = []
        self._mark = b""
        self._id = ""
        self._in_cell = False
        self._loop = CellLoop()
        asyncio.set_event_loop(self._loop)
        self._context = contextvars.copy_context()
        """What cells set in it (the precision of `decimal`, say) later cells find."""
        self._streams = {
            "stdout": cells.CellStream("stdout", OUTPUT, 1),
            "stderr": cells.CellStream("stderr", OUTPUT, 2),
        }
        shell.sink = self
        if around.tier == "full":  # in which all sessions have the same names for their folders
            _set_up_environment(namespaces.SESSION)
        walls.prepare(around)
        for _ in range(cells.WARM_UPS):
            _reseed()

    def begin(self, channel: int, output: int, session: str, folder: str) -> NoReturn:
        """Be a worker of the session whose files are in `session`, and work in its `folder`."""
        _arrange_descriptors(channel, output)
        self._channel = socket.socket(fileno=CHANNEL)
        self._session, self._folder = session, f"{session}/{folder}"
        os.makedirs(self._folder, exist_ok=True)
        os.chdir(self._folder)
        notebook.Cell.workdir = os.getcwd()
        if self._walls.tier != "full":
            _set_up_environment(session)
        walls.confine(self._walls, session)
        if folder != "work":
            walls.confine_branch(self._walls, session, os.path.dirname(self._folder))
        sys.path.insert(0, "")  # not before: earlier code may have left modules there
        _reseed()
        for name, stream in self._streams.items():
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        self._supervisor = os.getppid()
        self.serve()

    def serve(self) -> NoReturn:
        """Answer requests until there is nobody left to answer."""
        self._pid = os.getpid()
        signal.signal(signal.SIGINT, self._on_interrupt)
        self._held = frame({"kind": "hello", "content": os.getpid()})
        self._send()
        while True:
            request = self._receive()
            self._id = request["id"]
            self._mark = f"\0{self._id}\0".encode()
            if request["do"] == "run":
                self._run(request["code"])
            elif request["do"] == "fork":
                self._fork(f"{self._session}/{request['folder']}")
            else:
                self._answer(request)

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send a message whose place is after all that was printed so far."""
        if notebook.Cell.of_thread() != notebook.Cell.current:
            return
        os.write(OUTPUT, self._mark)
        message = frame({"kind": kind, "id": self._id, "content": content})
        if len(message) > LONGEST_MESSAGE:
            note = {"text/plain": "[a display that is too large to be shown]"}
            message = frame({"kind": kind, "id": self._id, "content": {"data": note}})
        self._held += message
        if kind != "execute_result":  # after which the end of the cell follows at once
            self._send()

    def _run(self, code: str) -> None:
        notebook.Cell.current += 1
        signal.signal(signal.SIGINT, self._on_interrupt)
        failure: tuple[str, str] | None
        self._in_cell = True
        try:
            failure = self._run_cell(*self._shell.start(code))
        except (KeyboardInterrupt, asyncio.CancelledError, Exception) as error:
            failure = (type(error).__name__, "")  # e.g. an exception whose own __str__ raises
        finally:
            self._in_cell = False
            notebook.give_back(self._streams)
        if os.getpid() != self._pid:  # a child that the cell forked and forgot: not its to answer
            os._exit(0)
        self.show("done", {"error": failure})

    def _run_cell(self, waits: bool, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell; in the event loop, only if that has anything else to do."""
        if waits or not self._loop.idle:
            task = self._loop.create_task(work, context=self._context)
            try:
                return self._loop.run_until_complete(task)
            finally:  # or one that was interrupted is complained of, later
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if task.done() and not task.cancelled():
                    task.exception()
        return self._context.run(self._loop.run_at_once, work)

    def _on_interrupt(self, *_: "int | FrameType | None") -> None:
        if self._in_cell:
            raise KeyboardInterrupt

    # -- copies ----------------------------------------------------------------------------------

    def _fork(self, folder: str) -> None:
        """Fork into a branch that serves the channel that came with the request."""
        channel, output = self._fds
        self._fds = []
        try:
            why = self._unforkable()
            if why:
                self.show("done", {"refused": why})
                return
            state = random.getstate()  # each fork seeds it again
            # As an orphan the branch would become the supervisor's child as well; but that takes a
            # process in between, for which all page tables are copied once more.
            if not forking.fork(forking.CLONE_PARENT):
                random.setstate(state)
                self._become_branch(channel, output, folder)
            self.show("done", {"refused": ""})
        except OSError as error:  # no more processes, or no memory for one
            self.show("done", {"refused": str(error)})
        finally:
            os.close(channel)
            os.close(output)

    def _unforkable(self) -> str:
        threads = [t.name for t in threading.enumerate() if t is not threading.current_thread()]
        if threads:
            return f"threads are alive in it: {', '.join(threads[:5])}"
        cleanup = getattr(subprocess, "_cleanup", None)
        if cleanup is not None:
            cleanup()
        with suppress(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return "programs that it started are alive, or were not waited for"
        return ""

    def _become_branch(self, channel: int, output: int, folder: str) -> None:
        try:
            os.setsid()
            walls.die_with(self._supervisor)
            where = os.getcwd() + "/"
            _copy(self._folder, folder)
            os.chdir(folder)
            before, notebook.Cell.workdir = notebook.Cell.workdir, os.getcwd()
            if where.startswith(before + "/"):
                os.chdir(folder + where[len(before) :])
            else:
                os.chdir(where)
            walls.confine_branch(self._walls, self._session, os.path.dirname(folder))
            self._folder = folder
            os.dup2(channel, CHANNEL)
            for fd in (OUTPUT, 1, 2):
                os.dup2(output, fd, inheritable=fd != OUTPUT)
            os.close(channel)
            os.close(output)
            self._received = b""
            self._loop.put_away()
        except BaseException:
            fail(channel, traceback.format_exc())
            os._exit(1)
        self.serve()

    # -- files -----------------------------------------------------------------------------------

    def _answer(self, request: Mapping[str, str]) -> None:
        data = b""
        try:
            # By its name, unlike elsewhere: behind its walls it leads to nothing but its own.
            folder = HeldFolder(self._folder)
            if request["do"] == "read":
                data = read_inside(folder, request["path"])
            else:
                write_inside(folder, request["path"], base64.b64decode(request["data"]))
            self.show("done", {"data": base64.b64encode(data).decode()})
        except Exception as error:
            self.show("done", {"failed": str(error) or type(error).__name__})

    # -- the channel -----------------------------------------------------------------------------

    def _send(self) -> None:
        view = memoryview(self._held)
        self._held = b""
        while view:
            view = view[os.write(CHANNEL, view) :]

    def _receive(self) -> dict[str, Any]:
        """The next request; the file descriptors that came with it are in `_fds`."""
        self._fill(4)
        (size,) = struct.unpack(">I", self._received[:4])
        self._fill(4 + size)
        data, self._received = self._received[4 : 4 + size], self._received[4 + size :]
        request: dict[str, Any] = json.loads(data)
        return request

    def _fill(self, size: int) -> None:
        parts, have = [self._received], len(self._received)
        while have < size:
            data, ancillary, _, _ = self._channel.recvmsg(1 << 20, socket.CMSG_SPACE(8))
            if not data:
                os._exit(0)
            self._fds += received_descriptors(ancillary)
            parts.append(data)
            have += len(data)
        self._received = b"".join(parts)


def _arrange_descriptors(channel: int, output: int) -> None:
    """Put the file descriptors where they belong and close all others."""
    kept = [os.dup(fd) for fd in (channel, output)]
    kept = [_above(fd) for fd in kept]
    null = _above(os.open(os.devnull, os.O_RDWR))
    for source, target in ((null, 0), (kept[1], 1), (kept[1], 2)):
        os.dup2(source, target, inheritable=True)
    os.dup2(kept[0], CHANNEL, inheritable=False)
    os.dup2(kept[1], OUTPUT, inheritable=False)
    os.closerange(OUTPUT + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _above(fd: int) -> int:
    """The same file, at a number that nothing is about to be put on."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)


def _set_up_environment(session: str) -> None:
    home = f"{session}/home"
    os.environ["HOME"] = home
    os.environ["TMPDIR"] = f"{session}/tmp"
    os.environ["IPYTHONDIR"] = f"{home}/.ipython"
    os.environ["MPLCONFIGDIR"] = f"{home}/.matplotlib"
    for kind in ("CONFIG", "DATA", "RUNTIME"):
        os.environ[f"JUPYTER_{kind}_DIR"] = f"{home}/.jupyter"
    tempfile.tempdir = None  # or it stays what it was for the zygote


def _reseed() -> None:
    """Give every session random numbers of its own: forks of one process start alike.

    Those of `random` itself are seeded by each fork.
    """
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(random.getrandbits(32))  # which takes a tenth of the time that seed() does
    sympy = sys.modules.get("sympy.core.random")
    if sympy is not None:
        sympy.rng.seed()


def _copy(old: str, new: str) -> None:
    """Copy a working directory; what is neither file, folder nor link is left out."""

    def special(folder: str, names: list[str]) -> list[str]:
        modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
        kinds = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
        return [name for name, mode in modes.items() if not any(kind(mode) for kind in kinds)]

    os.makedirs(os.path.dirname(new), exist_ok=True)
    if os.listdir(old):
        shutil.copytree(old, new, symlinks=True, ignore=special)
    else:
        os.mkdir(new, stat.S_IMODE(os.stat(old).st_mode))

"""The zygote: a process that has everything imported, and is forked for each session.

It runs no user code and sees no user data: it stays what it is at the start, single-threaded, and
waits for its owner's word. For each session it forks a supervisor, which is at the session's
root and forks the workers (see worker.py) that run cells: the first one, and another whenever one
had to be killed. The supervisor runs no user code either; when it goes, all in its session goes.

Both speak with the owner over sockets they inherit or are sent, one JSON object a message.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from .. import processes
from ..walls import namespaces, walls
from ..walls.self_test import failure_in_child, self_test
from . import cells, forking, worker
from .channel import received_descriptors

__all__ = ["main"]

MESSAGE = 65_536
HUGE_PAGE, MADV_COLLAPSE = 2 << 20, 25
FOLDERS = ("work", *walls.SHARED)


def main(fd: str) -> None:
    """Hear the settings from the socket `fd`, get ready, say so, and serve until the end."""
    control = socket.socket(fileno=int(fd))
    settings, _ = _received(control)
    if not settings:
        return
    try:
        zygote = ZygoteMain(control, json.loads(settings))
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        _send(control, {"failed": text})
        raise
    _send(control, {"ready": os.getpid()})
    zygote.serve()


class ZygoteMain:
    """The process that supervisors are forked from: imports, root and proof of the walls, once."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        walls.die_with(settings["owner"])
        self._control = control
        # What most code uses; sympy imports numpy.random late, if ever.
        for name in ("numpy.random", "sympy", *settings["modules"]):
            importlib.import_module(name)
        shell = cells.make_shell(settings["profile"], settings["walls"]["characters"])
        raw = {**settings["walls"], "readable": tuple(settings["walls"]["readable"])}
        pages = processes.read_field(os.getpid(), "statm", 0)
        # What is mapped already comes on top of what a session may ask for.
        raw["memory"] += pages * resource.getpagesize()
        self._walls = walls.Walls(**raw)
        self._worker = worker.WorkerMain(shell, self._walls)
        if self._walls.tier == "full":
            if os.geteuid():
                namespaces.new_user_namespace(os.geteuid())
                walls.die_with(settings["owner"])  # a change of privilege undoes it
            namespaces.build_root(self._walls.readable, self._walls.fonts)
        gc.collect()
        for _ in range(cells.WARM_UPS):
            forking.rehearse()
        gc.freeze()
        _use_huge_pages()
        if self._walls.tier != "none":
            self._prove(settings["canary"], settings["trial_user"], settings["trial_folder"])

    def serve(self) -> None:
        """Fork a supervisor for each message; exit when the owner does.

        The loop does little: a page that it writes to is shared no more, since the supervisor that
        was forked before keeps the page as it was, and the next one gets it as it is now.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors
        while True:
            data, fds = _received(self._control)
            if not data:
                os._exit(0)
            try:
                answer = b'{"supervisor": %d}' % self._fork_supervisor(data, *fds)
            except OSError as error:  # no more processes or namespaces; the sessions live on
                answer = json.dumps({"failed": str(error)}).encode()
            self._control.send(answer)
            for fd in fds:
                os.close(fd)

    def _fork_supervisor(self, session: bytes, link_fd: int, channel: int, output: int) -> int:
        parent = os.getpid()
        pid = self._fork()
        if pid:
            return pid
        link = socket.socket(fileno=link_fd)
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            settings = json.loads(session)
            supervisor = Supervisor(link, self._walls, self._worker, settings, parent)
            supervisor.serve(channel, output)
        except BaseException as error:
            _send(link, {"failed": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(1)

    def _fork(self) -> int:
        """Fork; the child is the first process of its own namespace, where there are any."""
        return forking.fork(namespaces.NEWPID if self._walls.tier == "full" else 0)

    def _prove(self, canary: str, user: int, folder: str) -> None:
        """Raise the walls around a child, and see whether it can get out. Raises `OSError`."""
        outsider = os.getpid()

        def trial() -> None:
            walls.set_dumpable(True)
            Supervisor.enclose(self._walls, user)
            walls.confine(self._walls, _session_folder(self._walls, folder))
            self_test(canary, outsider)
            with open(os.__file__, "rb"), open(sys.executable, "rb"):
                pass  # what every cell needs can be seen

        why = failure_in_child(trial, self._fork)
        if why:
            raise OSError(why)


class Supervisor:
    """The process at a session's root: starts workers and says how they ended."""

    def __init__(
        self,
        link: socket.socket,
        around: walls.Walls,
        first: worker.WorkerMain,
        session: dict[str, Any],
        parent: int,
    ) -> None:
        self._link = link
        self._walls = around
        self._worker = first
        self._user: int = session["user"]
        self._folder = _session_folder(around, session["folder"])
        os.setsid()
        if around.tier == "full":
            namespaces.enter()
            namespaces.mount_session(self._user, around.disk, around.files)
            parent = 0  # which is outside of the process namespace
        self._make_folders(namespaces.FONTS if around.tier == "full" else around.fonts)
        if around.tier == "full":
            namespaces.show_temporary()
            self.enclose(around, self._user, entered=True)
            walls.die_with(parent)  # the kernel ends a process namespace with its first process
        else:
            signal.signal(signal.SIGTERM, self._end_all)
            walls.die_with(parent, signal.SIGTERM)
        walls.set_dumpable(False)

    @staticmethod
    def enclose(around: walls.Walls, user: int, entered: bool = False) -> None:
        """Leave the outside behind and give up privilege."""
        if around.tier == "full" and not entered:
            namespaces.enter()
            namespaces.mount_session(user, around.disk, around.files)
        walls.drop_privileges(around, user)

    def serve(self, channel: int, output: int) -> None:
        """Start a worker, and others when asked to; when the owner is gone, go, and take everything
        along.
        """
        signal.signal(signal.SIGCHLD, self._report)
        self._fork_worker(channel, output, "work")
        while True:
            message, fds = _received(self._link)
            if not message:
                self._end_all()
            self._fork_worker(fds[0], fds[1], json.loads(message)["folder"])

    def _fork_worker(self, channel: int, output: int, folder: str) -> None:
        supervisor = os.getpid()
        try:
            worker_pid = os.fork()
        except OSError as error:
            worker.fail(channel, str(error))
            worker_pid = -1
        if worker_pid:
            os.close(channel)
            os.close(output)
            return
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._link.close()
            walls.set_dumpable(True)
            if self._walls.tier != "full":
                walls.drop_privileges(self._walls, self._user)
            os.setsid()
            walls.die_with(supervisor)
            self._worker.begin(channel, output, self._folder, folder)
        except BaseException:
            worker.fail(channel, traceback.format_exc())
        finally:
            os._exit(1)

    def _report(self, *_: object) -> None:
        """Reap children, and tell the owner how each ended."""
        for pid, status in _ended():
            with suppress(OSError):
                _send(self._link, {"ended": pid, "status": status})

    def _end_all(self, *_: object) -> NoReturn:
        """Kill every other process of the session, and go."""
        if self._walls.tier != "full":
            processes.end_trees(processes.descendants(os.getpid()))
        os._exit(0)

    def _make_folders(self, fonts: str) -> None:
        for name in FOLDERS:
            path = os.path.join(self._folder, name)
            os.makedirs(path, mode=0o700, exist_ok=True)
        # Without its list of fonts matplotlib spends seconds making one in each session.
        matplotlib = os.path.join(self._folder, "home", ".matplotlib")
        os.makedirs(matplotlib, exist_ok=True)
        with suppress(OSError):
            for name in os.listdir(fonts):
                os.symlink(os.path.join(fonts, name), os.path.join(matplotlib, name))
        if self._walls.own_user:
            for path in (self._folder, *(f"{self._folder}/{name}" for name in FOLDERS), matplotlib):
                os.chown(path, self._user, self._user)


def _use_huge_pages() -> None:
    """Put this process's memory into pages of 2 MB, where the kernel can (Linux 6.1).

    A fork then copies some 30 entries of the page tables, not one for each 4 kB of all that was
    imported. What a session writes to is still copied 4 kB at a time.
    """
    libc = ctypes.CDLL(None)
    with open("/proc/self/maps", "rb") as maps:
        areas = [line.split() for line in maps]
    for where, rights, _, _, _, *name in areas:
        start, end = (int(part, 16) for part in where.split(b"-"))
        start = -(-start // HUGE_PAGE) * HUGE_PAGE
        size = (end - start) // HUGE_PAGE * HUGE_PAGE
        if rights == b"rw-p" and name in ([], [b"[heap]"]) and size > 0:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), MADV_COLLAPSE)


def _session_folder(around: walls.Walls, folder: str) -> str:
    return namespaces.SESSION if around.tier == "full" else folder


def _ended() -> list[tuple[int, int]]:
    """Reap the children that ended: their numbers, and how."""
    ended = []
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended.append((pid, status))
    return ended


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    link.send(json.dumps(message).encode())


def _received(link: socket.socket) -> tuple[bytes, list[int]]:
    """The next message and the file descriptors that came with it; both are empty at the end."""
    try:
        data, ancillary, _, _ = link.recvmsg(MESSAGE, socket.CMSG_SPACE(8 * 4))
    except OSError:
        return b"", []
    return data, received_descriptors(ancillary)

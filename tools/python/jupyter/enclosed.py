"""A jupyter kernel in its own place: the walls of the tier `full` around one program.

Three processes: the launcher, which its owner started and which ends as the kernel ends; the first
process of the session's process namespace, with which all in it end; the kernel. It speaks with
its owner over sockets in the session's folder, which is one folder inside and outside.
"""

import json
import os
import resource
import signal
import traceback
from functools import partial
from typing import Any, NoReturn

from ..walls import namespaces, walls
from ..walls.self_test import failure_in_child, self_test
from . import kernel  # now: its file can't be seen from inside

__all__ = ["TRIED", "main"]

TRIED = b"the walls hold"
"""The output of a trial that went well: its status is lost where an owner ignores SIGCHLD."""
HEADROOM = 600_000_000
"""Bytes of address space that a kernel's threads reserve without using them."""


def main(described: str) -> None:
    """Run the kernel that is described as JSON; end as it ends."""
    settings: dict[str, Any] = json.loads(described)
    sockets = os.open(settings["sockets"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    raw = {**settings["walls"], "readable": tuple(settings["walls"]["readable"])}
    raw["memory"] += HEADROOM
    try:
        status = _enclosed(walls.Walls(**raw), settings, sockets)
    except BaseException:
        _fail(sockets)
    _end_as(status)


def _enclosed(around: walls.Walls, settings: dict[str, Any], sockets: int) -> int:
    """Build the view, run a kernel in it and say how it ended. Raises `OSError`."""
    if os.geteuid():
        namespaces.new_user_namespace(os.geteuid())
    walls.die_with(settings["owner"])
    namespaces.build_root(around.readable, around.fonts, session=settings["session_dir"])
    namespaces.unshare(namespaces.NEWPID, "process namespace")
    outsider = os.getpid()
    reading, writing = os.pipe()
    first = os.fork()
    if not first:
        try:
            os.close(reading)
            namespaces.enter()
            namespaces.show_temporary()
            walls.drop_privileges(around, settings["user"])
            walls.die_with(0)
            why = failure_in_child(partial(_try_walls, around, settings["canary"], outsider))
            if why:
                raise OSError(why)
            if not settings["arguments"]:
                os.write(1, TRIED)
                os._exit(0)
            _keep(around, settings["arguments"], writing)
        except BaseException:
            _fail(sockets)
    os.close(writing)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the kernel, which is in this group
    with open(reading, "rb") as answer:
        status = answer.read()
    ended = os.waitpid(first, 0)[1]
    return int(status) if status else ended


def _try_walls(around: walls.Walls, canary: str, outsider: int) -> None:
    """Be walled in as the kernel will be, and try to get out. Raises `OSError`."""
    walls.confine(around, namespaces.SESSION)
    self_test(canary, outsider)


def _keep(around: walls.Walls, arguments: list[str], writing: int) -> NoReturn:
    """Start the kernel, reap whatever ends, and go when the kernel does, with all the others."""
    pid = os.fork()
    if not pid:
        try:
            os.close(writing)
            walls.die_with(1)
            os.chdir(f"{namespaces.SESSION}/work")
            # A folder's number alone is no way out, but nothing is left open that need not be.
            os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            walls.confine(around, namespaces.SESSION)
            kernel.main(*arguments)
        finally:
            os._exit(1)
    walls.set_dumpable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            os.write(writing, str(status).encode())
            os._exit(0)


def _fail(sockets: int) -> NoReturn:
    """Leave the reason where the owner looks for it."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_EXCL
    with open(os.open("failure", flags, 0o600, dir_fd=sockets), "w") as file:
        file.write(traceback.format_exc())
    os._exit(1)


def _end_as(status: int) -> NoReturn:
    """End this process as another one did."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        walls.lower_limit(resource.RLIMIT_CORE, 1)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)

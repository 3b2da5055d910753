"""The proof that walls hold: a process within them tries to get out.

Each trial has its own process, forked for it: no wall can be taken down again.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Callable

from .namespaces import NEWUSER
from .walls import CAPABILITY_VERSION_3

__all__ = ["failure_in_child", "self_test"]

_libc = ctypes.CDLL(None, use_errno=True)


def failure_in_child(trial: Callable[[], object], fork: Callable[[], int] = os.fork) -> str:
    """Run a trial in a child process; why it failed, or "" if it did not.

    `fork` returns the child's number, and 0 in the child.
    """
    reading, writing = os.pipe()
    child = fork()
    if not child:
        try:
            trial()
            answer = "\0"  # no error's text
        except BaseException as error:
            answer = str(error) or type(error).__name__
        os.write(writing, answer.encode(errors="replace"))
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read().decode(errors="replace")
    os.waitpid(child, 0)
    return "" if answer == "\0" else answer or "the process that tried it died"


def self_test(canary: str, outsider: int) -> None:
    """Try what no code in here may do. Raises `OSError` that names what it could do.

    `canary` is a file outside that all may read, `outsider` a process outside.
    """
    attempts: dict[str, Callable[[], object]] = {
        "read a file outside": lambda: open(canary).close(),
        "make a file outside": lambda: open(canary + ".new", "w").close(),
        "list files outside": lambda: _list(os.path.dirname(canary)),
        "see other processes": lambda: _list(f"/proc/{outsider}"),
        "signal a process outside": lambda: os.kill(outsider, 0),
        # This sends nothing, and fails where no route leads out.
        "reach the network": lambda: socket.socket(type=socket.SOCK_DGRAM).connect(
            ("192.0.2.1", 9)
        ),
        "make namespaces": lambda: _succeeds(_libc.unshare(NEWUSER)),
        "trace processes": lambda: _succeeds(_libc.ptrace(0, 0, 0, 0)),
        "become another user": lambda: os.setuid(0 if os.getuid() else 1),
        "keep capabilities": _use_capabilities,
    }
    holes = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        holes.append(what)
    if holes:
        raise OSError(f"code could {', '.join(holes)}")


def _list(folder: str) -> None:
    if not os.listdir(folder):
        raise OSError("nothing is shown there")


def _succeeds(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "refused")


def _use_capabilities() -> None:
    data = ctypes.create_string_buffer(24)
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    if _libc.capget(header, data) or not any(data.raw):
        raise OSError("there are none")

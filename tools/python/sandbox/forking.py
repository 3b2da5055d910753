"""Forks that `os.fork` can't make: of a sibling, or into a new process namespace."""

import ctypes
import functools
import os
import signal

from ..walls.seccomp import numbers

__all__ = ["CLONE_PARENT", "fork", "rehearse"]

PR_GET_TID_ADDRESS = 40
CLONE_PARENT, CLONE_CHILD_CLEARTID, CLONE_CHILD_SETTID = 0x8000, 0x200000, 0x1000000
_python = ctypes.pythonapi
_libc = ctypes.PyDLL(None, use_errno=True)  # one that keeps the interpreter's lock, over a fork too


def fork(flags: int) -> int:
    """Fork, with these flags of clone(2): 0 in the child, its number here. Raises `OSError`.

    Handlers of pthread_atfork(3) are not run: they are for processes with several threads, and
    this one has one.
    """
    arguments = _arguments(flags)
    _python.PyOS_BeforeFork()  # as `os.fork` does
    pid = int(_libc.syscall(*arguments))
    if pid:
        _python.PyOS_AfterFork_Parent()
    else:
        _python.PyOS_AfterFork_Child()
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return pid


def rehearse() -> None:
    """Run what each child runs first, as if this process had just been forked.

    Python adapts code in its first runs, which would otherwise be those in each child; and each
    page that a child writes to is one that it no longer shares.
    """
    _python.PyOS_BeforeFork()
    _python.PyOS_AfterFork_Child()


@functools.cache
def _arguments(flags: int) -> tuple[object, ...]:
    """The arguments of syscall(2) for a fork with these flags."""
    own_thread = ctypes.c_void_p()  # where the C library keeps this thread's number
    _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(own_thread), 0, 0, 0)
    flags |= signal.SIGCHLD
    if own_thread:
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    # On x86_64 the fourth of clone's is that address, on aarch64 the fifth.
    each = map(ctypes.c_void_p, (flags, 0, 0, own_thread.value, own_thread.value))
    return (ctypes.c_long(numbers()["clone"]), *each)

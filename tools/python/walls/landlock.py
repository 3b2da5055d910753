"""Landlock: the kernel's own list of what a process may open, which the process can't widen."""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable

__all__ = ["READ", "WRITE", "abi", "restrict"]

# The same on every processor.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = READ | 0xFFFF
"""All rights, but those to make device nodes: nobody has the privilege for that anyway."""
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
NET_TCP = 1 | 2
"""To bind and to connect."""
SCOPES = 1 | 2
"""Abstract UNIX sockets, and signals, of processes outside: those that are not below this one."""

_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_ALL_RIGHTS = 0xFFFF

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The kernel's version of Landlock; 0 if there is none."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def restrict(rules: Iterable[tuple[str, int]], *, tcp: bool = False) -> None:
    """From now on nothing can be opened but what `rules` (path, rights beneath it) allow.

    Nor can a process be signalled, or reached through an abstract socket, but this one and those it
    starts, where the kernel knows how (ABI 6). `tcp`: no TCP at all (ABI 4). Needs no privilege but
    no_new_privs. Paths that are missing or can't be opened are left out. Raises `OSError`.
    """
    version = abi()
    if not version:
        raise OSError("this kernel has no Landlock, or it was not enabled at boot")
    handled = _RIGHTS.get(version, _ALL_RIGHTS)
    attributes = struct.pack(
        "QQQ",
        handled,
        NET_TCP if tcp and version >= 4 else 0,
        SCOPES if version >= 6 else 0,
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _call(CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & handled)
        _call(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= ON_FILES
        rule = struct.pack("=Qi", rights, fd)
        _call(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock: {os.strerror(code)}")
    return result

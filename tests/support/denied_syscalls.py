"""A process that its machine refuses something, as a container's or a distribution's rules do."""

import ctypes
import errno
import platform
import struct

from interlace.tools.python.walls import seccomp

PR_SET_NO_NEW_PRIVS = 38
LANDLOCK_CREATE_RULESET = 444

ELSEWHERE = {"pidfd_send_signal": 424, "pidfd_open": 434, "openat2": 437}
"""Calls that the filter does not name, with the same numbers on every processor."""


def refuse(*names: str) -> None:
    """From now on the kernel answers these system calls of this process with EPERM."""
    _, table = seccomp.MACHINES[platform.machine()]
    numbers = {**table, "landlock": LANDLOCK_CREATE_RULESET, **ELSEWHERE}
    code = [struct.pack("HBBI", seccomp.LOAD, 0, 0, seccomp.NUMBER)]
    for name in names:
        code.append(struct.pack("HBBI", seccomp.EQUAL, 0, 1, numbers[name]))
        code.append(struct.pack("HBBI", seccomp.RETURN, 0, 0, seccomp.ERRNO | errno.EPERM))
    data = b"".join([*code, struct.pack("HBBI", seccomp.RETURN, 0, 0, seccomp.ALLOW)])
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(data, len(data))
    header = struct.pack("HxxxxxxP", len(data) // 8, ctypes.addressof(buffer))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(seccomp.PR_SET_SECCOMP, seccomp.SECCOMP_MODE_FILTER, header, 0, 0) == 0

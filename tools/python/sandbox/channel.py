"""The channel and the output pipe between a worker and its owner, as the owner makes them."""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Sequence

from ..processes import FIRST_GUEST

__all__ = ["pipes", "send_with", "sender"]

SO_PASSRIGHTS = 83


def pipes() -> tuple[socket.socket, int, list[int]]:
    """A channel and an output pipe: our ends, and those for a worker."""
    channel, its_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.setblocking(False)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    # A descriptor that came along would be closed here, and its last close can take as long as the
    # sender likes. From Linux 6.16 on the kernel refuses to send one; before that, those that wait
    # in their close can't be made (seccomp.py).
    with contextlib.suppress(OSError):
        channel.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    output, its_output = os.pipe()
    os.set_blocking(output, False)
    return channel, output, [its_channel.detach(), its_output]


def send_with(to: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send as much as goes at once, with the file descriptors; how much went."""
    if not fds:
        try:
            return to.send(data)
        except BlockingIOError:
            return 0
    return to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def sender(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The number of the process that sent a message. Raises ValueError where nobody says."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(content) >= 12:
            pid: int = struct.unpack_from("3i", content)[0]
            if pid >= FIRST_GUEST:
                return pid
    raise ValueError("a message without its sender")

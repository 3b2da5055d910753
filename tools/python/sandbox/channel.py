"""The channel and the output pipe between a worker and its owner: how they are made and read.

A message is four bytes of length and a JSON object. Both sides import this.
"""

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..processes import FIRST_GUEST

__all__ = [
    "frame",
    "pipes",
    "read_available",
    "read_packet",
    "received_descriptors",
    "send_with",
    "sender",
]

READ_BYTES = 262_144

SO_PASSRIGHTS = 83
_encode = json.JSONEncoder(default=str).encode


def pipes() -> tuple[socket.socket, int, list[int]]:
    """A channel and an output pipe: our ends, and those for a worker. Raises `OSError`."""
    output, its_output = os.pipe()
    try:
        channel, its_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        os.close(output)
        os.close(its_output)
        raise
    os.set_blocking(output, False)
    channel.setblocking(False)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    # A descriptor that came along would be closed here, and its last close can take as long as the
    # sender likes. From Linux 6.16 on the kernel refuses to send one; before that, those that wait
    # in their close can't be made (seccomp.py).
    with contextlib.suppress(OSError):
        channel.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    return channel, output, [its_channel.detach(), its_output]


def send_with(to: socket.socket, data: bytes, fds: Sequence[int]) -> int:
    """Send as much as goes at once, with the file descriptors; how much went."""
    if not fds:
        try:
            return to.send(data)
        except BlockingIOError:
            return 0
    return to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def frame(message: Mapping[str, Any]) -> bytes:
    """A message as it goes over the channel."""
    data = _encode(message).encode()
    return struct.pack(">I", len(data)) + data


def read_packet(data: bytes) -> dict[str, Any]:
    """The JSON object that a supervisor or a zygote sent; empty if that is none."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def read_available(read: Callable[[int], bytes]) -> bytes | None:
    """Read what is there without waiting: None if that is nothing, empty at the end."""
    try:
        return read(READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def received_descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The file descriptors that came with a message, open now in this process."""
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return list(fds)


def sender(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The number of the process that sent a message. Raises ValueError where nobody says."""
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(content) >= 12:
            pid: int = struct.unpack_from("3i", content)[0]
            if pid >= FIRST_GUEST:
                return pid
    raise ValueError("a message without its sender")

"""User ids of our own, one for each session where we are root."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

from ...errors import ToolUnavailable

__all__ = ["UserIds"]

FIRST_USER, USERS = 1_879_048_192, 268_435_456
"""User ids that nothing else is meant to have: the range that systemd leaves free."""
FIRST_SMALL_USER, SMALL_USERS = 60_578, 606
"""The same, where only 65,536 ids exist, as in most containers."""


class UserIds:
    """User ids of our own for sessions, each held by a lock as long as it is in use.

    The lock is an abstract socket's name: the kernel frees it with us. A program in another network
    namespace does not see it: each begins at a random id, so that two of them hardly ever meet.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}
        self._first, self._count = _free_range()
        self._next = secrets.randbelow(self._count) if self._count else 0

    @property
    def exist(self) -> bool:
        """True if there are such ids here."""
        return self._count > 0

    def take(self) -> int:
        """An id that nobody uses. Raises `ToolUnavailable`."""
        for _ in range(self._count):
            user = self._first + self._next
            self._next = (self._next + 1) % self._count
            if user in self._held:
                continue
            lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                lock.bind(f"\0interlace-user-{user}")
            except OSError:
                lock.close()
                continue
            self._held[user] = lock
            return user
        raise ToolUnavailable("there is no user id left for a session; close some")

    def free(self, user: int) -> None:
        """Give an id back, if it is one."""
        lock = self._held.pop(user, None)
        if lock is not None:
            lock.close()

    def close(self) -> None:
        """Give all ids back."""
        for user in list(self._held):
            self.free(user)


def _free_range() -> tuple[int, int]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = (int(part) for part in line.split())
            if first + count >= FIRST_USER + USERS:
                return FIRST_USER, USERS
            if first + count >= FIRST_SMALL_USER + SMALL_USERS:
                return FIRST_SMALL_USER, SMALL_USERS
    return 0, 0

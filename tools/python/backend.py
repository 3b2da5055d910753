"""The protocol of a backend, and what both make of a session's limits: walls, and their trial."""

import os
import resource
import signal
import site
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from ..errors import ToolUnavailable, UsageError
from .files import HeldFolder, open_folder_inside
from .folders import copy_fonts, make_dir
from .interpreter import Interpreter
from .walls.walls import Walls, readable_paths

__all__ = ["Backend", "SessionLimits", "check_limits", "make_walls", "needs_linux", "prepare_trial"]

_FOR_OWNER = 300
"""Descriptors inside messages that are left to the owner, if sessions have its user id. The kernel
counts those of a user together, and refuses a sender whose limit of open files is below the count.
A session gets as far as its own limit and the 253 of one more message."""


class Backend(Protocol):
    """Starts interpreters of one kind; one for each pool."""

    async def ready(self) -> None:
        """Wait until interpreters can be started. Raises `ToolUnavailable` if they never can."""
        ...

    async def start(self, session_dir: Path) -> Interpreter:
        """An interpreter for the session at `session_dir`: its first, or the next after one died.

        Raises `ToolUnavailable`.
        """
        ...

    async def fork(self, interpreter: Interpreter, session_dir: Path) -> Interpreter:
        """A copy of one of its interpreters, a session at `session_dir`. Raises `Unforkable`."""
        ...

    def leave(self, session_dir: Path) -> Path | None:
        """The session at `session_dir` is over: free what it holds beside its interpreter.

        The folder that can be removed now, if there is one.
        """
        ...

    def details(self) -> Mapping[str, JsonValue]:
        """The details given with every result."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of a session. Sizes are in bytes."""

    memory: int = 2_000_000_000
    """Of all its processes together."""
    processes: int = 64
    """Processes and threads."""
    disk: int = 256_000_000
    """Files, those in /tmp and /dev/shm included."""
    files: int = 20_000
    open_files: int = 256


def check_limits(limits: SessionLimits) -> SessionLimits:
    """The limits, if they make sense. Raises `UsageError`."""
    if limits.memory < 50_000_000 or limits.disk < 1_000_000 or limits.files < 100:
        raise UsageError("memory must be 50 MB or more, disk 1 MB or more, files 100 or more")
    if limits.processes < 4 or limits.open_files < 32:
        raise UsageError("processes must be 4 or more, open_files 32 or more")
    return replace(limits)


def needs_linux() -> None:
    """Raises `ToolUnavailable` on other systems, and on a Linux without calls that both backends
    need: handles of processes, or a signal could hit another one; openat2(2), to count files.
    """
    if sys.platform != "linux":
        raise ToolUnavailable(
            "the Python tool runs on Linux only, since nothing here could isolate it: run this in "
            "a Linux container (Docker brings a Linux machine along), in a virtual machine or on a "
            "Linux host; docs/security.md says how"
        )
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
        os.close(open_folder_inside(HeldFolder("/"), "."))
    except OSError as error:
        raise ToolUnavailable(
            "the Python tool needs the system calls pidfd_open, pidfd_send_signal and openat2 "
            f"(Linux 5.6), one of which fails here: {error}"
        ) from error


def make_walls(
    tier: str, folder: Path, limits: SessionLimits, characters: int, users_exist: bool
) -> Walls:
    """The walls of a tier around the sessions of a pool whose folder is `folder`.

    `users_exist`: there are user ids that sessions can have (walls/users.py).
    """
    packages = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if path]
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, *packages)
    own_user = tier != "none" and os.geteuid() == 0 and users_exist
    needed = (*prefixes, str(folder.parent))
    if tier == "confined" and not all(_open_to_all(path) for path in needed):
        own_user = False  # or the session could not import anything
    open_files = limits.open_files
    ours = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if not own_user and ours >= _FOR_OWNER + 32:
        open_files = min(open_files, ours - _FOR_OWNER)
    return Walls(
        tier=tier,
        readable=readable_paths(prefixes),
        fonts=str(folder / "fonts"),
        memory=limits.memory,
        processes=limits.processes,
        disk=limits.disk,
        files=limits.files,
        open_files=open_files,
        characters=characters,
        own_user=own_user,
    )


def prepare_trial(folder: Path, walls: Walls, session_dir: Path) -> None:
    """Make what a trial of the walls needs, and the lists of fonts that sessions see."""
    if walls.own_user:
        folder.chmod(0o711)  # a session's user has to get to its own folder
    fonts = folder / "fonts"
    folders = [session_dir / name for name in ("profile", "work", "tmp", "shm")]
    for each in (fonts, session_dir, *folders):
        if not each.exists():
            make_dir(each, 0o755)
    copy_fonts(fonts)
    canary = folder / "canary"
    canary.write_text("A session that can read this is not isolated.\n")
    canary.chmod(0o644)


def _open_to_all(path: str) -> bool:
    """True if every user can reach what is in a folder, or the folder does not exist."""
    with suppress(OSError):
        for each in {os.path.abspath(path), os.path.realpath(path)}:
            if os.path.exists(each):
                for folder in (each, *(str(parent) for parent in Path(each).parents)):
                    if not os.stat(folder).st_mode & 0o001:
                        return False
    return True

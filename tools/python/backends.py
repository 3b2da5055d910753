"""The two backends: what a pool starts interpreters with."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from ..errors import ToolUnavailable, UsageError
from .interpreter import Interpreter
from .remote import Worker
from .sandbox import Session, Zygote
from .walls import Walls, readable_paths
from .watch import watch

__all__ = ["Isolation", "JupyterBackend", "Limits", "SandboxBackend"]

Isolation = Literal["auto", "full", "confined", "none"]

FIRST_USER = 1_879_048_192
"""User ids that nothing else is meant to have: the first of the range that systemd leaves free."""
FIRST_SMALL_USER, SMALL_USERS = 60_578, 606
"""The same, where only 65,536 ids exist, as in most containers."""
_PRELOADED = ("numpy", "numpy.random", "sympy")
_NO_LINUX = (
    "the Python sandbox needs Linux: run this on a Linux machine or in a Linux container, or ask "
    "for backend='jupyter', which keeps nothing from your files and the network"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may use. Sizes are in bytes."""

    memory: int = 2_000_000_000
    """Of all its processes together."""
    processes: int = 64
    """Processes and threads."""
    disk: int = 256_000_000
    """Files, those in /tmp and /dev/shm included."""
    files: int = 20_000
    open_files: int = 256


class JupyterBackend:
    """Starts ipykernels."""

    def __init__(self, characters: int, variables: Mapping[str, str]) -> None:
        import zmq
        import zmq.asyncio

        from .jupyter import MESSAGE_BYTES

        self._characters = characters
        self._variables = variables
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)

    async def ready(self) -> None:
        """Kernels can be started at any time."""

    async def start(self, place: Path) -> Interpreter:
        """A kernel in `place`. Raises `ToolUnavailable`."""
        from .jupyter import Kernel

        return await Kernel.start(self._context, place, self._characters, self._variables)

    def leave(self, place: Path) -> Path | None:
        """Nothing is held beside the kernel."""
        return place

    def details(self) -> Mapping[str, JsonValue]:
        """What is told with every result."""
        return {"isolation": "none"}

    async def close(self) -> None:
        """Free the sockets."""
        self._context.destroy(linger=0)


class SandboxBackend:
    """Forks isolated workers from a zygote, which is started at once and again if it dies."""

    def __init__(
        self,
        folder: Path,
        characters: int,
        variables: Mapping[str, str],
        isolation: Isolation,
        limits: Limits,
        modules: Sequence[str],
    ) -> None:
        """Raises `ToolUnavailable` where there is no sandbox at all."""
        if sys.platform != "linux":
            raise ToolUnavailable(_NO_LINUX)
        self._folder = folder
        self._characters = characters
        self._modules = list(modules)
        self._variables = variables
        self._isolation = isolation
        self._limits = limits
        self._users = Users()
        self._sessions: dict[Path, tuple[Session, str, int]] = {}
        self._walls: Walls | None = None
        self._starting: asyncio.Task[Zygote] | None = asyncio.create_task(self._start_zygote())
        self._watching = asyncio.create_task(watch(self._live, limits.memory))

    async def ready(self) -> None:
        """Wait until the walls are proved. Raises `ToolUnavailable`."""
        await self._zygote()

    async def start(self, place: Path) -> Interpreter:
        """A worker in the session at `place`, new or there already. Raises `ToolUnavailable`."""
        session, folder, user = self._sessions.get(place, (None, "work", 0))
        if session is None or not session.alive:
            if session is not None:
                self.leave(place)
            zygote = await self._zygote()
            assert self._walls is not None
            user = self._users.take() if self._walls.own_user else os.getuid()
            try:
                if self._walls.tier != "full":
                    place.mkdir(exist_ok=True)
                session = await zygote.session(self._walls, user, place)
            except BaseException:
                self._users.free(user)
                raise
            session.place = place if self._walls.tier != "full" else None
            self._sessions[place] = (session, folder, user)
        return await session.worker(folder)

    def adopt(self, worker: Worker, place: Path) -> None:
        """Let `place` stand for a copy of a session that is there already."""
        user = next(u for s, _, u in self._sessions.values() if s is worker.session)
        self._sessions[place] = (worker.session, worker.folder, user)

    def leave(self, place: Path) -> Path | None:
        """One copy of a session is over; the last one ends it."""
        if place not in self._sessions:
            return None
        session, _, user = self._sessions.pop(place)
        session.seats -= 1
        if session.seats:
            return None
        session.close()
        self._users.free(user)
        return session.place

    def details(self) -> Mapping[str, JsonValue]:
        """What is told with every result."""
        return {"isolation": self._walls.tier if self._walls else self._isolation}

    async def close(self) -> None:
        """End every process."""
        self._watching.cancel()
        for place in list(self._sessions):
            self.leave(place)
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting, self._watching})
            if not starting.cancelled() and starting.exception() is None:
                starting.result().close()
        self._users.close()

    def _live(self) -> list[Session]:
        return list({id(each[0]): each[0] for each in self._sessions.values()}.values())

    async def _zygote(self) -> Zygote:
        """The zygote that lives, or a new one. Raises `ToolUnavailable`."""
        starting = self._starting
        if starting is None:
            raise ToolUnavailable("the Python tool is closed")
        if starting.done() and (
            starting.cancelled() or starting.exception() or not starting.result().alive
        ):
            self._starting = starting = asyncio.create_task(self._start_zygote())
        return await asyncio.shield(starting)

    async def _start_zygote(self) -> Zygote:
        """Start a zygote with the strongest walls of those that were asked for."""
        tiers = ["full", "confined"] if self._isolation == "auto" else [self._isolation]
        reasons = []
        for tier in tiers:
            walls = self._make_walls(tier)
            try:
                zygote = await self._try_walls(walls)
            except ToolUnavailable as error:
                reasons.append(f"{tier}: {error}")
                continue
            self._walls = walls
            return zygote
        raise ToolUnavailable(
            f"Python code can't be isolated here ({'; '.join(reasons)}); `interlace doctor` says "
            "more, and isolation='none' runs it with your own rights"
        )

    def _make_walls(self, tier: str) -> Walls:
        prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, *_package_folders())
        readable = readable_paths(prefixes)
        own_user = tier != "none" and os.geteuid() == 0 and self._users.exist
        needed = (*prefixes, str(self._folder.parent))
        if tier == "confined" and not all(_open_to_all(path) for path in needed):
            own_user = False  # or the session could not import anything
        return Walls(
            tier=tier,
            readable=readable,
            fonts=str(self._folder / "fonts"),
            memory=self._limits.memory,
            processes=self._limits.processes,
            disk=self._limits.disk,
            files=self._limits.files,
            open_files=self._limits.open_files,
            characters=self._characters,
            own_user=own_user,
        )

    async def _try_walls(self, walls: Walls) -> Zygote:
        place = self._folder / "trial"
        self._prepare(walls, place)
        user = self._users.take() if walls.own_user else os.getuid()
        settings = {
            "required": self._modules,
            "modules": _PRELOADED,
            "profile": str(place / "profile"),
            "canary": str(self._folder / "canary"),
            "trial_user": user,
            "trial_folder": str(place),
        }
        try:
            return await Zygote.start(walls, place, settings, self._variables)
        finally:
            self._users.free(user)
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    def _prepare(self, walls: Walls, place: Path) -> None:
        if walls.own_user:
            self._folder.chmod(0o711)  # a session's user has to get to its own folder
        fonts = self._folder / "fonts"
        for folder in (fonts, place, place / "profile", place / "work"):
            folder.mkdir(mode=0o755, exist_ok=True)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
        for file in cache.glob("fontlist-*.json"):
            with suppress(OSError):
                shutil.copy(file, fonts)
        canary = self._folder / "canary"
        canary.write_text("A session that can read this is not isolated.\n")
        canary.chmod(0o644)


class Users:
    """User ids of our own for sessions, each held by a lock as long as it is in use.

    The lock is an abstract socket's name: the kernel frees it with us.
    """

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}
        self._first, self._count = _free_range()
        self._next = 0

    @property
    def exist(self) -> bool:
        """Whether there are such ids here."""
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
            if first + count > FIRST_USER + 10_000:
                return FIRST_USER, 10_000
            if first + count >= FIRST_SMALL_USER + SMALL_USERS:
                return FIRST_SMALL_USER, SMALL_USERS
    return 0, 0


def _package_folders() -> list[str]:
    import site

    return [path for path in (*site.getsitepackages(), site.getusersitepackages()) if path]


def _open_to_all(path: str) -> bool:
    """Whether every user can read what is in a folder (or the folder does not exist)."""
    with suppress(OSError):
        for each in {os.path.abspath(path), os.path.realpath(path)}:
            if os.path.exists(each):
                for folder in (each, *(str(parent) for parent in Path(each).parents)):
                    if not os.stat(folder).st_mode & 0o001:
                        return False
    return True


def check_limits(limits: Limits) -> Limits:
    """The limits, if they make sense. Raises `UsageError`."""
    if limits.memory < 50_000_000 or limits.disk < 1_000_000 or limits.files < 100:
        raise UsageError("memory must be 50 MB or more, disk 1 MB or more, files 100 or more")
    if limits.processes < 4 or limits.open_files < 32:
        raise UsageError("processes must be 4 or more, open_files 32 or more")
    return replace(limits)

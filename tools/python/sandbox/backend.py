"""The two backends: what a pool starts interpreters with."""

import asyncio
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ...errors import ToolUnavailable
from ..backend import Limits
from ..files import Held, remove_tree
from ..folders import Enclosure, copy_fonts, make_place
from ..interpreter import Interpreter, Watched
from ..monitor import watch
from ..walls.users import Users
from ..walls.walls import Walls, readable_paths
from .owner import Session, Zygote
from .remote import Worker

if TYPE_CHECKING:
    from ..jupyter.kernel_client import Kernel

__all__ = ["JupyterBackend", "SandboxBackend"]

_NO_LINUX = (
    "the Python tool runs on Linux only, since nothing here could isolate it: run this in a Linux "
    "container (Docker brings a Linux machine along), in a virtual machine or on a Linux host; "
    "docs/security.md says how"
)


@dataclass(slots=True)
class _Seat:
    """The place of a session's kernels: its folder, its user, and the kernel that runs."""

    home: Path
    user: int
    work: Held
    """The folder that its code works in."""
    kernel: "Kernel | None" = None


class JupyterBackend:
    """Starts ipykernels, each in namespaces of its own, or (`none`) with nothing around it.

    There is no tier between: a kernel needs sockets, and by their names in the file system it
    could reach every service of this machine that its user may reach.
    """

    def __init__(
        self,
        folder: Path,
        characters: int,
        variables: Mapping[str, str],
        isolation: str,
        limits: Limits,
    ) -> None:
        """Raises `ToolUnavailable` where kernels can't be walled off at all."""
        import zmq
        import zmq.asyncio

        from ..jupyter.kernel import WAITING
        from ..jupyter.kernel_client import MESSAGE_BYTES

        self._tier = "none" if isolation == "none" else "full"
        if sys.platform != "linux":
            raise ToolUnavailable(_NO_LINUX)
        self._folder = folder
        self._variables = variables
        self._users = Users()
        self._walls = _make_walls(self._tier, folder, limits, characters, self._users.exist)
        self._seats: dict[Path, _Seat] = {}
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        self._context.setsockopt(zmq.RCVHWM, WAITING)
        self._proving = asyncio.create_task(self._prove())
        self._watching = asyncio.create_task(watch(self._live, limits.memory))

    async def ready(self) -> None:
        """Wait until the walls are proved. Raises `ToolUnavailable`."""
        await asyncio.shield(self._proving)

    async def start(self, place: Path) -> Interpreter:
        """A kernel in `place`, new or there already. Raises `ToolUnavailable`.

        Where code has made something else of the session's folder, it gets a new one.
        """
        await self.ready()
        seat = self._seats.get(place)
        if seat is not None:
            if seat.work.still(seat.home / "work"):
                with suppress(ToolUnavailable):
                    return await self._start_in(seat)
            self._seats.pop(place)
            self._users.free(seat.user)
            await asyncio.to_thread(remove_tree, seat.home)
        user = self._user()
        home = _unused(place)
        try:
            make_place(home, user if self._walls.own_user else None)
            seat = self._seats[place] = _Seat(home, user, Held(home / "work"))
        except OSError as error:
            self._users.free(user)
            raise ToolUnavailable(f"a Python session has no folder: {error}") from error
        return await self._start_in(seat)

    async def _start_in(self, seat: "_Seat") -> Interpreter:
        from ..jupyter.kernel_client import Kernel

        seat.kernel = None
        seat.kernel = await Kernel.start(
            self._context,
            (seat.home, seat.work),
            self._walls,
            self._variables,
            self._enclosure(seat.user),
        )
        return seat.kernel

    def leave(self, place: Path) -> Path | None:
        """The session is over."""
        seat = self._seats.pop(place, None)
        if seat is None:
            return None
        self._users.free(seat.user)
        return seat.home

    def details(self) -> Mapping[str, JsonValue]:
        """The details given with every result."""
        return {"isolation": self._tier}

    async def close(self) -> None:
        """Free the sockets."""
        tasks = {self._proving, self._watching}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        _ = self._proving.cancelled() or self._proving.exception()  # told to who asked
        self._users.close()
        self._context.destroy(linger=0)

    def _live(self) -> list[Watched]:
        return [seat.kernel for seat in self._seats.values() if seat.kernel is not None]

    def _user(self) -> int:
        return self._users.take() if self._walls.own_user else os.getuid()

    def _enclosure(self, user: int) -> Enclosure | None:
        if self._tier == "none":
            return None
        return Enclosure(asdict(self._walls), user, str(self._folder / "canary"))

    async def _prove(self) -> None:
        if self._tier == "none":
            return
        from ..folders import try_enclosure

        place = self._folder / "trial"
        user = self._user()
        enclosure = self._enclosure(user)
        assert enclosure is not None
        try:
            _prepare(self._folder, self._walls, place)
            await try_enclosure(place, enclosure)
        except (ToolUnavailable, OSError) as error:
            raise ToolUnavailable(
                f"a jupyter kernel can't be isolated here ({error}): the backend 'sandbox' may "
                "be; isolation='none' (--no-isolation) runs it with your own rights"
            ) from None
        finally:
            self._users.free(user)
            await asyncio.to_thread(remove_tree, place)


class SandboxBackend:
    """Forks isolated workers from a zygote, which is started at once and again if it dies."""

    def __init__(
        self,
        folder: Path,
        characters: int,
        variables: Mapping[str, str],
        isolation: str,
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
        """A worker in the session at `place`, new or there already. Raises `ToolUnavailable`.

        Where a new one can't start in a session that had one, code has broken it (its folders,
        say): it is given up, and another one begins from nothing, in a folder of its own.
        """
        session, folder, _ = self._sessions.get(place, (None, "", 0))
        if session is not None:
            if session.alive:
                with suppress(ToolUnavailable):
                    return await session.worker(folder)
            # What hostile code left in the folder (links, say) must not meet a new keeper, which
            # begins with privilege.
            left = self.leave(place)
            if left is not None:
                await asyncio.to_thread(remove_tree, left)
        return await (await self._new_session(place)).worker("work")

    async def _new_session(self, place: Path) -> Session:
        zygote = await self._zygote()
        if self._watching.done():
            raise ToolUnavailable("the watch over the Python sessions' limits has ended")
        assert self._walls is not None
        user = self._users.take() if self._walls.own_user else os.getuid()
        home = _unused(place)
        try:
            if self._walls.tier != "full":
                home.mkdir()
            session = await zygote.session(self._walls, user, home)
        except BaseException as error:
            self._users.free(user)
            if isinstance(error, OSError):  # no room, too many open files
                raise ToolUnavailable(f"a session can't be started: {error}") from error
            raise
        session.place = home if self._walls.tier != "full" else None
        self._sessions[place] = (session, "work", user)
        return session

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
        """The details given with every result."""
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

    def _live(self) -> list[Watched]:
        sessions = {id(each[0]): each[0] for each in self._sessions.values()}
        return [worker for session in sessions.values() for worker in session.workers]

    async def _zygote(self) -> Zygote:
        """The zygote that lives, or a new one. Raises `ToolUnavailable`."""
        starting = self._starting
        if starting is None:
            raise ToolUnavailable("the Python tool is closed")
        if starting.done() and (
            starting.cancelled() or starting.exception() or not starting.result().alive
        ):
            if not starting.cancelled() and not starting.exception():
                starting.result().close()
            self._starting = starting = asyncio.create_task(self._start_zygote())
        return await asyncio.shield(starting)

    async def _start_zygote(self) -> Zygote:
        """Start a zygote with the strongest walls of those that were asked for.

        A later one, after that one died, has the same walls or none is started.
        """
        tiers = ["full", "confined"] if self._isolation == "auto" else [self._isolation]
        if self._walls is not None:
            tiers = [self._walls.tier]
        reasons = []
        for tier in tiers:
            walls = _make_walls(
                tier, self._folder, self._limits, self._characters, self._users.exist
            )
            try:
                zygote = await self._try_walls(walls)
            except (ToolUnavailable, OSError) as error:
                reasons.append(f"{tier}: {error}")
                continue
            self._walls = walls
            return zygote
        raise ToolUnavailable(
            f"Python code can't be isolated here ({'; '.join(reasons)}): `interlace doctor` says "
            "what is missing; isolation='none' (--no-isolation) runs it with your own rights"
        )

    async def _try_walls(self, walls: Walls) -> Zygote:
        place = self._folder / "trial"
        _prepare(self._folder, walls, place)
        user = self._users.take() if walls.own_user else os.getuid()
        settings = {
            "modules": self._modules,
            "profile": str(place / "profile"),
            "canary": str(self._folder / "canary"),
            "trial_user": user,
            "trial_folder": str(place),
        }
        try:
            return await Zygote.start(walls, place, settings, self._variables)
        finally:
            self._users.free(user)
            await asyncio.to_thread(remove_tree, place)


def _unused(place: Path) -> Path:
    """The path, or one like it where something is there already."""
    tries = (place.with_name(f"{place.name}.{number}") for number in itertools.count(1))
    return next(path for path in itertools.chain([place], tries) if not os.path.lexists(path))


def _make_walls(
    tier: str, folder: Path, limits: Limits, characters: int, users_exist: bool
) -> Walls:
    prefixes = (sys.prefix, sys.base_prefix, sys.exec_prefix, *_package_folders())
    own_user = tier != "none" and os.geteuid() == 0 and users_exist
    needed = (*prefixes, str(folder.parent))
    if tier == "confined" and not all(_open_to_all(path) for path in needed):
        own_user = False  # or the session could not import anything
    return Walls(
        tier=tier,
        readable=readable_paths(prefixes),
        fonts=str(folder / "fonts"),
        memory=limits.memory,
        processes=limits.processes,
        disk=limits.disk,
        files=limits.files,
        open_files=limits.open_files,
        characters=characters,
        own_user=own_user,
    )


def _prepare(folder: Path, walls: Walls, place: Path) -> None:
    """Make what a trial of the walls needs, and the lists of fonts that sessions see."""
    if walls.own_user:
        folder.chmod(0o711)  # a session's user has to get to its own folder
    fonts = folder / "fonts"
    for each in (fonts, place, place / "profile", place / "work"):
        each.mkdir(mode=0o755, exist_ok=True)
    copy_fonts(fonts)
    canary = folder / "canary"
    canary.write_text("A session that can read this is not isolated.\n")
    canary.chmod(0o644)


def _package_folders() -> list[str]:
    import site

    return [path for path in (*site.getsitepackages(), site.getusersitepackages()) if path]


def _open_to_all(path: str) -> bool:
    """True if every user can reach what is in a folder, or the folder does not exist."""
    with suppress(OSError):
        for each in {os.path.abspath(path), os.path.realpath(path)}:
            if os.path.exists(each):
                for folder in (each, *(str(parent) for parent in Path(each).parents)):
                    if not os.stat(folder).st_mode & 0o001:
                        return False
    return True

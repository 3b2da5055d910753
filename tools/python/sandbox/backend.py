"""The backend `sandbox`: a worker for each session, forked in milliseconds."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue

from ...background import in_thread
from ...errors import ToolUnavailable
from ..backend import SessionLimits, make_walls, needs_linux, prepare_trial
from ..files import remove_tree
from ..folders import make_dir, unused_path
from ..interpreter import Interpreter, Monitored
from ..monitor import make_room, resource_monitor
from ..walls.users import UserIds
from ..walls.walls import Walls
from .owner import RemoteZygote, SandboxSession
from .remote import RemoteWorker

__all__ = ["SandboxBackend"]


class SandboxBackend:
    """Forks isolated workers from a zygote, which is started at once and again if it dies."""

    def __init__(
        self,
        folder: Path,
        characters: int,
        variables: Mapping[str, str],
        isolation: str,
        limits: SessionLimits,
        modules: Sequence[str],
    ) -> None:
        """Raises `ToolUnavailable` if there is no sandbox at all."""
        needs_linux()
        self._folder = folder
        self._characters = characters
        self._modules = list(modules)
        self._variables = variables
        self._isolation = isolation
        self._limits = limits
        self._users = UserIds()
        self._sessions: dict[Path, tuple[SandboxSession, str, int]] = {}
        self._walls: Walls | None = None
        self._starting: asyncio.Task[RemoteZygote] | None = asyncio.create_task(
            self._start_zygote()
        )
        self._monitoring = asyncio.create_task(resource_monitor(self._live, limits.memory))

    async def ready(self) -> None:
        """Wait until the walls are proved. Raises `ToolUnavailable`."""
        await self._zygote()

    async def start(self, session_dir: Path) -> Interpreter:
        """A worker in the session at `session_dir`, new or there already. Raises `ToolUnavailable`.

        Where a new one can't start in a session that had one, code has broken it (its folders,
        say): it is given up, and another one begins from nothing, in its own folder.
        """
        session, folder, _ = self._sessions.get(session_dir, (None, "", 0))
        if session is not None:
            if session.alive:
                if session.session_dir is not None and not any(w.alive for w in session.workers):
                    await make_room(session.session_dir, session.walls)
                with suppress(ToolUnavailable):
                    return await session.worker(folder)
            # What hostile code left in the folder (links, say) must not meet a new supervisor,
            # which begins with privilege.
            left = self.leave(session_dir)
            if left is not None:
                await in_thread(remove_tree, left)
        return await (await self._new_session(session_dir)).worker("work")

    async def _new_session(self, session_dir: Path) -> SandboxSession:
        zygote = await self._zygote()
        if self._monitoring.done():
            raise ToolUnavailable("the watch over the Python sessions' limits has ended")
        assert self._walls is not None
        user = self._users.take() if self._walls.own_user else os.getuid()
        home = unused_path(session_dir)
        try:
            if self._walls.tier != "full":
                make_dir(home, 0o755)
            session = await zygote.session(self._walls, user, home)
        except BaseException as error:
            self._users.free(user)
            if isinstance(error, OSError):  # no room, too many open files
                raise ToolUnavailable(f"a session can't be started: {error}") from error
            raise
        session.session_dir = home if self._walls.tier != "full" else None
        self._sessions[session_dir] = (session, "work", user)
        return session

    async def fork(self, interpreter: Interpreter, session_dir: Path) -> Interpreter:
        """A copy of a worker, in the session that it is in. Raises `Unforkable`."""
        assert isinstance(interpreter, RemoteWorker)
        copy = await interpreter.fork()
        session, user = next(
            (s, u) for s, _, u in self._sessions.values() if s is interpreter.session
        )
        session.copies += 1
        self._sessions[session_dir] = (session, copy.folder, user)
        return copy

    def leave(self, session_dir: Path) -> Path | None:
        """One copy of a session is over; the last one ends it."""
        if session_dir not in self._sessions:
            return None
        session, _, user = self._sessions.pop(session_dir)
        session.copies -= 1
        if session.copies:
            return None
        session.close()
        self._users.free(user)
        return session.session_dir

    def details(self) -> Mapping[str, JsonValue]:
        """The details given with every result."""
        return {"isolation": self._walls.tier if self._walls else self._isolation}

    async def close(self) -> None:
        """End every process."""
        self._monitoring.cancel()
        for session_dir in list(self._sessions):
            self.leave(session_dir)
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting, self._monitoring})
            if not starting.cancelled() and starting.exception() is None:
                starting.result().close()
        self._users.close()

    def _live(self) -> list[Monitored]:
        sessions = {id(each[0]): each[0] for each in self._sessions.values()}
        return [worker for session in sessions.values() for worker in session.workers]

    async def _zygote(self) -> RemoteZygote:
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

    async def _start_zygote(self) -> RemoteZygote:
        """Start a zygote with the strongest walls of those that were asked for.

        A later one, after that one died, has the same walls or none is started.
        """
        tiers = ["full", "confined"] if self._isolation == "auto" else [self._isolation]
        if self._walls is not None:
            tiers = [self._walls.tier]
        reasons = []
        for tier in tiers:
            walls = make_walls(
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

    async def _try_walls(self, walls: Walls) -> RemoteZygote:
        session_dir = self._folder / "trial"
        prepare_trial(self._folder, walls, session_dir)
        user = self._users.take() if walls.own_user else os.getuid()
        settings = {
            "modules": self._modules,
            "profile": str(session_dir / "profile"),
            "canary": str(self._folder / "canary"),
            "trial_user": user,
            "trial_folder": str(session_dir),
        }
        try:
            return await RemoteZygote.start(walls, session_dir, settings, self._variables)
        finally:
            self._users.free(user)
            await in_thread(remove_tree, session_dir)

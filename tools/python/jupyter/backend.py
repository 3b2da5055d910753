"""The backend `jupyter`: an ipykernel for each session."""

import asyncio
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import JsonValue

from ...background import in_thread
from ...base import Unforkable
from ...errors import ToolUnavailable
from ..backend import SessionLimits, make_walls, needs_linux, prepare_trial
from ..files import HeldFolder, remove_tree
from ..folders import make_session_dir, unused_path
from ..interpreter import Interpreter, Monitored
from ..monitor import make_room, resource_monitor
from ..walls.users import UserIds
from .kernel import WAITING
from .kernel_client import MESSAGE_BYTES, RemoteKernel
from .start import Enclosure, try_enclosure

__all__ = ["JupyterBackend"]

ZMQ_THREADS = 2
"""The threads that ZeroMQ starts in our process."""


@dataclass(slots=True)
class _KernelSlot:
    """The place of a session's kernels: its folder, its user, and the kernel that runs."""

    home: Path
    user: int
    work: HeldFolder
    """The folder that its code works in."""
    kernel: RemoteKernel | None = None


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
        limits: SessionLimits,
    ) -> None:
        """Raises `ToolUnavailable` where kernels can't be walled off at all."""
        import zmq.asyncio

        needs_linux()
        _check_threads(ZMQ_THREADS)
        self._tier = "none" if isolation == "none" else "full"
        self._folder = folder
        self._variables = variables
        self._users = UserIds()
        self._walls = make_walls(self._tier, folder, limits, characters, self._users.exist)
        self._slots: dict[Path, _KernelSlot] = {}
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        self._context.setsockopt(zmq.RCVHWM, WAITING)
        self._context.socket(zmq.PAIR).close()  # at which its threads start
        self._proving = asyncio.create_task(self._prove())
        self._monitoring = asyncio.create_task(resource_monitor(self._live, limits.memory))

    async def ready(self) -> None:
        """Wait until the walls are proved. Raises `ToolUnavailable`."""
        await asyncio.shield(self._proving)

    async def start(self, session_dir: Path) -> Interpreter:
        """A kernel in `session_dir`, new or there already. Raises `ToolUnavailable`.

        Where code has made something else of the session's folder, it gets a new one.
        """
        await self.ready()
        slot = self._slots.get(session_dir)
        if slot is not None:
            if slot.work.still(slot.home / "work"):
                await make_room(slot.home, self._walls)
                with suppress(ToolUnavailable):
                    return await self._start_in(slot)
            self._slots.pop(session_dir)
            self._users.free(slot.user)
            await in_thread(remove_tree, slot.home)
        user = self._user()
        home = unused_path(session_dir)
        try:
            make_session_dir(home, user if self._walls.own_user else None)
            slot = self._slots[session_dir] = _KernelSlot(home, user, HeldFolder(home / "work"))
        except OSError as error:
            self._users.free(user)
            raise ToolUnavailable(f"a Python session has no folder: {error}") from error
        return await self._start_in(slot)

    async def _start_in(self, slot: "_KernelSlot") -> Interpreter:
        slot.kernel = None
        slot.kernel = await RemoteKernel.start(
            self._context,
            (slot.home, slot.work),
            self._walls,
            self._variables,
            self._enclosure(slot.user),
        )
        return slot.kernel

    async def fork(self, interpreter: Interpreter, session_dir: Path) -> Interpreter:
        """Raises `Unforkable`: its threads and sockets can't be copied."""
        raise Unforkable("a Jupyter kernel can't be copied")

    def leave(self, session_dir: Path) -> Path | None:
        """The session is over."""
        slot = self._slots.pop(session_dir, None)
        if slot is None:
            return None
        self._users.free(slot.user)
        return slot.home

    def details(self) -> Mapping[str, JsonValue]:
        """The details given with every result."""
        return {"isolation": self._tier}

    async def close(self) -> None:
        """Free the sockets."""
        tasks = {self._proving, self._monitoring}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        _ = self._proving.cancelled() or self._proving.exception()  # told to who asked
        self._users.close()
        self._context.destroy(linger=0)

    def _live(self) -> list[Monitored]:
        return [slot.kernel for slot in self._slots.values() if slot.kernel is not None]

    def _user(self) -> int:
        return self._users.take() if self._walls.own_user else os.getuid()

    def _enclosure(self, user: int) -> Enclosure | None:
        if self._tier == "none":
            return None
        return Enclosure(asdict(self._walls), user, str(self._folder / "canary"))

    async def _prove(self) -> None:
        if self._tier == "none":
            return
        session_dir = self._folder / "trial"
        user = self._user()
        enclosure = self._enclosure(user)
        assert enclosure is not None
        try:
            prepare_trial(self._folder, self._walls, session_dir)
            await try_enclosure(session_dir, enclosure)
        except (ToolUnavailable, OSError) as error:
            raise ToolUnavailable(
                f"a jupyter kernel can't be isolated here ({error}): the backend 'sandbox' may "
                "be; isolation='none' (--no-isolation) runs it with your own rights"
            ) from None
        finally:
            self._users.free(user)
            await in_thread(remove_tree, session_dir)


def _check_threads(count: int) -> None:
    """Start that many threads, and let them end. Raises `ToolUnavailable` if they can't be started:
    ZeroMQ would then abort this program.
    """
    over = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=over.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise ToolUnavailable(
            "a jupyter kernel needs threads, and no more can be started: raise the limit of "
            "processes (ulimit -u, or that of the container)"
        ) from error
    finally:
        over.set()
        for thread in started:
            thread.join()

"""A python tool that is held for a whole module, with small limits; sessions are cheap."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from interlace.tools import PythonTool, ToolResult
from interlace.tools.python import PythonSession, SessionLimits
from interlace.tools.python.processes import descendants
from interlace.tools.python.walls.namespaces import SESSION

T = TypeVar("T")


def below() -> dict[int, str]:
    """The processes below this one that have not ended, and their commands.

    Where tests of tools run, orphans are adopted by this process (see tools/conftest.py).
    """
    found = {}
    for pid in descendants(os.getpid()):
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z":
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def mounted(folder: str) -> list[str]:
    """What is mounted where tools mount anything, in their own view: here, nothing may be new."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    places = {"/", "/proc", "/tmp", SESSION}
    return [line for line in lines if line.split()[1] in places or folder in line]


def eventually(true: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Whether it becomes true, however busy the machine is."""
    end = time.monotonic() + seconds
    while not (is_true := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return is_true


async def begin(
    session: PythonSession, code: str, seconds: float = 3600
) -> asyncio.Task[ToolResult]:
    """A call whose cell runs by now."""
    begun = asyncio.Event()
    session.on_output = lambda _: begun.set()
    call = asyncio.create_task(
        session.call({"code": f"print('begun', flush=True)\n{code}"}, seconds)
    )
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    session.on_output = None
    return call


LIMITS = SessionLimits(memory=600_000_000, processes=40, disk=40_000_000, files=2_000)


class Box:
    """Runs cells in sessions of one tool."""

    def __init__(self, backend: str, tier: str, runner: asyncio.Runner, tool: PythonTool) -> None:
        self.backend = backend
        self.tier = tier
        self.tool = tool
        self.run = runner.run

    def use(self, work: Callable[[PythonSession], Awaitable[T]]) -> T:
        """What `work` makes of a session of its own."""

        async def main() -> T:
            async with self.tool.session() as session:
                assert isinstance(session, PythonSession)
                return await work(session)

        return self.run(main())

    def cells(self, *codes: str | tuple[str, float], seconds: float = 120.0) -> list[ToolResult]:
        """The results of some cells, run in one session; a cell may bring its own time limit."""
        limited = [(code, seconds) if isinstance(code, str) else code for code in codes]

        async def work(session: PythonSession) -> list[ToolResult]:
            return [await session.call({"code": code}, limit) for code, limit in limited]

        return self.use(work)

    def cell(self, code: str, seconds: float = 120.0) -> ToolResult:
        """The result of one cell."""
        return self.cells(code, seconds=seconds)[0]

"""A python tool that is held for a whole module, with small limits; sessions are cheap."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from interlace.tools import PythonTool, ToolResult
from interlace.tools.python import Limits, PythonSession
from interlace.tools.python.processes import descendants

T = TypeVar("T")


def below() -> dict[int, str]:
    """The processes below this one that have not ended, and their commands.

    Where tests of tools run, orphans are adopted by this process (see tools/conftest.py).
    """
    found = {}
    for pid in descendants(os.getpid()):
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


LIMITS = Limits(memory=600_000_000, processes=40, disk=40_000_000, files=2_000)


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

    def cells(self, *codes: str, seconds: float = 50.0) -> list[ToolResult]:
        """The results of some cells, run in one session."""

        async def work(session: PythonSession) -> list[ToolResult]:
            return [await session.call({"code": code}, seconds) for code in codes]

        return self.use(work)

    def cell(self, code: str, seconds: float = 50.0) -> ToolResult:
        """The result of one cell."""
        return self.cells(code, seconds=seconds)[0]

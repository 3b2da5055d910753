"""A python tool in each tier of isolation, held for a whole module; sessions are cheap."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from interlace.tools import PythonTool, ToolResult
from interlace.tools.errors import ToolUnavailable
from interlace.tools.python import Limits, PythonSession

T = TypeVar("T")
LIMITS = Limits(memory=600_000_000, processes=40, disk=40_000_000, files=2_000)


class Box:
    """Runs cells in sessions of one tool."""

    def __init__(self, tier: str, runner: asyncio.Runner, tool: PythonTool) -> None:
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

    def cells(self, *codes: str, seconds: float = 20.0) -> list[ToolResult]:
        """The results of some cells, run in one session."""

        async def work(session: PythonSession) -> list[ToolResult]:
            return [await session.call({"code": code}, seconds) for code in codes]

        return self.use(work)

    def cell(self, code: str, seconds: float = 20.0) -> ToolResult:
        """The result of one cell."""
        return self.cells(code, seconds=seconds)[0]


@pytest.fixture(scope="module", params=["full", "confined"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    tier = request.param
    with asyncio.Runner() as runner:
        tool = PythonTool(isolation=tier, limits=LIMITS)
        try:
            runner.run(tool.__aenter__())
        except ToolUnavailable as error:
            pytest.skip(str(error))
        try:
            yield Box(tier, runner, tool)
        finally:
            runner.run(tool.__aexit__())

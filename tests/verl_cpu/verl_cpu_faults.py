"""Tools that fail in verl's agent-loop workers: each kind once, at a call of its number.

The third call never ends, the fifth kills the process it runs in (of a database: raises), and in
the seventh it is the tool itself that hangs: our failure, not the policy's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from interlace.rollout import sessions
from interlace.rollout.task import Task
from interlace.tools import Tool, ToolResult, ToolSession
from interlace.tools.named import TOOLS
from interlace.tools.python import PythonTool
from interlace.train.data import task_tools

ENDLESS = {
    "python": {"code": "while True:\n    pass"},
    "sql": {
        "query": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT count(*) FROM n"
    },
}
DEADLY = {"code": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"}


class Faulty:
    """A real tool, and its faults."""

    calls = 0

    def __init__(self, tool: Tool) -> None:
        self._tool: Any = tool
        self.name, self.description, self.arguments = tool.name, tool.description, tool.arguments

    async def __aenter__(self) -> "Faulty":
        await self._tool.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._tool.__aexit__(*error)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        async with self._tool.session() as session:
            yield _Session(self, session)


class _Session:
    def __init__(self, tool: Faulty, session: ToolSession) -> None:
        self._tool, self._session = tool, session

    async def call(self, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        Faulty.calls += 1
        if Faulty.calls == 3:
            arguments = ENDLESS[self._tool.name]
        if Faulty.calls == 5 and self._tool.name == "sql":
            raise RuntimeError("planted")
        if Faulty.calls == 5:
            arguments = DEADLY
        if Faulty.calls == 7:
            await asyncio.sleep(3600)
        return await self._session.call(arguments, seconds)

    async def fork(self) -> ToolSession:
        return _Session(self._tool, await self._session.fork())


def _tools(self: task_tools.TaskTools, task: Task) -> Sequence[Tool]:
    return [Faulty(tool) for tool in _brought(self, task)]


_brought = task_tools.TaskTools.__call__
task_tools.TaskTools.__call__ = _tools  # type: ignore[method-assign]
TOOLS["python"] = lambda backend="sandbox": Faulty(PythonTool(backend))
sessions.GRACE_SECONDS = 10.0  # for a process to be killed and replaced on a busy machine

"""How well a policy does on the arithmetic problems, through the same loop that serves people."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pydantic import BaseModel, JsonValue

from ...rollout.engines.base import Engine, Sampling
from ...rollout.formats import FORMATS
from ...rollout.limits import Limits
from ...rollout.policy import Policy
from ...rollout.runner import Runner
from ...rollout.task import Task, equal_answers
from ...rollout.trajectory import Episode
from ...tools import Tool, ToolResult, ToolSession
from ..generators import check

__all__ = ["Changed", "Score", "Shared", "roll_out"]

_WIPE = "for _n in [n for n in globals() if n in ('total', 'part', 'result')]: del globals()[_n]"


@dataclass(frozen=True, slots=True)
class Score:
    """What came of a number of episodes."""

    problems: int
    correct: int
    shown: int
    """Problems on which the policy made a call, and so was shown a result."""
    follows: int
    """Of those, how many were answered with the last result that was shown."""
    calls: int
    unanswered: int

    @classmethod
    def of(cls, episodes: Sequence[Episode]) -> "Score":
        """Count."""
        shown = [episode for episode in episodes if episode.trajectory.calls]
        return cls(
            problems=len(episodes),
            correct=sum(check(episode.task, episode.answer) for episode in episodes),
            shown=len(shown),
            follows=sum(map(_follows, shown)),
            calls=sum(len(episode.trajectory.calls) for episode in episodes),
            unanswered=sum(episode.answer is None for episode in episodes),
        )

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / self.problems


def _follows(episode: Episode) -> bool:
    shown = episode.trajectory.calls[-1].output
    return episode.answer is not None and equal_answers(episode.answer, shown)


async def roll_out(
    engine: Engine, format: str, tools: Sequence[Tool], tasks: Sequence[Task]
) -> list[Episode]:
    """Each task once, greedily, in the order of the tasks.

    Raises RuntimeError where our own side failed: such an episode says nothing of the policy.
    """
    limits = Limits(turns=8, calls=8, response_tokens=512, tool_output_tokens=256)
    policy = Policy(engine, FORMATS[format], tools, sampling=Sampling(temperature=0), limits=limits)
    episodes = {}
    async for episode in Runner(policy, concurrency=64).run(tasks):
        if episode.error is not None:
            raise RuntimeError(f"{episode.task.id}: {episode.error}")
        episodes[episode.task.id] = episode
    return [episodes[task.id] for task in tasks]


class _Wrapped:
    """A tool that looks to the policy as another one does."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool

    @property
    def name(self) -> str:
        return self.tool.name

    @property
    def description(self) -> str:
        return self.tool.description

    @property
    def arguments(self) -> type[BaseModel]:
        return self.tool.arguments


class Shared(_Wrapped):
    """The python tool with a few sessions that take turns: hundreds of problems need no hundreds
    of interpreters. Between two trajectories, the names that the policy's code uses are removed.
    """

    def __init__(self, tool: Tool, sessions: int = 24) -> None:
        super().__init__(tool)
        self.sessions = sessions
        self._free: asyncio.Queue[ToolSession] = asyncio.Queue()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Shared":
        for _ in range(self.sessions):
            self._free.put_nowait(await self._stack.enter_async_context(self.tool.session()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """One of the sessions, as soon as one is free."""
        session = await self._free.get()
        try:
            yield session
        finally:
            await session.call({"code": _WIPE}, 10.0)
            self._free.put_nowait(session)


Change = Callable[[str, ToolResult], ToolResult]


class Changed(_Wrapped):
    """A tool whose results are changed before the policy reads them.

    `change` gets the code and the true result.
    """

    def __init__(self, tool: Tool, change: Change) -> None:
        super().__init__(tool)
        self.change = change

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """A session of the wrapped tool, with a hand in between."""
        async with self.tool.session() as session:
            yield _ChangedSession(session, self.change)


class _ChangedSession:
    def __init__(self, session: ToolSession, change: Change) -> None:
        self._session = session
        self._change = change

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        result = await self._session.call(arguments, seconds)
        return self._change(str(arguments.get("code", "")), result)

    async def fork(self) -> "_ChangedSession":
        return _ChangedSession(await self._session.fork(), self._change)

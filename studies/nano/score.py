"""How well a policy does on the families of tasks, through the same loop that serves people."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pydantic import BaseModel, JsonValue

from interlace.rollout.engines.base import Engine, Sampling
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools import Tool, ToolResult, ToolSession

from .solve_arithmetic import FORGET

__all__ = ["Changed", "Score", "Shared", "roll_out"]


@dataclass(frozen=True, slots=True)
class Score:
    """The results of a number of episodes."""

    problems: int
    correct: int
    shown: int
    """Problems on which the policy made a call, and so was shown a result."""
    follows: int
    """Of those, how many were answered as the shown results have it."""
    calls: int
    unanswered: int

    @classmethod
    def of(
        cls, episodes: Sequence[Episode], right: Sequence[bool], follows: Sequence[bool]
    ) -> "Score":
        """Count; `right` and `follows` say it of each episode."""
        shown = [bool(episode.trajectory.calls) for episode in episodes]
        return cls(
            problems=len(episodes),
            correct=sum(right),
            shown=sum(shown),
            follows=sum(a and b for a, b in zip(shown, follows, strict=True)),
            calls=sum(len(episode.trajectory.calls) for episode in episodes),
            unanswered=sum(episode.answer is None for episode in episodes),
        )

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / self.problems


async def roll_out(
    engine: Engine,
    format: str,
    tasks: Sequence[Task],
    tools_for: Callable[[Task], Sequence[Tool]],
) -> list[Episode]:
    """Each task once, greedily, in the order of the tasks.

    Raises RuntimeError where our own side failed: such an episode says nothing of the policy.
    """
    limits = Limits(max_turns=8, max_calls=8, max_tokens=1024, max_tool_tokens=384)
    policy = Policy(engine, FORMATS[format], sampling=Sampling(temperature=0), limits=limits)
    episodes = {}
    runner = Runner(policy, concurrency=64, tools_for=tools_for)
    async for episode in runner.run(tasks):
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
            await session.call({"code": FORGET}, 10.0)
            self._free.put_nowait(session)


Change = Callable[[Mapping[str, JsonValue], ToolResult], ToolResult]


class Changed(_Wrapped):
    """A tool with a hand in between: what it is asked, or what it answers, is changed.

    `change` gets the arguments and the true result and gives what the policy reads. `queries` are
    run in turn, whatever is asked. `told`: the tool that the policy is told of, where that is
    another one than the tool that is called.
    """

    def __init__(
        self,
        tool: Tool,
        change: Change | None = None,
        *,
        queries: Sequence[str] = (),
        told: Tool | None = None,
    ) -> None:
        super().__init__(told or tool)
        self.called = tool
        self.change = change
        self.queries = queries

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """A session of the tool that is called."""
        async with self.called.session() as session:
            yield _ChangedSession(session, self)


class _ChangedSession:
    def __init__(self, session: ToolSession, tool: Changed, calls: int = 0) -> None:
        self._session = session
        self._tool = tool
        self._calls = calls

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        if queries := self._tool.queries:
            arguments = {"query": queries[min(self._calls, len(queries) - 1)]}
        self._calls += 1
        result = await self._session.call(arguments, seconds)
        return result if self._tool.change is None else self._tool.change(arguments, result)

    async def fork(self) -> "_ChangedSession":
        return _ChangedSession(await self._session.fork(), self._tool, self._calls)

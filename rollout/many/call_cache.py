"""Calls that several attempts at one task make alike, answered once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, JsonValue

from ...tools import (
    Budgeted,
    ErrorKind,
    PureTool,
    StartedSession,
    Tool,
    ToolResult,
    ToolSession,
)

__all__ = ["cache_calls"]

_PASSING = (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.DIED)
"""Transient errors; results with these are not cached."""


def cache_calls(tools: Sequence[Tool]) -> list[Tool]:
    """The same tools, in which those that are `pure` answer the same call only once.

    For the attempts at one task: what is shared lives as long as the tools that are returned. A
    shared result has `details["shared"]`.
    """
    pure = [isinstance(tool, PureTool) and tool.pure for tool in tools]
    return [
        _CachingTool(tool) if cached else tool for tool, cached in zip(tools, pure, strict=True)
    ]


class _CachingTool:
    """A pure tool that remembers its results, and lets equal calls wait for the first."""

    pure = True

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._results: dict[str, ToolResult] = {}
        self._under_way: dict[str, asyncio.Lock] = {}

    @property
    def name(self) -> str:
        return self._tool.name

    @property
    def description(self) -> str:
        return self._tool.description

    @property
    def arguments(self) -> type[BaseModel]:
        return self._tool.arguments

    def within(self, budget: int, count: Callable[[str], int]) -> Tool:
        """The same, with the same memory: all attempts at a task have one budget."""
        same = copy(self)
        if isinstance(self._tool, Budgeted):
            same._tool = self._tool.within(budget, count)
        return same

    def session(self) -> AbstractAsyncContextManager[ToolSession]:
        return self._session()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[ToolSession]:
        async with self._tool.session() as session:
            started = isinstance(session, StartedSession)
            yield (
                _StartedCachingSession(self, session) if started else _CachingSession(self, session)
            )

    async def answer(
        self, session: ToolSession, arguments: Mapping[str, JsonValue], seconds: float
    ) -> ToolResult:
        """The result of a call: of an equal one before, or of this one."""
        key, begun = json.dumps(arguments, sort_keys=True), time.perf_counter()
        lock = self._under_way.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(seconds):  # waiting counts, as the call itself would
                await lock.acquire()
        except TimeoutError:
            text = f"The time limit of {seconds:g} s was reached."
            return ToolResult(text, ErrorKind.TIMEOUT, seconds=seconds)
        try:
            waited = time.perf_counter() - begun
            known = self._results.get(key)
            if known is not None:
                return replace(known, seconds=waited, details={**known.details, "shared": True})
            result = await session.call(arguments, max(seconds - waited, 1e-3))
            if result.error not in _PASSING:
                self._results[key] = result
            return result
        finally:
            lock.release()


class _CachingSession:
    """One attempt's session: of a pure tool, it keeps nothing between calls."""

    stateless: Literal[True] = True

    def __init__(self, tool: _CachingTool, session: ToolSession) -> None:
        self._tool = tool
        self._session = session

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        return await self._tool.answer(self._session, arguments, seconds)

    async def fork(self) -> ToolSession:
        return type(self)(self._tool, await self._session.fork())


class _StartedCachingSession(_CachingSession):
    """The same, of a session that takes time to start."""

    async def ready(self) -> None:
        assert isinstance(self._session, StartedSession)
        await self._session.ready()

    @property
    def details(self) -> Mapping[str, JsonValue]:
        assert isinstance(self._session, StartedSession)
        return self._session.details

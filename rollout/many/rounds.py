"""Rollouts in rounds: attempts that are unfinished when a round ends continue in the next one."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Self

from ..task import Task
from ..trajectory import Episode
from .runner import Enough, Runner

__all__ = ["PartialRollouts"]

_LOOK = 0.02
"""Seconds between two looks at the budget of tokens."""


class PartialRollouts:
    """Groups of episodes in rounds that end after a time, a number of tokens, or of groups.

    Between two rounds nothing is sampled, and the weights may be replaced: the attempts under way
    keep their tokens and the state of their tools, and continue after their last token. Each span
    of a ledger says which weights drew it. `tasks` is consumed lazily.

    Example:
        async with PartialRollouts(runner, tasks, n=8, seed=0) as rollouts:
            while groups := await rollouts.round(groups=16, seconds=60):
                await engine.update_weights(learn(groups))
    """

    def __init__(
        self,
        runner: Runner,
        tasks: Iterable[Task],
        *,
        n: int,
        seed: int | None = None,
        enough: Enough | None = None,
    ) -> None:
        self._gate = runner.sampling_gate
        self._metrics = runner.metrics
        self._groups = runner.groups(tasks, n=n, seed=seed, enough=enough)
        self._next: asyncio.Task[list[Episode] | None] | None = None
        self.over = False
        """Whether all groups have been given."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def round(
        self,
        *,
        groups: int | None = None,
        seconds: float | None = None,
        tokens: int | None = None,
    ) -> list[list[Episode]]:
        """Go on until so many groups are complete, or the time or the tokens are used up.

        Returns the groups that are complete: none where the budget was too small for one, or all
        have been given (`over`). When it returns, the engine is at rest.
        """
        complete: list[list[Episode]] = []
        end = None if seconds is None else time.monotonic() + seconds
        last_token = None if tokens is None else self._metrics.tokens + tokens
        self._gate.reopen()
        try:
            while not self.over and (groups is None or len(complete) < groups):
                group = await self._wait(end, last_token)
                if group is None:
                    break
                complete.append(group)
        finally:
            await self._gate.hold()
        return complete

    async def aclose(self) -> None:
        """Cancel what is under way; the runner's `interrupted` keeps what it had."""
        self._gate.reopen()
        if self._next is not None:
            self._next.cancel()
            with suppress(asyncio.CancelledError):
                await self._next
        await self._groups.aclose()
        self.over = True

    async def _wait(self, end: float | None, last_token: int | None) -> list[Episode] | None:
        """The next complete group; None where the budget is used up first, or there is none."""
        if self._next is None:
            self._next = asyncio.create_task(_next(self._groups))
        while not self._next.done():
            left = None if end is None else end - time.monotonic()
            used_up = last_token is not None and self._metrics.tokens >= last_token
            if used_up or (left is not None and left <= 0):
                return None
            patience = left if last_token is None else min(_LOOK, left or _LOOK)
            await asyncio.wait([self._next], timeout=patience)
        group = self._next.result()
        self._next = None
        self.over = group is None
        return group


async def _next(groups: AsyncGenerator[list[Episode], None]) -> list[Episode] | None:
    return await anext(groups, None)

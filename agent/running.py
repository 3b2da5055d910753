"""One question on its way: its events, and how to stop it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Generic, Literal, Self, TypeAlias

from typing_extensions import TypeVar

from .events import AgentEvent, Done
from .result import Result

__all__ = ["After", "Run"]

T = TypeVar("T", default=None)

After: TypeAlias = Literal["token", "turn"]


class Run(Generic[T]):
    """An asynchronous iterator of events; the last one is `Done`, with the result.

    `cancel` ends it with all that there is: the stream goes on to its `Done`. Closing it
    (`aclosing`), or cancelling the task that reads it, ends it without.

    Example:
        run = agent.stream("How many bolts are in 296 crates of 4387?")
        async for event in run:
            if too_long(event):
                run.cancel(after="turn")
        print(run.result.stop, run.result.text)
    """

    def __init__(self, events: "Callable[[Run[T]], AsyncGenerator[AgentEvent[T], None]]") -> None:
        self.result: Result[T] | None = None
        """The result, once `Done` has come."""
        self._after: After | None = None
        self._stop: Callable[[After], None] | None = None
        self._events = events(self)

    def cancel(self, after: After = "token") -> None:
        """Stop the answer: at once, or when the turn under way, its tool calls included, is over.

        May be called from any thread, before the stream is read too.
        """
        self._after = after
        if self._stop is not None:
            self._stop(after)

    def stopped_by(self, stop: Callable[[After], None]) -> None:
        """Whoever answers says how it is stopped; called in their event loop."""
        loop = asyncio.get_running_loop()

        def stop_there(after: After) -> None:
            loop.call_soon_threadsafe(stop, after)

        self._stop = stop_there
        if self._after is not None:
            stop(self._after)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AgentEvent[T]:
        """The next event."""
        event = await anext(self._events)
        if isinstance(event, Done):
            self.result = event.result
        return event

    async def aclose(self) -> None:
        """Stop the answer, if it is still on its way, and wait until all is cleaned up."""
        await self._events.aclose()

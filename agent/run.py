"""One question being answered: its events, how to stop it, and threads for synchronous callers.

AgentRun         an iterator of events that can be cancelled
Answerer         what Agent and Team share: async methods and their synchronous counterparts
LazyResource     what takes long to make (a model), made once for all who wait for it
"""

import asyncio
import concurrent.futures
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Generic, Literal, Self, TypeAlias

from typing_extensions import TypeVar

from ..tools.background import BackgroundLoop
from .events import AgentEvent, Done
from .messages import Question
from .result import Result

__all__ = ["After", "AgentRun", "Answerer", "LazyResource"]

T = TypeVar("T", default=None)
V = TypeVar("V")

After: TypeAlias = Literal["token", "turn"]


class AgentRun(Generic[T]):
    """An asynchronous iterator of events; the last one is `Done`, with the result.

    `cancel` ends it with all that there is: the stream continues to its `Done`. Closing it
    (`aclosing`), or cancelling the task that reads it, ends it without.

    Example:
        run = agent.stream("How many bolts are in 296 crates of 4387?")
        async for event in run:
            if too_long(event):
                run.cancel(after="turn")
        print(run.result.stop, run.result.text)
    """

    def __init__(
        self, events: "Callable[[AgentRun[T]], AsyncGenerator[AgentEvent[T], None]]"
    ) -> None:
        self.result: Result[T] | None = None
        """The result, once `Done` has come."""
        self._queue: asyncio.Queue[AgentEvent[T] | None] = asyncio.Queue()
        self._after: After | None = None
        self._stop: Callable[[After], object] | None = None
        self._events = events(self)

    def cancel(self, after: After = "token") -> None:
        """Stop the answer: at once, or when the turn under way, its tool calls included, is over.

        May be called from any thread, before the stream is read too.
        """
        self._after = after
        if self._stop is not None:
            self._stop(after)

    def emit(self, event: AgentEvent[T]) -> None:
        """Add an event to those that `follow` yields; for the side that answers."""
        self._queue.put_nowait(event)

    async def follow(
        self, work: Coroutine[Any, Any, object], stop_after_turn: Callable[[], None] | None = None
    ) -> AsyncGenerator[AgentEvent[T], None]:
        """Do `work`, and yield the events that it emits meanwhile; for the side that answers.

        `cancel` cancels `work`, or calls `stop_after_turn` if that is wanted and possible; the
        generator then ends as if `work` had. Raises what `work` raises otherwise. Closing the
        generator cancels `work` and waits for it.
        """
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._queue.put_nowait(None))
        loop, stopped = asyncio.get_running_loop(), False

        def stop(after: After) -> None:
            nonlocal stopped
            if after == "turn" and stop_after_turn is not None:
                stop_after_turn()
            else:
                stopped = task.cancel()

        try:
            await asyncio.sleep(0)  # it has begun, so that whatever stops it leaves a result
            self._stop = lambda after: loop.call_soon_threadsafe(stop, after)
            if self._after is not None:  # `cancel` was called before anything was read
                stop(self._after)
            while (event := await self._queue.get()) is not None:
                yield event
            if not (stopped and task.cancelled()):
                task.result()
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

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


class Answerer(ABC, Generic[T]):
    """Base class of Agent and Team: async methods and their synchronous counterparts.

    The methods whose names end in `_sync` need no event loop and work inside a running one too.
    """

    def __init__(self) -> None:
        self.last: Result[T] | None = None
        """The latest result of `run` or `stream`, of a question that was cancelled too."""
        self._background: BackgroundLoop | None = None

    @abstractmethod
    async def run(self, question: Question) -> Result[T]:
        """Answer one question."""

    @abstractmethod
    def stream(self, question: Question) -> AgentRun[T]:
        """The events as they happen, and at the end `Done` with the result."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free what was started."""

    @abstractmethod
    def _hold(self, kept: bool) -> None:
        """Set whether started tools are kept from question to question."""

    async def __aenter__(self) -> Self:
        self._hold(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hold(False)
        await self.aclose()

    def run_sync(self, question: Question) -> Result[T]:
        """As `run`. Ctrl-C stops the answer and raises KeyboardInterrupt; `last` is what it had."""
        return self.wait(self.run(question))

    def stream_sync(self, question: Question) -> Iterator[AgentEvent[T]]:
        """As `stream`."""
        return self._events_sync(self.stream(question))

    def close(self) -> None:
        """As `aclose`, for one that was used through its sync methods."""
        if self._background is not None:
            self.wait(self.aclose())
            self._background.close()
            self._background = None

    def __enter__(self) -> Self:
        self._hold(True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(False)
        self.close()

    def _events_sync(self, run: AgentRun[T]) -> Iterator[AgentEvent[T]]:
        async def step() -> AgentEvent[T] | None:
            return await anext(run, None)

        try:
            while (event := self.wait(step())) is not None:
                yield event
        finally:
            self.wait(run.aclose())

    def wait(self, work: Coroutine[Any, Any, V]) -> V:
        """Run async work to its end from sync code, in the event loop of the sync methods."""
        if self._background is None:
            self._background = BackgroundLoop()
        return self._background.run(work)


class LazyResource(Generic[V]):
    """A value that takes long to make: made once, for all who wait for it, from any event loop.

    It is made in a thread that never keeps the program alive and can't be stopped: who stops
    waiting leaves it going for the others.
    """

    def __init__(self, make: Callable[[], V], discard: Callable[[V], None]) -> None:
        """`discard` is called in that thread with a value that is ready only after `give_up`."""
        self._make, self._discard = make, discard
        self._made: concurrent.futures.Future[V] = concurrent.futures.Future()
        # From now on it can't be cancelled by one of those who wait.
        self._made.set_running_or_notify_cancel()
        threading.Thread(target=self._run, name="interlace-load", daemon=True).start()

    @property
    def failed(self) -> bool:
        """True if making it failed or was given up."""
        return self._made.done() and self._made.exception() is not None

    async def wait(self) -> V:
        """Return the object made. Raises the error of `make`, or the one given to `give_up`."""
        return await asyncio.wrap_future(self._made)

    def give_up(self, error: Exception) -> V | None:
        """Nobody wants it any more: what is there already is returned, and the caller's to free;
        else those who still wait get `error`, and what comes is discarded.
        """
        try:
            self._made.set_exception(error)
        except concurrent.futures.InvalidStateError:
            return None if self.failed else self._made.result()
        return None

    def _run(self) -> None:
        try:
            made = self._make()
        except BaseException as error:  # a thread has nobody above it to raise to
            with suppress(concurrent.futures.InvalidStateError):  # given up: nobody waits
                self._made.set_exception(error)
            return
        try:
            self._made.set_result(made)
        except concurrent.futures.InvalidStateError:
            self._discard(made)

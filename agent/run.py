"""One question being answered: its events, how to stop it, and threads for synchronous callers.

AgentRun         an iterator of events that can be cancelled
AnswerFeed       the other side of it: where the events come from
Answerer         what Agent and Team share: async methods and their synchronous counterparts
LazyResource     what takes long to make (a model), made once for all who wait for it
"""

import asyncio
import concurrent.futures
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Generic, Literal, Self, TypeAlias

from typing_extensions import TypeVar

from ..tools.background import BackgroundLoop
from ..tools.errors import UsageError
from ..tools.forks import renew_in_child
from .events import AgentEvent, Done
from .messages import Question
from .result import Result

__all__ = ["After", "AgentRun", "AnswerFeed", "Answerer", "LazyResource"]

T = TypeVar("T", default=None)
V = TypeVar("V")

After: TypeAlias = Literal["token", "turn"]


class AnswerFeed(Generic[T]):
    """The answering side of an `AgentRun`: takes its events, and is told to stop."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[AgentEvent[T] | None] = asyncio.Queue()
        """The events that were not read yet; None after the last one."""
        self._after: After | None = None
        self._stop: Callable[[After], object] | None = None

    def emit(self, event: AgentEvent[T]) -> None:
        """Add an event to the stream."""
        self.queue.put_nowait(event)

    def cancel(self, after: After) -> None:
        """Stop the work under way; from any thread, before it has begun too."""
        self._after = after
        if (stop := self._stop) is not None:  # the work may end meanwhile, in its own thread
            stop(after)

    async def until_stopped(
        self, work: Awaitable[object], stop_after_turn: Callable[[], None] | None = None
    ) -> None:
        """Do `work` to its end, or until `cancel`, which cancels it, or calls `stop_after_turn` if
        that is wanted and possible. Raises what `work` raises otherwise.
        """
        loop, task, stopped = asyncio.get_running_loop(), asyncio.current_task(), False
        assert task is not None

        def stop(after: After) -> None:
            nonlocal stopped
            if self._stop is None:
                return  # the work has ended meanwhile
            if after == "turn" and stop_after_turn is not None:
                stop_after_turn()
            elif not stopped:
                stopped = task.cancel()

        self._stop = lambda after: loop.call_soon_threadsafe(stop, after)
        if self._after is not None:  # soon: it begins first, so that it leaves a result
            loop.call_soon(stop, self._after)
        try:
            await work
        except asyncio.CancelledError:
            if not stopped or task.uncancel():  # somebody else cancelled it too
                raise
        finally:
            self._stop = None


class AgentRun(Generic[T]):
    """An asynchronous iterator of events; the last one is `Done`, with the result.

    `cancel` ends it with all that there is: the stream continues to its `Done`. Leaving its context
    (`async with`), closing it, dropping it (by a `break` from `async for event in agent.stream()`)
    or cancelling the task that reads it ends it without; the model and its tools stop then too.

    Example:
        async with agent.stream("How many bolts are in 296 crates of 4387?") as run:
            async for event in run:
                if too_long(event):
                    run.cancel(after="turn")
        print(run.result.stop, run.result.text)
    """

    def __init__(self, answer: Callable[[AnswerFeed[T]], Coroutine[Any, Any, None]]) -> None:
        """`answer` emits all events; it is started when the first one is asked for."""
        self.result: Result[T] | None = None
        """The result, once `Done` has come."""
        self._answer = answer
        self._feed: AnswerFeed[T] = AnswerFeed()
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def cancel(self, after: After = "token") -> None:
        """Stop the answer: at once, or when the turn under way, its tool calls included, is over.

        May be called from any thread, before the stream is read too.
        """
        self._feed.cancel(after)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AgentEvent[T]:
        """The next event."""
        if self._over:
            raise StopAsyncIteration
        if self._task is not None and self._task.get_loop() is not asyncio.get_running_loop():
            raise UsageError("a stream is read in the event loop that it was begun in")
        if self._task is None:
            self._task = asyncio.create_task(self._answer(self._feed))
            # It knows nothing of this object, which may then be dropped while it runs.
            queue = self._feed.queue
            self._task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            event = await self._feed.queue.get()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        if event is None:
            if not self._over:
                self._over = True
                self._task.result()
            raise StopAsyncIteration
        if isinstance(event, Done):
            self.result = event.result
        return event

    async def aclose(self) -> None:
        """Stop the answer, if it is still on its way, and wait until all is cleaned up."""
        task, over, self._over = self._task, self._over, True
        if over or task is None:
            return
        if task.get_loop() is not asyncio.get_running_loop():
            self.__del__()
            return
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """Stop the answer if nobody can read it any more."""
        task = self._task
        if task is not None and not task.done():
            with suppress(RuntimeError):  # its event loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)

    def __repr__(self) -> str:
        state = "not begun" if self._task is None else "ended" if self._over else "under way"
        return f"<AgentRun {state if self.result is None else self.result!r}>"


class Answerer(ABC, Generic[T]):
    """Base class of Agent and Team: async methods and their synchronous counterparts.

    The methods whose names end in `_sync` need no event loop and work inside a running one too.
    """

    def __init__(self) -> None:
        self.last: Result[T] | None = None
        """The latest result of `run` or `stream`, of a question that was cancelled too."""
        self._lock = threading.Lock()
        self._background: BackgroundLoop | None = None
        renew_in_child(self)

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
        """As `aclose`, from sync code. Other threads may ask meanwhile: what they asked before ends
        with a UsageError or a result that says so; what they ask later starts everything again.
        """
        with self._lock:
            background, self._background = self._background, None
        background = background or BackgroundLoop()
        try:
            background.run(self.aclose())
        finally:
            background.close()

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
            if self._background is not None:  # else it was closed, and ended the answer
                self.wait(run.aclose())

    def wait(self, work: Coroutine[Any, Any, V]) -> V:
        """Run async work to its end from sync code, in the event loop of the sync methods.

        Any number of threads may do so at once: they share that loop.
        """
        with self._lock:
            if self._background is None:
                self._background = BackgroundLoop()
            background = self._background
        return background.run(work)

    def after_fork(self) -> None:
        """Start again in a forked process: threads, event loops and tools are the parent's."""
        self._lock = threading.Lock()
        self._background = None


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

    @property
    def ready(self) -> bool:
        """True if it was made."""
        return self._made.done() and self._made.exception() is None

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

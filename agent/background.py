"""Threads: an event loop for those who don't write async code, and what takes long to make."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

__all__ = ["BackgroundLoop", "Making"]

T = TypeVar("T")


class BackgroundLoop:
    """Runs coroutines for a thread that waits; works where a loop runs already (Jupyter) too."""

    def __init__(self) -> None:
        # On closing, the runner cancels what is still under way and waits for it.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._serve, name="interlace", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` and return or raise what it does.

        Ctrl-C cancels it, waits until it has cleaned up, and raises KeyboardInterrupt.
        """
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(settle)

        def settle(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                outcome.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        self._loop.call_soon_threadsafe(start)
        try:
            return outcome.result()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            concurrent.futures.wait([outcome])
            raise

    def close(self) -> None:
        """Cancel what is still under way, wait until it has cleaned up, and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        with self._runner:
            self._loop.run_forever()


class Making(Generic[T]):
    """Something that takes long to make: made once, for all who wait for it, from any event loop.

    It is made in a thread that never keeps the program alive and can't be stopped: who stops
    waiting leaves it going for the others.
    """

    def __init__(self, make: Callable[[], T], discard: Callable[[T], None]) -> None:
        """`discard` is called in that thread with what comes when nobody wants it any more."""
        self._make, self._discard = make, discard
        self._made: concurrent.futures.Future[T] = concurrent.futures.Future()
        # From now on it can't be cancelled by one of those who wait.
        self._made.set_running_or_notify_cancel()
        threading.Thread(target=self._run, name="interlace-load", daemon=True).start()

    @property
    def failed(self) -> bool:
        """True if making it failed or was given up."""
        return self._made.done() and self._made.exception() is not None

    async def wait(self) -> T:
        """Return the object made. Raises the error of `make`, or the one given to `give_up`."""
        return await asyncio.wrap_future(self._made)

    def give_up(self, error: Exception) -> T | None:
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

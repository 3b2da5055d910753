"""An event loop in a thread of its own, for callers that are not asynchronous; and the reverse:
work in a thread, for a loop that must not wait.
"""

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple, Unpack

from .errors import UsageError

__all__ = ["BackgroundLoop", "in_thread"]

V = TypeVar("V")
Arguments = TypeVarTuple("Arguments")


async def in_thread(work: Callable[[Unpack[Arguments]], V], *arguments: *Arguments) -> V:
    """Run `work` once: in a thread, or in this one if the machine can't start another."""
    outcome: concurrent.futures.Future[V] = concurrent.futures.Future()
    first = threading.Lock()

    def run() -> None:
        if not first.acquire(blocking=False) or not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:  # it is raised where `work` is awaited
            outcome.set_exception(error)

    context = contextvars.copy_context()
    try:
        asyncio.get_running_loop().run_in_executor(None, context.run, run)
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        run()  # the executor has kept it: a busy thread may have begun it, or come to it later
    return await asyncio.wrap_future(outcome)


class BackgroundLoop:
    """Runs coroutines for threads that wait; works where a loop runs already (Jupyter) too."""

    def __init__(self) -> None:
        # On closing, the runner cancels what is still under way and waits for it.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._waiting: set[concurrent.futures.Future[Any]] = set()
        self._thread = threading.Thread(target=self._serve, name="interlace", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, V]) -> V:
        """Wait for `work` and return or raise what it does; from any number of threads at once.

        Ctrl-C cancels it, waits until it has cleaned up, and raises KeyboardInterrupt. Raises
        UsageError in the loop's own thread, which would wait for itself, and if the loop is closed
        before the work has ended.
        """
        outcome: concurrent.futures.Future[V] = concurrent.futures.Future()
        tasks: list[asyncio.Task[V]] = []

        def start() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(settle)

        def settle(task: asyncio.Task[V]) -> None:
            if task.cancelled():
                outcome.set_exception(_closed() if self._closed else asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        if threading.current_thread() is self._thread:
            work.close()
            raise UsageError(
                "a sync method was called in the event loop that it would wait for (by an async "
                "tool or a hook, perhaps): await its async twin there"
            )
        with self._lock:
            if self._closed:
                work.close()
                raise _closed()
            self._waiting.add(outcome)
            self._loop.call_soon_threadsafe(start)
        try:
            return outcome.result()
        except KeyboardInterrupt:
            with suppress(RuntimeError):  # another thread has closed the loop meanwhile
                self._loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            concurrent.futures.wait([outcome])
            raise
        finally:
            self._waiting.discard(outcome)

    def close(self) -> None:
        """Cancel what is still under way, wait until it has cleaned up, and end the thread."""
        with self._lock:
            closing, self._closed = not self._closed, True
            if closing:
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        with self._runner:
            self._loop.run_forever()
        for outcome in list(self._waiting):  # asked for while the loop was being closed
            if not outcome.done():
                outcome.set_exception(_closed())


def _closed() -> UsageError:
    return UsageError("it was closed while a question was being answered")

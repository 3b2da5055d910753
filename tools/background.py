"""An event loop in a thread of its own, for callers that are not asynchronous; and the reverse:
work in a thread, for a loop that must not wait.
"""

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple, Unpack

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
    """Runs coroutines for a thread that waits; works where a loop runs already (Jupyter) too."""

    def __init__(self) -> None:
        # On closing, the runner cancels what is still under way and waits for it.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._serve, name="interlace", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, V]) -> V:
        """Wait for `work` and return or raise what it does.

        Ctrl-C cancels it, waits until it has cleaned up, and raises KeyboardInterrupt.
        """
        outcome: concurrent.futures.Future[V] = concurrent.futures.Future()
        tasks: list[asyncio.Task[V]] = []

        def start() -> None:
            task = self._loop.create_task(work)
            tasks.append(task)
            task.add_done_callback(settle)

        def settle(task: asyncio.Task[V]) -> None:
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

"""The thread that runs the model, and the way between it and the event loops that ask."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import torch

from ....tools.forks import renew_in_child
from ...trajectory import FinishReason
from ..base import Chunk, EngineError
from ..pending_request import DELIVERY_SECONDS, Item, PendingRequest, deliver
from .batch import BatchRow, BrokenModel, RunningBatch
from .memory import one_memory_error

__all__ = ["EngineThread", "PendingRow"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False, kw_only=True)
class PendingRow(PendingRequest):
    """A request that is a row of the batch, or waits to become one."""

    row: BatchRow


class EngineThread:
    """Runs the batch in its own thread; all other methods may be called from any thread."""

    def __init__(self, batch: RunningBatch, max_batch: int) -> None:
        self._batch = batch
        self._max_batch = max_batch
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._waiting: deque[PendingRow] = deque()
        self._running: dict[BatchRow, PendingRow] = {}
        # Memory ran out: nobody is admitted until one of those who run has left.
        self._full = False
        self._update: tuple[dict[str, torch.Tensor], Future[int]] | None = None
        self._delivered_at = 0.0
        self._closing = False
        self._lock = threading.Lock()
        self._dead: str | None = None
        self._thread = threading.Thread(target=self._run, name="interlace-engine", daemon=True)
        self._thread.start()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Refuse requests in a forked process, where the thread does not run."""
        self._lock = threading.Lock()
        self._dead = self._dead or (
            "the model was loaded before this process was forked, and can't be used in it: ask the "
            "first question after the fork, in each process"
        )

    def submit(self, pending: PendingRow) -> None:
        """Queue a request; raises EngineError where the engine has ended."""
        self._send(lambda: self._waiting.append(pending))

    def cancel(self, pending: PendingRow) -> None:
        """Stop a request, if it still runs."""
        self._send(lambda: self._cancel(pending), quiet=True)

    def release(self, context: str) -> None:
        """Keep nothing more for this trajectory."""
        self._send(lambda: self._batch.drop(context), quiet=True)

    def update(self, state: dict[str, torch.Tensor]) -> "Future[int]":
        """Replace the weights once no request runs; gives the new version."""
        future: Future[int] = Future()
        self._send(lambda: self._ask_update(state, future))
        return future

    def close(self) -> None:
        """End the thread; requests in flight end as cancelled."""

        def closing() -> None:
            self._closing = True

        self._send(closing, quiet=True)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _send(self, command: Callable[[], None], *, quiet: bool = False) -> None:
        with self._lock:  # after the last look at the queue, nothing may be put in it
            if self._dead is None:
                self._commands.put(command)
            elif not quiet:
                raise EngineError(self._dead)

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._obey():
                    self._step()
            dead = "the engine is closed"
        # Whatever it is, those who wait must hear of it.
        except BaseException as error:
            dead = f"the engine stopped after {type(error).__name__}: {error}"
            _log.exception("the engine stopped")
        with self._lock:
            self._dead = dead
        self._end(dead)

    def _end(self, dead: str) -> None:
        requests = list(self._running.values())
        self._running.clear()
        self._batch.clear()
        while not self._commands.empty():
            self._commands.get()()
        requests += self._waiting
        if self._closing:
            for pending in requests:
                pending.row.finish = FinishReason.CANCELLED
            self._tell((pending, pending.row.chunk()) for pending in requests)
        else:
            self._tell((pending, EngineError(dead)) for pending in requests)
        if self._update is not None and self._update[1].set_running_or_notify_cancel():
            self._update[1].set_exception(EngineError(dead))

    def _obey(self) -> bool:
        """Carry out what was asked, waiting where there is nothing to run; False at the end."""
        while not self._closing:
            idle = not (self._running or self._waiting or self._update)
            try:
                self._commands.get(block=idle)()
            except Empty:
                return True
        return False

    def _step(self) -> None:
        try:
            if self._update is not None and not self._running and not self._begun():
                update, self._update = self._update, None
                if update[1].set_running_or_notify_cancel():  # who asked may have gone
                    self._load(*update)
            self._admit()
            if self._running:
                self._deliver(self._batch.step())
        except BrokenModel as error:
            self._fail_running(str(error))
        except MemoryError as error:
            self._make_room(error)

    def _begun(self) -> bool:
        """True if the next waiting request has sampled already and was pushed out."""
        return bool(self._waiting and self._waiting[0].row.sampled)

    def _admit(self) -> None:
        later: list[PendingRow] = []
        try:
            while self._waiting and len(self._running) < self._max_batch and not self._full:
                if self._update is not None and not self._begun():
                    break  # the others start with the new weights
                pending = self._waiting.popleft()
                if self._batch.better_later(pending.row):
                    later.append(pending)
                else:
                    self._running[pending.row] = pending
                    self._admit_one(pending)
        finally:  # whatever happens, nobody is forgotten
            self._waiting.extendleft(reversed(later))

    def _admit_one(self, pending: PendingRow) -> None:
        try:
            self._batch.admit(pending.row)
        except MemoryError as error:
            del self._running[pending.row]
            if self._running:
                self._waiting.appendleft(pending)
                self._full = True
            else:
                self._tell([(pending, _no_room(pending, error))])

    def _make_room(self, error: MemoryError) -> None:
        """A step did not fit: do without what is kept, else without the row that came last, which
        goes on when another has left. A row that is alone has failed.
        """
        if self._batch.drop_kept():
            return
        row, pending = self._running.popitem()
        if self._running:
            self._batch.preempt(row)
            self._waiting.appendleft(pending)
            self._full = True
            if len(row.sampled) > row.delivered:
                self._tell([(pending, row.chunk())])
            self._tell([(pending, Chunk((), (), version=row.version))])  # it waits again
        else:
            self._batch.clear()
            self._full = False
            self._tell([(pending, _no_room(pending, error))])

    def _deliver(self, finished: list[BatchRow]) -> None:
        now = time.monotonic()
        rows = finished
        if now - self._delivered_at >= DELIVERY_SECONDS:
            self._delivered_at = now
            rows = [row for row in self._running if len(row.sampled) > row.delivered]
        requests = [self._running[row] for row in rows]
        for row in finished:
            self._remove(row)
        self._tell((pending, pending.row.chunk()) for pending in requests)

    def _cancel(self, pending: PendingRow) -> None:
        if pending in self._waiting:
            self._waiting.remove(pending)
        elif pending.row in self._running:
            self._remove(pending.row)

    def _remove(self, row: BatchRow) -> None:
        del self._running[row]
        self._batch.remove(row)
        self._full = False

    def _ask_update(self, state: dict[str, torch.Tensor], future: "Future[int]") -> None:
        if self._update is not None:
            if future.set_running_or_notify_cancel():
                future.set_exception(EngineError("another update of the weights is under way"))
        else:
            self._update = (state, future)

    def _load(self, state: dict[str, torch.Tensor], future: "Future[int]") -> None:
        try:
            with one_memory_error():
                self._batch.load(state)
        except ValueError as error:
            future.set_exception(error)
        except BaseException as error:
            future.set_exception(EngineError(f"the weights are half replaced: {error}"))
            # Not for `_make_room`: no request may be served with such weights.
            raise RuntimeError(f"replacing the weights failed half-way: {error}") from error
        else:
            future.set_result(self._batch.version)

    def _fail_running(self, message: str) -> None:
        requests = list(self._running.values())
        self._running.clear()
        self._batch.clear()
        self._full = False
        self._tell((pending, EngineError(message)) for pending in requests)

    def _tell(self, items: Iterable[tuple[PendingRow, Item]]) -> None:
        for pending in deliver(items):
            self._cancel(pending)


def _no_room(pending: PendingRow, error: MemoryError) -> EngineError:
    return EngineError(
        f"out of memory for a context of {len(pending.row.prompt)} tokens, with no other beside it "
        f"({error}): take a smaller model, a lower max_context or dtype='bfloat16'"
    )

"""The service that passes requests to vLLM, on its own event loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...tokenizer import Tokenizer
from ...trajectory import FinishReason
from ..base import Chunk, EngineError, Request, Sampling
from ..pending_request import DELIVERY_SECONDS, Item, PendingRequest, deliver
from ..stops import StopFinder, completing_ids
from .kept_contexts import KeptContexts, ResumableRequest

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["PendingTask", "Service"]

# How full the blocks of keys and values may be before contexts that wait for a tool are let go.
_FULL = 0.9


@dataclass(slots=True, eq=False, kw_only=True)
class PendingTask(PendingRequest):
    """A request, and the task of the service that serves it."""

    request: Request
    task: asyncio.Task[None] | None = None


class Service:
    """Admits requests, keeps their contexts, changes the weights. All of it on one event loop."""

    def __init__(
        self, llm: "AsyncLLM", tokenizer: Tokenizer, contexts: KeptContexts | None, max_batch: int
    ) -> None:
        self.version = 0
        self.context_length = int(llm.model_config.max_model_len)
        self.false_alarms = self.overshoot = 0
        self.usage = 0.0
        self._llm = llm
        self.tokenizer = tokenizer
        self._contexts = contexts
        self._slots = asyncio.Semaphore(max_batch)
        self._names = count()
        self._completing: dict[tuple[str, ...], list[int] | None] = {}
        self._pending: set[PendingTask] = set()
        self._sampling = 0
        self._closing = self._asleep = False
        # Shut while the weights change.
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._changing = asyncio.Lock()
        self._broken: str | None = None
        self._outbox: list[tuple[PendingTask, Item]] = []

    # -- requests -------------------------------------------------------------------------------

    def submit(self, pending: PendingTask) -> None:
        """Serve a request."""
        if self._closing:
            self._tell(pending, EngineError("the engine is closed"))
            return
        self._pending.add(pending)
        pending.task = asyncio.ensure_future(self._serve(pending))

    def cancel(self, pending: PendingTask) -> None:
        """Stop a request, if it still runs."""
        if pending.task is not None:
            pending.task.cancel()

    def release(self, context: str) -> None:
        """Keep nothing more for this trajectory."""
        if self._contexts is not None:
            self._contexts.drop(context)

    async def close(self) -> None:
        """Cancel all; they end as cancelled, with what they have."""
        self._closing = True
        tasks = [pending.task for pending in self._pending if pending.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._contexts is not None:
            await self._contexts.clear()

    def record(self, usage: float, preempted: int) -> None:
        """Record a step of vLLM: the share of blocks in use, the number of requests pushed out."""
        self.usage = usage
        if self._contexts is not None:
            self._contexts.preempted += preempted
            if usage > _FULL or preempted:
                self._contexts.make_room()

    def figures(self) -> dict[str, float]:
        """Counts since the start."""
        contexts = self._contexts
        return {
            "kept": 0 if contexts is None else len(contexts),
            "evicted": 0 if contexts is None else contexts.evicted,
            "false_alarms": self.false_alarms,
            "overshoot": self.overshoot,
            "blocks_used": self.usage,
            "preempted": self._preempted,
        }

    async def _serve(self, pending: PendingTask) -> None:
        try:
            async with self._may_sample():
                async for chunk in self._sample(pending.request):
                    self._tell(pending, chunk)
        except asyncio.CancelledError:
            self._tell(pending, Chunk((), (), finish=FinishReason.CANCELLED, version=self.version))
        except EngineError as error:
            self._tell(pending, error)
        except Exception as error:  # boundary: whatever vLLM raises is the engine's failure
            why = f"{type(error).__name__}: {error}".rstrip(": ")
            self._tell(pending, EngineError(f"vLLM failed: {why}"))
        finally:
            self._pending.discard(pending)

    @asynccontextmanager
    async def _may_sample(self) -> AsyncIterator[None]:
        async with self._slots:
            while not self._open.is_set():  # again, where it was shut before we woke
                await self._open.wait()
            if self._broken is not None:
                raise EngineError(self._broken)
            self._sampling += 1
            self._idle.clear()
            try:
                yield
            finally:
                self._sampling -= 1
                if not self._sampling:
                    self._idle.set()

    async def _sample(self, request: Request) -> AsyncGenerator[Chunk, None]:
        stream, said = self._stream(request)
        reading = _OutputReader(self.tokenizer, request, self.version, said)
        preempted = self._preempted
        kept = False
        try:
            stream.extend(said, self._params(request, request.max_tokens, stream))
            now = asyncio.get_running_loop().time
            told = now()
            while reading.finish is None:
                reading.read(await stream.next())
                if reading.finish is None and reading.paused:
                    if not stream.resumable:
                        raise EngineError("vLLM ended a request before its end")
                    # A token that may complete a stop, and did not.
                    self.false_alarms += 1
                    left = request.max_tokens - len(reading.ids)
                    stream.extend(reading.ids[-1:], self._params(request, left, stream))
                if reading.finish is None and now() - told >= DELIVERY_SECONDS:
                    told = now()
                    yield reading.chunk()
            self.overshoot += reading.overshoot
            if reading.paused and stream.resumable and preempted == self._preempted:
                kept = self._keep(request, reading.ids, stream)
            yield reading.chunk()
        finally:
            if not kept:
                await stream.close()

    def _keep(self, request: Request, sampled: list[int], stream: ResumableRequest) -> bool:
        if self._contexts is None or request.context is None or self._closing:
            return False
        stream.ids = np.concatenate([request.ids, np.array(sampled, np.int32)])
        self._contexts.put(request.context, stream)
        return True

    def _stream(self, request: Request) -> tuple[ResumableRequest, list[int]]:
        """The stream to use and the ids to send: what it keeps of the context need not be sent."""
        contexts, context = self._contexts, request.context
        if contexts is not None and context is not None:
            kept = contexts.take(context, request.ids)
            if kept is not None:
                return kept, request.ids[len(kept.ids) - 1 :].tolist()
        resumable = (
            contexts is not None and context is not None and self._stop_ids(request) is not None
        )
        name = f"interlace-{next(self._names)}"
        return ResumableRequest(self._llm, name, resumable=resumable), request.ids.tolist()

    def _stop_ids(self, request: Request) -> list[int] | None:
        if request.stop not in self._completing:
            self._completing[request.stop] = completing_ids(self.tokenizer, request.stop)
        return self._completing[request.stop]

    def _params(self, request: Request, limit: int, stream: ResumableRequest) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        stops = set(self.tokenizer.eos_ids)
        if stream.resumable:
            stops.update(self._stop_ids(request) or ())
        return SamplingParams(
            max_tokens=limit,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed,
            stop_token_ids=sorted(stops),
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    @property
    def _preempted(self) -> int:
        return 0 if self._contexts is None else self._contexts.preempted

    # -- weights --------------------------------------------------------------------------------

    async def update(self, folder: Path) -> int:
        """Take the weights in a folder, once no request runs; gives the new version."""
        async with self._at_rest():
            try:
                await self._llm.collective_rpc("interlace_reload", args=(str(folder),))
                await self._forget()
            except Exception as error:
                self._broken = f"the weights are half replaced: {error}"
                raise EngineError(self._broken) from error
            self.version += 1
        return self.version

    async def sleep(self) -> None:
        """Give memory back; requests wait until `wake`."""
        async with self._at_rest():
            await self._llm.sleep(1)
            self._asleep = True

    async def wake(self) -> None:
        """Take the memory again."""
        async with self._changing:
            await self._llm.wake_up()
            self._asleep = False
            self._open.set()

    @asynccontextmanager
    async def _at_rest(self) -> AsyncIterator[None]:
        """While nothing runs and no context is held; who comes in the meantime waits."""
        async with self._changing:
            if self._asleep:
                raise EngineError("the engine sleeps: wake it first")
            self._open.clear()
            try:
                await self._idle.wait()
                if self._contexts is not None:
                    await self._contexts.clear()
                yield
            finally:
                if not self._asleep:
                    self._open.set()

    async def _forget(self) -> None:
        """Have nothing left that the old weights computed."""
        several = self._llm.vllm_config.parallel_config.data_parallel_size > 1
        for _ in range(100):  # requests that were just closed still hold their blocks
            try:
                # Of several engines vLLM tells what the first says; asked so, who can't raises.
                if await self._llm.reset_prefix_cache(reset_running_requests=several):
                    return
            except Exception:
                if not several:
                    raise
            await asyncio.sleep(0.05)
        raise EngineError("vLLM does not let its cache go")

    # -- answers --------------------------------------------------------------------------------

    def _tell(self, pending: PendingTask, item: Item) -> None:
        if not self._outbox:  # what comes in the same round of the loop goes out together
            asyncio.get_running_loop().call_soon(self._send)
        self._outbox.append((pending, item))

    def _send(self) -> None:
        told, self._outbox = self._outbox, []
        for pending in deliver(told):
            self.cancel(pending)


class _OutputReader:
    """The tokens vLLM sampled for one request, up to its end."""

    def __init__(self, tokenizer: Tokenizer, request: Request, version: int, said: list[int]):
        self.ids: list[int] = []
        self.finish: FinishReason | None = None
        self.paused = False
        """Whether vLLM samples on, or waits for more input."""
        self.overshoot = 0
        """Tokens that came after the end."""
        self._eos = tokenizer.eos_ids
        self._finder = StopFinder(tokenizer, request.stop)
        self._request = request
        self._version = version
        self._said = len(said)
        self._logprobs: list[float] = []
        self._delivered = 0
        self._counts: tuple[int, int] | None = None  # of context tokens: computed, held

    def read(self, output: "RequestOutput") -> None:
        """Take in what came. Raises EngineError where vLLM gave the request up."""
        completion = output.outputs[0]
        if completion.finish_reason not in (None, "stop", "length"):
            raise EngineError(f"vLLM ended a request with {completion.finish_reason!r}")
        self.paused = completion.finish_reason is not None
        if self._counts is None:
            whole = len(self._request.ids)
            held = whole - self._said or output.num_cached_tokens or 0
            self._counts = whole - held, held
        for id, entry in zip(completion.token_ids, completion.logprobs or (), strict=True):
            if self.finish is not None:
                self.overshoot += 1
                continue
            self.ids.append(id)
            self._logprobs.append(min(entry[id].logprob, 0.0))
            if id in self._eos:
                self.finish = FinishReason.EOS
            elif self._finder.push(id):
                self.finish = FinishReason.STOP
            elif len(self.ids) == self._request.max_tokens:
                self.finish = FinishReason.LENGTH
        if self.overshoot:
            self.paused = False  # the context holds more than the ledger will

    def chunk(self) -> Chunk:
        """The tokens not handed over yet."""
        prefilled, cached = (self._counts or (0, 0)) if not self._delivered else (0, 0)
        logprobs, raw = _as_drawn(self._request.sampling, self._logprobs[self._delivered :])
        ids = tuple(self.ids[self._delivered :])
        self._delivered = len(self.ids)
        over = self.overshoot if self.finish is not None else 0
        return Chunk(ids, logprobs, raw, self.finish, self._version, prefilled, cached, over)


def _as_drawn(
    sampling: Sampling, given: list[float]
) -> tuple[tuple[float, ...], tuple[float, ...] | None]:
    """Log-probabilities as sampled, and at temperature 1 where they differ and vLLM tells them."""
    if sampling.temperature == 0:
        return (0.0,) * len(given), tuple(given)
    return tuple(given), None

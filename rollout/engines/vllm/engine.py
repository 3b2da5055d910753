"""vLLM in this process."""

import asyncio
import tempfile
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....tools.errors import MissingExtra, ModelError
from ...tokenizer import Tokenizer
from ...trajectory import FinishReason
from ..base import Chunk, EngineError, Request
from ..pending_request import admit
from .kept_contexts import KeptContexts
from .service import PendingTask, Service
from .start import Thread, arguments, may_keep, shut_down, start
from .weights import Shapes, check_embedding, check_shapes, roomy, shapes, write

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["VllmEngine"]

_KEPT_PER_SLOT = 3
"""Contexts that may be kept, for each that is sampled from."""


class VllmEngine:
    """Samples with vLLM's `AsyncLLM`: token ids in, token ids and their log-probabilities out.

    **Kept contexts.** When a request that names its `context` ends, it stays in vLLM with all it
    has computed while the tool runs, and the trajectory's next request continues with it. It is
    evicted after `keep_seconds`, when there are too many, and when memory runs low; the next
    request then sends its whole context again, of which vLLM's prefix cache may hold blocks.
    `keep=False` makes every request a new one, for comparison.

    `Chunk.logprobs` are those of the sampling distribution. The raw ones are known if they are the
    same, and for greedy requests, because vLLM returns only one of the two. A kept context
    continues with the random numbers of its first request: with it, a `seed` makes a run repeatable
    only as far as the same contexts are kept.

    vLLM runs in separate processes, with a thread for its input and output, and may be used from
    several event loops. Build one with `VllmEngine.load`.
    """

    def __init__(self, llm: "AsyncLLM", service: Service, thread: Thread, weights: Shapes) -> None:
        self.name = "model"
        self.tokenizer = service.tokenizer
        self.context_length = service.context_length
        self._llm = llm
        self._service = service
        self._thread = thread
        self._weights = weights
        self._vocabulary = int(llm.model_config.get_vocab_size())
        self._finalize = weakref.finalize(self, shut_down, llm, thread)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 64,
        max_context: int | None = None,
        keep: bool = True,
        keep_seconds: float = 120.0,
        options: Mapping[str, Any] | None = None,
    ) -> "VllmEngine":
        """Start vLLM on a model's folder; takes half a minute and more.

        `max_batch` requests are sampled from at a time, others wait. `dtype` as for
        `TransformersEngine.load`. `options` go to vLLM as they are (`AsyncEngineArgs`:
        `tensor_parallel_size`, `data_parallel_size`, `gpu_memory_utilization`,
        `kv_cache_memory_bytes`, `enable_sleep_mode`, ...).

        Raises MissingExtra where vLLM is not installed, ModelError where it can't run the model.
        """
        folder = Path(path)
        tokenizer = Tokenizer.load(folder)
        if max_batch < 1:
            raise ValueError(f"max_batch must be above 0, got {max_batch!r}")
        try:
            weights = shapes(folder)
        except ValueError as error:
            raise ModelError(str(error)) from error
        check_embedding(folder, weights)
        given = arguments(folder, device, dtype, max_context)
        keep = keep and may_keep(options or {})
        contexts = KeptContexts(_KEPT_PER_SLOT * max_batch, keep_seconds) if keep else None
        # A context that waits takes one of vLLM's places all the same.
        given["max_num_seqs"] = max_batch + (0 if contexts is None else contexts.most)
        thread = Thread()
        try:
            llm, service = thread.run(
                start(given | dict(options or {}), tokenizer, contexts, max_batch)
            )
        except BaseException as error:
            thread.stop()
            if isinstance(error, Exception) and not isinstance(error, ModelError | MissingExtra):
                why = str(error).strip().partition("\n")[0]
                raise ModelError(f"vLLM can't run {folder}: {why}") from error
            raise
        engine = cls(llm, service, thread, weights)
        engine.name = folder.resolve().name
        return engine

    @property
    def version(self) -> int:
        """How often the weights were replaced."""
        return self._service.version

    @property
    def figures(self) -> dict[str, float]:
        """Counts since the start: contexts kept now, and evicted before they were used again; false
        alarms of stops; tokens sampled in vain; the share of blocks in use; requests preempted.
        """
        return self._service.figures()

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation; raises EngineError where it can't be served.

        A context that leaves no room gives one empty chunk with `FinishReason.LENGTH`.
        """
        fitting = admit(request, self._vocabulary, self.context_length)
        if fitting.max_tokens < 1:
            yield Chunk((), (), finish=FinishReason.LENGTH, version=self.version)
            return
        pending = PendingTask(request=fitting)
        self._thread.call(self._service.submit, pending)

        def cancel() -> None:
            with suppress(EngineError):
                self._thread.call(self._service.cancel, pending)

        async with aclosing(pending.chunks(cancel)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, context: str) -> None:
        """Keep nothing more for the trajectory of that name."""
        with suppress(EngineError):
            self._thread.call(self._service.release, context)

    async def update_weights(self, weights: "Mapping[str, Tensor] | str | Path") -> int:
        """Take new weights in place: a checkpoint's folder, or tensors by name as
        `model.state_dict()` gives them; returns the new `version`.

        Requests in flight finish with the weights they began with; those that come in the meantime
        wait, and kept contexts go. Raises ValueError, and changes nothing, where names or shapes do
        not fit; EngineError where vLLM fails half-way: it serves nobody any more then.
        """
        if isinstance(weights, str | Path):
            check_shapes(self._weights, shapes(Path(weights)))
            return await self._thread.wait(self._service.update(Path(weights).resolve()))
        # By way of a file in memory, where there is such a file system: each of vLLM's processes
        # reads its own part, and nothing is unpickled.
        fitting = {name: weights[name] for name in self._weights if name in weights}
        check_shapes(self._weights, {name: tuple(w.shape) for name, w in fitting.items()})
        size = sum(w.numel() * w.element_size() for w in fitting.values())
        with tempfile.TemporaryDirectory(dir=roomy(size)) as folder:
            await asyncio.to_thread(write, fitting, Path(folder) / "model.safetensors")
            return await self._thread.wait(self._service.update(Path(folder)))

    async def sleep(self) -> None:
        """Give the accelerator's memory back once no request runs: weights go to the host, what was
        computed is dropped. Requests wait until `wake`. Raises EngineError where vLLM can't.
        """
        if not getattr(self._llm.model_config, "enable_sleep_mode", False):
            raise EngineError("load the engine with options={'enable_sleep_mode': True} (on a GPU)")
        await self._thread.wait(self._service.sleep())

    async def wake(self) -> None:
        """Take the memory again."""
        await self._thread.wait(self._service.wake())

    async def aclose(self) -> None:
        """End vLLM; requests in flight end as cancelled, with what they have."""
        if self._finalize.alive:
            with suppress(EngineError):
                await self._thread.wait(self._service.close())
        await asyncio.to_thread(self._finalize)

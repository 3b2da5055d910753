"""A Hugging Face model in this process."""

import asyncio
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from ....tools.errors import ModelError
from ...tokenizer import Tokenizer
from ...trajectory import FinishReason
from ..base import Chunk, Request
from ..pending_request import admit
from ..stops import StopFinder
from .load_checkpoint import load_model, pick_device
from .memory import free_bytes

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["TransformersEngine"]

_KEPT_BYTES = 4 << 30


class TransformersEngine:
    """Samples from a causal language model with full attention; batches what is in flight.

    A request joins the batch at any step and leaves it when it is done. When a request that names
    its `context` ends, the keys and values of that context are kept, so that the next request of
    the trajectory computes only what is new; the longest beginning that both have in common is
    reused, so a wrong guess costs time, never truth. Kept contexts go, the longest unused first,
    when they take more than `kept_bytes`. What the context of another request that runs, or that is
    kept for another trajectory, has in common with a new one is not computed again either: the
    samples of one prompt share it, and so do the branches of a tree.

    One thread runs the model, and several event loops may ask. Tokens are handed over about 25
    times a second: a request that is cancelled loses what was sampled since.

    Build one with `TransformersEngine.load`, or from a model that is in memory already: it is then
    used as it is, and set to an attention of ours that leaves ordinary forward passes as they were.
    """

    def __init__(
        self,
        model: "nn.Module",
        tokenizer: Tokenizer,
        *,
        name: str = "model",
        max_batch: int = 64,
        max_context: int | None = None,
        kept_bytes: int | None = None,
    ) -> None:
        from .compatibility import prepare_model
        from .thread import EngineThread

        if max_batch < 1:
            raise ValueError(f"max_batch must be above 0, got {max_batch!r}")
        self.name = name
        self.tokenizer = tokenizer
        prepared = prepare_model(model, max_context)
        self.context_length = prepared.context_length
        self._vocabulary = prepared.vocabulary
        if len(tokenizer) > prepared.vocabulary:
            raise ModelError(
                f"the tokenizer of {name} has {len(tokenizer)} tokens, the model knows "
                f"{prepared.vocabulary}: they do not belong together"
            )
        if kept_bytes is None:
            free = free_bytes(prepared.device)
            kept_bytes = _KEPT_BYTES if free is None else min(_KEPT_BYTES, free // 4)
        self._batch = prepared.batch(tokenizer.eos_ids, kept_bytes)
        self._thread = EngineThread(self._batch, max_batch)
        self._finalize = weakref.finalize(self, self._thread.close)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_batch: int = 64,
        max_context: int | None = None,
        kept_bytes: int | None = None,
    ) -> "TransformersEngine":
        """Read a model from its folder: config.json, model.safetensors, tokenizer.json.

        `dtype` is float32, bfloat16, float16 or "auto" (float32 on a CPU, else the checkpoint's).
        Raises ModelError for what is wrong with the files or too large for the machine, and
        MissingExtra where torch or transformers is not installed.
        """
        folder = Path(path)
        model = load_model(folder, pick_device(device), dtype)
        return cls(
            model,
            Tokenizer.load(folder),
            name=folder.resolve().name,
            max_batch=max_batch,
            max_context=max_context,
            kept_bytes=kept_bytes,
        )

    @property
    def version(self) -> int:
        """How often the weights were replaced."""
        return self._batch.version

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation; raises EngineError where it can't be served.

        A context that leaves no room gives one empty chunk with `FinishReason.LENGTH`.
        """
        from .batch import BatchRow
        from .thread import PendingRow

        fitting = admit(request, self._vocabulary, self.context_length)
        if fitting.max_tokens < 1:
            yield Chunk((), (), finish=FinishReason.LENGTH, version=self.version)
            return
        finder = StopFinder(self.tokenizer, request.stop) if request.stop else None
        row = BatchRow(fitting, finder, fitting.max_tokens)
        pending = PendingRow(row=row)
        self._thread.submit(pending)
        async with aclosing(pending.chunks(lambda: self._thread.cancel(pending))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def release(self, context: str) -> None:
        """Keep nothing more for the trajectory of that name."""
        self._thread.release(context)

    async def update_weights(self, state: "dict[str, Tensor]") -> int:
        """Copy new weights in, as `model.state_dict()` gives them; returns the new `version`.

        Requests in flight finish with the weights they began with; those that come in the meantime
        wait. Kept contexts are dropped. Raises ValueError, and changes nothing, where names or
        shapes do not fit.
        """
        return await asyncio.wrap_future(self._thread.update(state))

    async def aclose(self) -> None:
        """End the thread; requests in flight end as cancelled, with what they have."""
        await asyncio.to_thread(self._finalize)

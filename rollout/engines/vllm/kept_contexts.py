"""Contexts that stay inside vLLM while their tools run.

vLLM calls it a resumable request: it is given its input piece by piece (`StreamingInput`), and
between two pieces its blocks of keys and values are held. Its traps (0.24 to 0.32), and where they
are handled:

- at the end of a piece the last sampled token is thrown away; the next piece begins with it
  (`ResumableRequest.extend`);
- a request that was pushed out for want of memory, and stopped just then, has lost its context:
  one that may have been is not kept (`KeptContexts.preempted`);
- held blocks serve nobody else: contexts go after a time, when there are too many, and when memory
  runs low (`KeptContexts`).
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ledger import Ids

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

__all__ = ["KeptContexts", "ResumableRequest"]


class ResumableRequest:
    """One request to vLLM: resumable, or for a single piece."""

    def __init__(self, llm: "AsyncLLM", name: str, *, resumable: bool) -> None:
        self.ids: Ids = np.empty(0, np.int32)
        """The context that is held, as of the last `rest`; its last token is not computed yet."""
        self.resumable = resumable
        self._llm = llm
        self._name = name
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._outputs: AsyncGenerator[RequestOutput, None] | None = None

    def extend(self, ids: list[int], params: "SamplingParams") -> None:
        """Go on with these tokens, of which the first is the last one that was sampled."""
        from vllm.engine.protocol import StreamingInput
        from vllm.inputs import TokensPrompt

        prompt = TokensPrompt(prompt_token_ids=ids)
        if self.resumable:
            self._pieces.put_nowait(StreamingInput(prompt, params))
        if self._outputs is None:
            given: Any = self._feed() if self.resumable else prompt
            self._outputs = self._llm.generate(given, params, self._name)

    async def next(self) -> "RequestOutput":
        """The next output."""
        assert self._outputs is not None
        return await anext(self._outputs)

    async def close(self) -> None:
        """Stop sampling, and let the blocks go."""
        if self._outputs is not None:
            await self._outputs.aclose()

    async def _feed(self) -> AsyncGenerator[Any, None]:
        while True:
            yield await self._pieces.get()


class KeptContexts:
    """The contexts that wait for their tools, the one that waits longest first."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self.preempted = 0
        """How often vLLM has pushed a request out."""
        self.evicted = 0
        """Contexts that did not wait for their tools: too long, too many, or for want of memory."""
        self._waiting: dict[str, tuple[ResumableRequest, asyncio.TimerHandle]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, name: str, stream: ResumableRequest) -> None:
        """Keep a context until it is taken, or has to go."""
        self.drop(name)
        timer = asyncio.get_running_loop().call_later(self.seconds, self._give_up, name)
        self._waiting[name] = stream, timer
        if len(self._waiting) > self.most:
            self.make_room()

    def take(self, name: str, ids: Ids) -> ResumableRequest | None:
        """The context of that name, if the ids begin with it."""
        kept, timer = self._waiting.pop(name, (None, None))
        if kept is None or timer is None:
            return None
        timer.cancel()
        if len(kept.ids) <= len(ids) and np.array_equal(kept.ids, ids[: len(kept.ids)]):
            return kept
        self.close(kept)
        return None

    def drop(self, name: str) -> None:
        """Keep nothing more under that name."""
        kept, timer = self._waiting.pop(name, (None, None))
        if kept is not None and timer is not None:
            timer.cancel()
            self.close(kept)

    def make_room(self) -> None:
        """Let the context go that has waited longest."""
        if self._waiting:
            self._give_up(next(iter(self._waiting)))

    def close(self, stream: ResumableRequest) -> None:
        """Close a request, without waiting for it."""
        task = asyncio.ensure_future(stream.close())
        self._closing.add(task)
        task.add_done_callback(self._closed)

    async def clear(self) -> None:
        """Let all go, and wait until they have gone."""
        for name in list(self._waiting):
            self.drop(name)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _give_up(self, name: str) -> None:
        self.evicted += 1
        self.drop(name)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled():
            task.exception()  # of a dead engine, whose other requests tell of it

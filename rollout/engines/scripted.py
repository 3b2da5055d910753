"""An engine that says what a script tells it: for tests, and to measure everything but a model."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeAlias

import numpy as np

from ..tokenizer import Tokenizer
from ..trajectory import FinishReason
from .base import Chunk, EngineError, Request
from .stops import StopFinder

__all__ = ["Reply", "ScriptedEngine"]

Reply: TypeAlias = str | Exception
"""What to say in one turn, or what to raise instead."""


class ScriptedEngine:
    """Streams the script's text as a model would sample it.

    `script` is a list of replies, given out in the order in which requests arrive, or a function of
    the request for many trajectories at once. A reply is encoded and comes in chunks of `chunk`
    tokens. It pauses after the token that completes a stop string; a request of the same trajectory
    whose ids are exactly what was streamed so far continues with the rest of the reply, any other
    starts the next one. A reply that is used up ends with the end-of-sequence token.
    Log-probabilities are made up: a function of the token and its position. `delay` is the wait
    before each chunk, in seconds.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        script: Sequence[Reply] | Callable[[Request], Reply],
        *,
        chunk: int = 4,
        context_length: int = 32768,
        delay: float = 0.0,
    ) -> None:
        self.name = "scripted"
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.requests: list[Request] = []
        """Every request that came, in order."""
        self.released: list[str] = []
        """Every context that was released, in order."""
        self._next = script if callable(script) else _in_order(script)
        self._chunk = chunk
        self._delay = delay
        self._rest: dict[str | None, tuple[bytes, list[int]]] = {}

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Stream the reply to one request; raises what the script says, as it is."""
        self.requests.append(request)
        streamed, rest = self._rest.pop(request.context, (b"", []))
        if streamed != request.ids.tobytes():
            rest = self._encode(self._next(request))
        room = min(request.max_tokens, self.context_length - len(request.ids))
        said, finish = self._until_stop(rest, request, room)
        told = 0
        try:
            while True:
                await asyncio.sleep(self._delay)
                part = said[told : told + self._chunk]
                start, told = len(request.ids) + told, told + len(part)
                last = told == len(said)
                yield self._made_up(part, start, request, finish if last else None)
                if last:
                    return
        finally:
            if rest[told:]:
                ids = np.concatenate([request.ids, np.array(said[:told], np.int32)])
                self._rest[request.context] = (ids.tobytes(), rest[told:])

    async def release(self, context: str) -> None:
        """Forget what was left unsaid in this trajectory."""
        self.released.append(context)
        self._rest.pop(context, None)

    async def aclose(self) -> None:
        """Forget all."""
        self._rest.clear()

    def _encode(self, reply: Reply) -> list[int]:
        if isinstance(reply, Exception):
            raise reply
        if not self.tokenizer.eos_ids:
            raise EngineError("a script needs a tokenizer with an end-of-sequence token")
        return [*self.tokenizer.encode(reply), min(self.tokenizer.eos_ids)]

    def _until_stop(
        self, ids: list[int], request: Request, room: int
    ) -> tuple[list[int], FinishReason]:
        finder = StopFinder(self.tokenizer, request.stop)
        for count, token in enumerate(ids[: max(room, 0)], start=1):
            if token in self.tokenizer.eos_ids:
                return ids[:count], FinishReason.EOS
            if finder.push(token):
                return ids[:count], FinishReason.STOP
        return ids[: max(room, 0)], FinishReason.LENGTH

    def _made_up(
        self, ids: list[int], start: int, request: Request, finish: FinishReason | None
    ) -> Chunk:
        raw = tuple(-(1 + (7 * id + at) % 64) / 32 for at, id in enumerate(ids, start))
        if request.sampling.temperature == 0:
            return Chunk(tuple(ids), (0.0,) * len(ids), raw, finish)
        return Chunk(tuple(ids), raw, None, finish)


def _in_order(script: Sequence[Reply]) -> Callable[[Request], Reply]:
    left = deque(script)

    def next_reply(request: Request) -> Reply:
        if not left:
            raise EngineError(f"the script of {len(script)} replies is used up")
        return left.popleft()

    return next_reply

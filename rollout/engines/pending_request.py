"""A request on its way to an engine that samples in its own thread, and what comes back."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

import numpy as np

from .base import Chunk, EngineError, Request

__all__ = ["DELIVERY_SECONDS", "Item", "PendingRequest", "admit", "deliver"]

DELIVERY_SECONDS = 0.04
"""Chunks are handed over this often, in seconds: fine enough for eyes, and at a thousand steps a
second an event loop is woken once for many tokens."""

Item: TypeAlias = Chunk | EngineError
"""What an engine says to a request: a last chunk (with `finish`) or an error ends it."""

_T = TypeVar("_T", bound="PendingRequest")


def admit(request: Request, vocabulary: int, context_length: int) -> Request:
    """The request with ids of int32 and no more `max_tokens` than the context has room for.

    They may be below 1. Raises EngineError for a context that is empty or has unknown ids.
    """
    ids = np.asarray(request.ids, np.int32)
    if not len(ids):
        raise EngineError("a request needs a context of one token at least")
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        raise EngineError(f"the context has ids outside the model's {vocabulary}")
    return replace(request, ids=ids, max_tokens=min(request.max_tokens, context_length - len(ids)))


@dataclass(slots=True, eq=False, kw_only=True)
class PendingRequest:
    """A request as its caller sees it: the event loop that waits, and the queue of what came."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    items: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)

    async def chunks(self, cancel: Callable[[], None]) -> AsyncGenerator[Chunk, None]:
        """Yield the engine's chunks to the end; `cancel` is called if the reader stops before."""
        over = False
        try:
            while not over:
                item = await self.items.get()
                over = isinstance(item, EngineError) or item.finish is not None
                if isinstance(item, EngineError):
                    raise item
                yield item
        finally:
            if not over:
                cancel()


def deliver(items: Iterable[tuple[_T, Item]]) -> list[_T]:
    """Give each request its item, in its own event loop; may be called from any thread.

    Returns the requests that nobody waits for any more: their loop is closed.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_T, Item]]] = defaultdict(list)
    for pending, item in items:
        by_loop[pending.loop].append((pending, item))
    left: list[_T] = []
    for loop, own in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put, own)
        except RuntimeError:
            left += [pending for pending, _ in own]
    return left


def _put(items: Iterable[tuple[PendingRequest, Item]]) -> None:
    for pending, item in items:
        pending.items.put_nowait(item)

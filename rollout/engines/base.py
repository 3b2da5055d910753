"""The engine protocol: token ids and sampling parameters in, sampled tokens out.

The protocol is stateless: a request contains its whole context. An engine may keep a context warm
while a tool runs, but that is only an optimisation, which may be lost at any time.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ..formats.base import ChatContext
from ..ledger import Ids
from ..tokenizer import Tokenizer
from ..trajectory import FinishReason

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Chunk", "Engine", "EngineError", "Request", "Sampling", "Trainable", "common_length"]


class EngineError(RuntimeError):
    """The engine failed, or can't do what was asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; `top_k` 0 and `top_p` 1 leave all tokens in.

    With a `seed`, the tokens of a request depend on its ids and the seed alone, not on what else is
    in the batch (up to the rounding of batched arithmetic).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no engine could sample from."""
        if not 0 <= self.temperature <= 100:
            raise ValueError(f"temperature must be in [0, 100], got {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p!r}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, got {self.top_k!r}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"a seed must not be negative, got {self.seed!r}")


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation to sample.

    `ids` is the whole context, int32 (n,). Sampling ends after the token that completes one of the
    `stop` strings in the text of the tokens it sampled, at an
    end-of-sequence token, or after `max_tokens`. `context` names the trajectory, so that an engine
    may keep its cache between requests. As many as `stream_interval` tokens may be held back to
    come in one chunk. `conversation` gives the same context as messages, for servers of text, and
    with `as_text=True` without calls as data (`History.conversation`).
    """

    ids: Ids
    max_tokens: int
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    context: str | None = None
    stream_interval: int = 1
    conversation: Callable[..., ChatContext] | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens just sampled, in order; the last chunk of a request has a `finish`.

    `logprobs` are under the distribution the tokens were drawn from (greedy: 0), `raw_logprobs` at
    temperature 1 without truncation. `version` counts the weights since the engine started.
    `prefilled` and `cached` are given once, in the first chunk: context tokens computed for this
    request, and context tokens whose cache was still held. `overshoot` counts, in the last chunk,
    the tokens known to have been sampled after the end and discarded. `counted`, for ids that are
    not the model's own, is how many tokens the request has sampled so far, by the server's count
    or, if `estimated`, by the length of the text.

    Until a request's first token comes, the time is the engine's: its queue, ours before it, and
    the computing of the context; the question's clock is paused. An engine that returns whole
    replies gives one chunk, so none of its time counts. A chunk without tokens and without a
    `finish` means that the request waits again (it was cut off, or preempted for lack of memory).
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    raw_logprobs: tuple[float, ...] | None = None
    finish: FinishReason | None = None
    version: int = 0
    prefilled: int = 0
    cached: int = 0
    overshoot: int = 0
    counted: int | None = None
    estimated: bool = False


class Engine(Protocol):
    """A source of sampled tokens."""

    @property
    def name(self) -> str:
        """The model, as a record should name it."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens (context and sampled) that one request may have; an estimate where an
        attribute `exact` is False, since the ids are then not the model's.
        """
        ...

    def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation. Closing the generator cancels the request.

        Raises `EngineError` where the request can't be served.
        """
        ...

    async def release(self, context: str) -> None:
        """The trajectory of that name is over: what was kept for it may go."""
        ...

    async def aclose(self) -> None:
        """Free all; requests in flight are cancelled."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """An engine whose weights can be replaced while it runs: what reinforcement learning needs."""

    async def update_weights(self, weights: "dict[str, Tensor]", /) -> int:
        """Take new weights, by name as `model.state_dict()` gives them; returns how often
        they were replaced, which is the `version` of later chunks.

        Requests in flight finish with the weights they began with. Raises ValueError, and changes
        nothing, where names or shapes do not fit.
        """
        ...


def common_length(a: Ids, b: Ids) -> int:
    """How many tokens two contexts begin with in common."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length

"""The token ledger: an append-only list of spans, each from one source.

What the model is conditioned on, what it is trained on and what a person is shown are all views on
it. Nothing here tokenises: ids come in and stay as they came.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, islice
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Ids", "Ledger", "Source", "Span"]

Ids: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]


class Source(StrEnum):
    """The author of a token."""

    PROMPT = "prompt"
    """The task: system prompt, question, a later question of the same person."""
    POLICY = "policy"
    """The model sampled it (or, in a demonstration, is shown it as its own)."""
    TOOL = "tool"
    """What answers a call, with the tags around it: a tool's output, or why it was not run."""
    HOST = "host"
    """We put it there: a notice about a limit."""


def _frozen(values: Sequence[float] | NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A run of tokens from one source. Build one with `Span.policy` or `Span.given`.

    `ids` is int32 (n,), n >= 1. A policy span has `logprobs`, float32 (n,), under the distribution
    it was sampled from; `raw_logprobs` are those at temperature 1 without truncation, where they
    differ. Both are None in a demonstration. `version` is the version of the weights at the
    dispatch of the request. `weight` is the loss weight: for policy tokens 1 unless they are left
    out or weighed down, for all others always 0.

    Example:
        >>> Span.policy([5, 6], logprobs=[-0.5, -0.1], version=3).weight
        1.0
        >>> Span.given(Source.TOOL, [7]).weight
        0.0
    """

    source: Source
    ids: Ids
    logprobs: Floats | None
    raw_logprobs: Floats | None
    version: int | None
    weight: float

    @classmethod
    def policy(
        cls,
        ids: Sequence[int] | Ids,
        *,
        logprobs: Sequence[float] | Floats | None = None,
        raw_logprobs: Sequence[float] | Floats | None = None,
        version: int | None = None,
        weight: float = 1.0,
    ) -> Self:
        """Tokens the policy wrote. Raises ValueError where the parts do not fit together."""
        return cls(
            Source.POLICY,
            _frozen(ids, np.int32),
            None if logprobs is None else _frozen(logprobs, np.float32),
            None if raw_logprobs is None else _frozen(raw_logprobs, np.float32),
            version,
            weight,
        )

    @classmethod
    def given(cls, source: Source, ids: Sequence[int] | Ids) -> Self:
        """Tokens the policy did not write. Raises ValueError for the policy's own source."""
        return cls(source, _frozen(ids, np.int32), None, None, None, 0.0)

    def __post_init__(self) -> None:
        """Hold the invariants that make the response mask something read, not computed."""
        if self.ids.ndim != 1 or not len(self.ids):
            raise ValueError(f"a span needs a flat, non-empty run of ids, not {self.ids.shape}")
        if self.ids.min() < 0:
            raise ValueError(f"token ids are not negative, got {int(self.ids.min())}")
        if self.version is not None and type(self.version) is not int:
            raise ValueError(f"a version is a whole number, got {self.version!r}")
        if not np.isfinite(self.weight) or self.weight < 0:
            raise ValueError(f"a loss weight is finite and not negative, got {self.weight!r}")
        for name, values in (("logprobs", self.logprobs), ("raw_logprobs", self.raw_logprobs)):
            if values is None:
                continue
            if values.shape != self.ids.shape:
                raise ValueError(f"{len(self.ids)} ids but {name} of shape {values.shape}")
            # 1e-3: float32 log-softmax of a near-certain token may come out a hair above zero.
            if not np.isfinite(values).all() or values.max() > 1e-3:
                raise ValueError(f"{name} must be finite and at most 0")
        if self.raw_logprobs is not None and self.logprobs is None:
            raise ValueError("raw_logprobs without logprobs")
        if self.source is not Source.POLICY and (
            self.weight or self.logprobs is not None or self.version is not None
        ):
            raise ValueError(
                f"only policy tokens carry loss, log-probabilities or a version, "
                f"not {self.source.value!r} ones"
            )

    def to_json(self) -> dict[str, Any]:
        """The span as plain data. A float32 is written as the double it equals: nothing is lost."""
        data: dict[str, Any] = {"source": self.source.value, "ids": self.ids.tolist()}
        for name, values in (("logprobs", self.logprobs), ("raw_logprobs", self.raw_logprobs)):
            if values is not None:
                data[name] = values.tolist()
        if self.version is not None:
            data["version"] = self.version
        if self.source is Source.POLICY and self.weight != 1.0:
            data["weight"] = self.weight
        return data

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """A span from plain data. Raises ValueError where it breaks an invariant."""
        if not isinstance(data, dict) or "ids" not in data:
            raise ValueError("a span is an object with a source and ids")
        if any(type(id) is not int or not 0 <= id < 2**31 for id in data["ids"]):
            raise ValueError("token ids are whole numbers from 0 to 2**31 - 1")
        source = Source(data.get("source", ""))
        labels = {key: value for key, value in data.items() if key not in ("source", "ids")}
        if source is Source.POLICY:
            return cls.policy(data["ids"], **labels)
        if labels:
            raise ValueError(f"{source.value} tokens can't carry {sorted(labels)}")
        return cls.given(source, data["ids"])

    def part(self, start: int, stop: int) -> Self:
        """Some of the tokens, with all that is known of them."""
        return replace(
            self,
            ids=self.ids[start:stop],
            logprobs=None if self.logprobs is None else self.logprobs[start:stop],
            raw_logprobs=None if self.raw_logprobs is None else self.raw_logprobs[start:stop],
        )

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.ids)

    def __repr__(self) -> str:
        version = "" if self.version is None else f", version {self.version}"
        weight = f", weight {self.weight:g}" if self.source is Source.POLICY else ""
        return f"<Span of {len(self)} tokens: {self.source.value}{version}{weight}>"

    def __eq__(self, other: object) -> bool:
        """Equal in every id, log-probability and label."""
        if not isinstance(other, Span):
            return NotImplemented
        return (
            (self.source, self.version, self.weight) == (other.source, other.version, other.weight)
            and np.array_equal(self.ids, other.ids)
            and _same(self.logprobs, other.logprobs)
            and _same(self.raw_logprobs, other.raw_logprobs)
        )

    __hash__ = None  # type: ignore[assignment]


def _same(a: Floats | None, b: Floats | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


class Ledger:
    """One unbroken context: everything the model was conditioned on, in order.

    Appending costs only the length of the span; the ids are kept in one growing buffer, so a
    request to an engine needs no concatenation.

    Example:
        >>> ledger = Ledger([Span.given(Source.PROMPT, [1, 2])])
        >>> ledger.append(Span.policy([3, 4], logprobs=[-0.1, -0.2]))
        >>> ledger.append(Span.given(Source.TOOL, [5]))
        >>> ledger.ids.tolist(), ledger.response_mask.tolist()
        ([1, 2, 3, 4, 5], [False, False, True, True, False])
    """

    def __init__(self, spans: Sequence[Span] = ()) -> None:
        self._spans: list[Span] = []
        self._starts: list[int] = []  # the position of each span's first token
        self._buffer: Ids = np.empty(256, np.int32)
        self._length = 0
        for span in spans:
            self.append(span)

    def append(self, span: Span) -> None:
        """Add a span at the end. The span checked itself when it was made."""
        end = self._length + len(span)
        if end > len(self._buffer):
            grown = np.empty(max(end, 2 * len(self._buffer)), np.int32)
            grown[: self._length] = self.ids
            self._buffer = grown
        self._buffer[self._length : end] = span.ids
        self._spans.append(span)
        self._starts.append(self._length)
        self._length = end

    def fork(self) -> "Ledger":
        """A ledger that begins with these spans (the same objects) and grows on its own."""
        child = Ledger()
        child._spans = list(self._spans)
        child._starts = list(self._starts)
        child._buffer = self._buffer.copy()
        child._length = self._length
        return child

    def head(self, length: int) -> "Ledger":
        """A ledger of the first tokens, with all that is known of them; it grows on its own."""
        whole = (
            bisect_right(self._starts, length) - 1 if length < self._length else len(self._spans)
        )
        head = Ledger(self._spans[:whole])
        if len(head) < length:
            head.append(self._spans[whole].part(0, length - len(head)))
        return head

    def tail(self, start: int) -> list[Span]:
        """The spans from a position on; one that begins before it is cut."""
        tail = list(self.since(start))
        before = len(self._spans) - len(tail)
        if before and self._starts[before - 1] + len(self._spans[before - 1]) > start:
            cut = self._spans[before - 1]
            tail.insert(0, cut.part(start - self._starts[before - 1], len(cut)))
        return tail

    def to_json(self) -> list[dict[str, Any]]:
        """The spans as plain data; absent parts are left out."""
        return [span.to_json() for span in self._spans]

    @classmethod
    def from_json(cls, data: Any) -> "Ledger":
        """A ledger from plain data, with every check of `Span`. Raises ValueError."""
        if not isinstance(data, list):
            raise ValueError(f"a ledger is a list of spans, not {type(data).__name__}")
        try:
            return cls([Span.from_json(item) for item in data])
        except TypeError as error:  # a number where a list belongs, a label that does not exist
            raise ValueError(f"not a span: {error}") from error

    def __len__(self) -> int:
        """The number of tokens."""
        return self._length

    def __iter__(self) -> Iterator[Span]:
        """The spans, in order."""
        return iter(self._spans)

    def __eq__(self, other: object) -> bool:
        """Equal span by span."""
        return isinstance(other, Ledger) and self._spans == other._spans

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        runs = [(k.value, sum(map(len, g))) for k, g in groupby(self._spans, lambda s: s.source)]
        shown = [f"{source} {length}" for source, length in runs]
        if len(shown) > 9:
            shown[4:-4] = ["..."]
        return f"<Ledger of {len(self)} tokens: {', '.join(shown) or 'empty'}>"

    def _repr_html_(self) -> str:
        """The ids in a notebook, coloured by source; a `Result` shows them as text."""
        from .html import ledger_html  # which imports this module

        return ledger_html(self)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans, in order."""
        return tuple(self._spans)

    def since(self, position: int) -> Iterator[Span]:
        """The spans that begin at a position or after it, in order."""
        return islice(self._spans, bisect_left(self._starts, position), None)

    @property
    def last(self) -> Span:
        """The span added last; raises IndexError if there is none."""
        return self._spans[-1]

    @property
    def ids(self) -> Ids:
        """All token ids, int32 (n,): a read-only view, not a copy."""
        view = self._buffer[: self._length]
        view.flags.writeable = False
        return view

    @property
    def prompt_length(self) -> int:
        """Tokens before the first one that is not prompt: verl's prompt/response border."""
        length = 0
        for span in self._spans:
            if span.source is not Source.PROMPT:
                break
            length += len(span)
        return length

    @property
    def sources(self) -> list[Source]:
        """The source of each token (n,)."""
        return [span.source for span in self._spans for _ in range(len(span))]

    @property
    def response_mask(self) -> NDArray[np.bool_]:
        """Which tokens the policy wrote, bool (n,)."""
        return self._per_token(lambda span: span.source is Source.POLICY, np.bool_)

    @property
    def loss_weights(self) -> Floats:
        """The loss weight of each token, float32 (n,): 0 wherever the policy did not write."""
        return self._per_token(lambda span: span.weight, np.float32)

    @property
    def logprobs(self) -> Floats:
        """Sampling log-probabilities, float32 (n,): NaN if there is none."""
        return self._concatenate([span.logprobs for span in self._spans])

    @property
    def raw_logprobs(self) -> Floats:
        """Log-probabilities at temperature 1 without truncation, float32 (n,), NaN where none."""
        return self._concatenate(
            [s.logprobs if s.raw_logprobs is None else s.raw_logprobs for s in self._spans]
        )

    @property
    def versions(self) -> NDArray[np.int64]:
        """The weights' version of each token, int64 (n,): -1 if there is none."""
        return self._per_token(lambda s: -1 if s.version is None else s.version, np.int64)

    def _per_token(
        self, value: Callable[[Span], float | int | bool], dtype: type[np.generic]
    ) -> NDArray[Any]:
        values = np.array([value(span) for span in self._spans], dtype=dtype)
        return np.repeat(values, [len(span) for span in self._spans])

    def _concatenate(self, parts: Sequence[Floats | None]) -> Floats:
        filled = [
            np.full(len(span), np.nan, np.float32) if part is None else part
            for span, part in zip(self._spans, parts, strict=True)
        ]
        return np.concatenate(filled) if filled else np.empty(0, np.float32)

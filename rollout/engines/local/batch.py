"""The requests that run together, and one step of the model for all of them.

Plain synchronous code, called by one thread. Rows [0, `decoding`) have their whole context in the
cache but for the last token; the rows after them are still being filled. The order of rows has no
meaning: where one leaves, the last one takes its place.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...ledger import Ids
from ...trajectory import FinishReason
from ..base import Chunk, Request, common_length
from ..stops import StopFinder
from .attention import KeyValues, plan
from .memory import free_bytes, one_memory_error
from .sampler import TokenSampler

__all__ = ["BatchRow", "BrokenModel", "RunningBatch"]

# New context tokens computed in one step, at most: a long prompt does not hold up the others.
_FILL = 2048
# Contexts that begin with this many tokens in common share what is held of them.
_SHARE = 32
# Uniform numbers drawn from a row's generator at a time.
_DRAWS = 64


class BrokenModel(RuntimeError):
    """The model gives no probabilities (NaN): its weights are broken."""


@dataclass(slots=True, eq=False)
class BatchRow:
    """One request and what was sampled for it so far."""

    request: Request
    finder: StopFinder | None
    """None where there is no stop string."""
    limit: int
    """Tokens to sample at most."""
    version: int = 0
    held: int = 0
    """Tokens of the context whose keys and values are in the cache."""
    cached: int = 0
    """Of these, the ones that were held when the request came."""
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    raw: list[float] = field(default_factory=list)
    finish: FinishReason | None = None
    delivered: int = 0
    """Sampled tokens that were given out."""
    keep: bool = True
    """Whether the cache is kept when the request is over."""
    prompt: Ids = field(init=False)
    """What is filled before sampling goes on: the context, and what a row that had to make room for
    others had sampled by then."""
    head: bytes = field(init=False)
    """The first ids, to find the rows that begin like it."""
    generator: np.random.Generator = field(init=False)
    draws: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """A stream of uniform numbers of its own: another one for each turn of a trajectory."""
        self.prompt = self.request.ids
        self.head = _head(self.prompt)
        seed = self.request.sampling.seed
        entropy = None if seed is None else (seed % 2**64, len(self.request.ids))
        self.generator = np.random.default_rng(entropy)

    def uniform(self) -> float:
        """The uniform number in [0, 1) that the next token is drawn with."""
        if not self.draws:
            self.draws = self.generator.random(_DRAWS).tolist()[::-1]
        return self.draws[-1]

    def take(self, token: int, logprob: float, raw: float, eos: frozenset[int]) -> None:
        """Note a sampled token, and whether it is the last."""
        self.draws.pop()
        self.sampled.append(token)
        self.logprobs.append(logprob)
        self.raw.append(raw)
        if token in eos:
            self.finish = FinishReason.EOS
        elif self.finder is not None and self.finder.push(token):
            self.finish = FinishReason.STOP
        elif len(self.sampled) >= self.limit:
            self.finish = FinishReason.LENGTH

    def chunk(self) -> Chunk:
        """The tokens sampled since the last chunk."""
        new = slice(self.delivered, None)
        sampling = self.request.sampling
        plain = sampling.temperature == 1 and sampling.top_k == 0 and sampling.top_p == 1
        first = self.delivered == 0
        self.delivered = len(self.sampled)
        return Chunk(
            ids=tuple(self.sampled[new]),
            logprobs=tuple(self.logprobs[new]),
            raw_logprobs=None if plain else tuple(self.raw[new]),
            finish=self.finish,
            version=self.version,
            prefilled=len(self.request.ids) - self.cached if first else 0,
            cached=self.cached if first else 0,
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    ids: Ids
    values: Tensor


class RunningBatch:
    """The model, the rows that run, and the caches kept for trajectories that wait for a tool."""

    def __init__(
        self, model: nn.Module, cache: KeyValues, eos: frozenset[int], kept_bytes: int
    ) -> None:
        self.model = model
        self.rows: list[BatchRow] = []
        self.decoding = 0
        self.version = 0
        self._eos = eos
        self._cache = cache
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._alike: defaultdict[bytes, set[str]] = defaultdict(set)  # their names, by their head
        self._kept_bytes = 0
        self._kept_limit = kept_bytes
        weight = next(model.parameters())
        self._dtype, self._device = weight.dtype, weight.device
        # Attention masks are ours: a mask of four dimensions keeps the model from making its own.
        self._no_mask = torch.zeros(1, 1, 1, 1, dtype=weight.dtype, device=weight.device)
        self._sampler: tuple[list[BatchRow], TokenSampler] | None = None

    def admit(self, row: BatchRow) -> None:
        """Add a request, with what is still held of its context.

        Raises MemoryError, and changes nothing, if there is no room for its prompt.
        """
        # The last token is computed in any case: its logits are what is sampled from.
        length, source = self._held(row.prompt[:-1], row.request.context)
        at = len(self.rows)
        self._reserve(at + 1, len(row.prompt))
        row.held, row.version = length, self.version
        if isinstance(source, int):
            self._cache.move(source, at, length)
        elif (kept := self._kept.get(source)) is not None:
            self._cache.put(at, kept.values[:, :, :, :length])
            self._kept.move_to_end(source)
        else:  # it had to go, to make room
            row.held = 0
        if not row.sampled:
            row.cached = row.held
        self._pop(row.request.context)
        self.rows.append(row)

    def better_later(self, row: BatchRow) -> bool:
        """True if a row that is being filled will soon hold far more of this context than is held
        now, or all of it: samples of one prompt arrive together, and so do the branches of a tree,
        and what they have in common is computed once.
        """
        ids = row.prompt[:-1]
        now, _ = self._held(ids, row.request.context)
        later = max((common for common, _ in self._relatives(ids)), default=0)
        return later - now >= _SHARE or now < later == len(ids)

    def _held(self, ids: Ids, context: str | None) -> tuple[int, int | str]:
        """The most tokens of a context that are held, and by whom: a row, or the name of a context
        that is kept.
        """
        kept = self._kept.get(context or "")
        best = 0 if kept is None else common_length(kept.ids, ids)
        found: int | str = context or ""
        for name in self._alike.get(_head(ids), ()):
            other = self._kept[name].ids
            # It holds more only if it agrees where the best one so far ends.
            if best < min(len(other), len(ids)) and other[best] == ids[best]:
                common = common_length(other, ids)
                if common > best:
                    best, found = common, name
        for common, at in self._relatives(ids):
            if (held := min(common, self.rows[at].held)) > best:
                best, found = held, at
        return best, found

    def remove(self, row: BatchRow) -> None:
        """Take a request out; what its context holds is kept for the next one."""
        at = self.rows.index(row)
        self._keep(row, at)
        self._take_out(at)

    def preempt(self, row: BatchRow) -> None:
        """Take a request out to make room. Admitted again, it continues where it was, once its
        context and what it has sampled are computed again.
        """
        self._take_out(self.rows.index(row))
        row.prompt = np.concatenate([row.request.ids, np.array(row.sampled, np.int32)])
        row.held = 0

    def _take_out(self, at: int) -> None:
        if at < self.decoding:
            self.decoding -= 1
            self._put(self.decoding, at)
            at = self.decoding
        self._put(len(self.rows) - 1, at)
        self.rows.pop()

    def step(self) -> list[BatchRow]:
        """Run the model once for all rows; returns the rows that are now at their end.

        Raises BrokenModel where the model gives NaN; MemoryError, and the step can be tried again,
        if there is no room for it.
        """
        counts = self._counts()
        with one_memory_error():
            logits = self.forward(self.rows, counts, self.decoding)
            done = self.decoding
            for row, count in zip(self.rows[done:], counts[done:].tolist(), strict=False):
                done += row.held + count == len(row.prompt)
            columns = self._draw(self.rows[:done], logits[:done]) if done else ([], [], [])
        for row, count in zip(self.rows, counts.tolist(), strict=False):
            row.held += count
        self.decoding = done
        for row, token, logprob, raw in zip(self.rows, *columns, strict=False):
            row.take(token, logprob, raw, self._eos)
        return [row for row in self.rows[:done] if row.finish is not None]

    def _draw(
        self, rows: list[BatchRow], logits: Tensor
    ) -> tuple[list[int], list[float], list[float]]:
        """A token for each row, its log-probability and the raw one."""
        draw = self._sampler_of(rows).draw(logits, [row.uniform() for row in rows])
        together = torch.stack([draw.logprobs, draw.raw]).cpu().numpy()
        if not np.isfinite(together).all():
            raise BrokenModel("the model gives no probabilities (NaN): its weights are broken")
        logprobs, raw = together.tolist()
        return draw.tokens.tolist(), logprobs, raw

    def forward(self, rows: Sequence[BatchRow], counts: NDArray[np.int64], decoding: int) -> Tensor:
        """Compute the next `counts[i]` tokens of each row; the logits after the last of each."""
        held = np.array([row.held for row in rows], np.int64)
        self._reserve(len(rows), int((held[: len(counts)] + counts).max()))
        step = plan(self._cache, held, counts, decoding, (self._dtype, self._device))
        ids = [np.array([row.sampled[-1] for row in rows[:decoding]], np.int64)]
        positions = [held[:decoding]]
        for row, count in zip(rows[decoding : len(counts)], counts[decoding:], strict=True):
            ids.append(row.prompt[row.held : row.held + count].astype(np.int64))
            positions.append(np.arange(row.held, row.held + count))
        output = self.model(
            input_ids=self._tensor(np.concatenate(ids)[None]),
            position_ids=self._tensor(np.concatenate(positions)[None]),
            attention_mask=self._no_mask,
            use_cache=False,
            logits_to_keep=self._tensor(np.cumsum(counts) - 1),
            interlace_step=step,
        )
        logits: Tensor = output.logits[0]
        return logits

    def drop(self, context: str) -> None:
        """A trajectory is over: nothing is kept for it, now or when its request ends."""
        self._pop(context)
        for row in self.rows:
            if row.request.context == context:
                row.keep = False

    def drop_kept(self) -> bool:
        """Keep nothing of any trajectory that waits; whether there was anything."""
        had = bool(self._kept)
        self._kept.clear()
        self._alike.clear()
        self._kept_bytes = 0
        return had

    def clear(self) -> list[BatchRow]:
        """Give all memory back; returns the rows that ran."""
        rows, self.rows, self.decoding = self.rows, [], 0
        self._sampler = None
        self.drop_kept()
        self._cache.clear()
        return rows

    def load(self, state: dict[str, Tensor]) -> None:
        """Replace the weights, between requests. Raises ValueError, and changes nothing, where
        names or shapes do not fit; of weights that are tied, one is enough.
        """
        assert not self.rows, "weights are replaced between requests"
        own = self.model.state_dict()
        given = {own[name].data_ptr() for name in state.keys() & own.keys()}
        wrong = [name for name, tensor in own.items() if tensor.data_ptr() not in given]
        wrong += [name for name in state if name not in own or state[name].shape != own[name].shape]
        if wrong:
            raise ValueError(
                f"{len(wrong)} weights do not fit the model, the first is {wrong[0]!r}"
            )
        self.drop_kept()
        self.model.load_state_dict(state, strict=False)
        self.version += 1

    def _counts(self) -> NDArray[np.int64]:
        """How many tokens of each row this step computes; rows that get none are left out."""
        counts = [1] * self.decoding
        left = _FILL
        for row in self.rows[self.decoding :]:
            count = min(len(row.prompt) - row.held, left)
            if count == 0:
                break
            counts.append(count)
            left -= count
        return np.array(counts, np.int64)

    def _relatives(self, ids: Ids) -> list[tuple[int, int]]:
        """Running rows whose contexts begin like this one: (tokens in common, row)."""
        head = _head(ids)
        return [
            (common_length(row.prompt, ids), at)
            for at, row in enumerate(self.rows)
            if len(ids) >= _SHARE and row.head == head
        ]

    def _sampler_of(self, rows: list[BatchRow]) -> TokenSampler:
        if self._sampler is None or self._sampler[0] != rows:
            samplings = [row.request.sampling for row in rows]
            self._sampler = (rows, TokenSampler(samplings, self._device))
        return self._sampler[1]

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def _put(self, source: int, target: int) -> None:
        if source != target:
            self._cache.move(source, target, self.rows[source].held)
            self.rows[target] = self.rows[source]

    def _reserve(self, rows: int, length: int) -> None:
        """Make room: with some to spare, else for just so much, else in the place of what is kept.

        Raises MemoryError, and changes nothing that runs, if there is none.
        """
        wanted = self._cache.missing(rows, length)
        if wanted is None:
            return
        try:
            return self._grow(*wanted)
        except MemoryError:
            wanted = rows, max(length, self._cache.capacity)
        try:
            return self._grow(*wanted)
        except MemoryError:
            if not self.drop_kept():
                raise
        self._grow(*wanted)

    def _grow(self, rows: int, length: int) -> None:
        need = rows * self._cache.bytes_for(length)
        free = free_bytes(self._device)
        if free is not None and need > free:
            raise MemoryError(f"{need >> 20} MiB are needed for the cache, {free >> 20} are free")
        with one_memory_error():
            self._cache.grow(rows, length)

    def _keep(self, row: BatchRow, at: int) -> None:
        context = row.request.context
        if context is None or not row.keep or not row.held:
            return
        self._pop(context)
        size = self._cache.bytes_for(row.held)
        if size > self._kept_limit:
            return
        while self._kept_bytes + size > self._kept_limit:
            self._pop(next(iter(self._kept)))
        ids = np.concatenate([row.request.ids, np.array(row.sampled, np.int32)])[: row.held]
        try:
            with one_memory_error():
                values = self._cache.take(at, row.held)
        except MemoryError:  # keeping is a convenience: those who run need the room more
            self.drop_kept()
            return
        self._kept[context] = _Kept(ids, values)
        if len(ids) >= _SHARE:
            self._alike[_head(ids)].add(context)
        self._kept_bytes += size

    def _pop(self, context: str | None) -> _Kept | None:
        kept = None if context is None else self._kept.pop(context, None)
        if kept is not None and context is not None:
            self._kept_bytes -= self._cache.bytes_for(len(kept.ids))
            head = _head(kept.ids)
            names = self._alike.get(head, set())
            names.discard(context)
            if not names:
                self._alike.pop(head, None)
        return kept


def _head(ids: Ids) -> bytes:
    """The first ids, by which contexts are found that may have a beginning in common."""
    return ids[:_SHARE].tobytes()

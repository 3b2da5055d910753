"""An engine that plays recorded episodes again, token for token."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..ledger import Floats, Ids, Ledger, Source, Span
from ..tokenizer import Tokenizer
from ..trajectory import Episode, FinishReason, Turn
from .base import Chunk, EngineError, Request, common_length
from .stops import StopFinder

__all__ = ["ReplayEngine"]


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """One ledger of a recording, and the trajectory it belongs to."""

    episode: str
    trajectory: int
    ledger: Ledger
    turns: tuple[Turn, ...]

    def end_of_turn(self, start: int) -> tuple[int, FinishReason | None] | None:
        """The end and finish of the policy's turn that continues at `start`; None if none does."""
        for turn in self.turns:
            if turn.start <= start < turn.stop or turn.start == start == turn.stop:
                return turn.stop, turn.finish
        mask = self.ledger.response_mask[start:]
        if not len(mask) or not mask[0]:
            return None
        given = np.flatnonzero(~mask)
        return start + int(given[0] if len(given) else len(mask)), None


class ReplayEngine:
    """Gives back what the policy of a recorded trajectory said, when asked with its context.

    Ids, log-probabilities and versions are those of the recorded spans. Where several recorded
    trajectories have the same context (the samples of a group), each is given out in turn, and a
    named context stays with the trajectory it began. A context that is in no recording raises
    EngineError, which says where it departed from the nearest one.
    """

    def __init__(
        self, episodes: Iterable[Episode], tokenizer: Tokenizer, *, context_length: int = 32768
    ) -> None:
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.name = "replay"
        self._recorded: list[_Recorded] = []
        for episode in episodes:
            for trajectory in episode.trajectories:
                number = len(self._recorded)
                self.name = trajectory.model
                for at, ledger in enumerate(trajectory.ledgers):
                    turns = tuple(turn for turn in trajectory.turns if turn.ledger == at)
                    self._recorded.append(_Recorded(episode.id, number, ledger, turns))
        if not self._recorded:
            raise ValueError("there is nothing to replay: no episode has a ledger")
        self._given: Counter[tuple[int, int]] = Counter()
        self._bound: dict[str, int] = {}

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Give the recorded continuation; raises EngineError if there is none."""
        recorded, end, finish = self._find(request)
        start = len(request.ids)
        room = min(request.max_tokens, self.context_length - start)
        if start + room < end:
            end, finish = start + max(room, 0), FinishReason.LENGTH
        stopped = self._first_stop(recorded.ledger.ids[start:end], request.stop)
        if stopped is not None:
            end, finish = start + stopped[0], stopped[1]
        parts = list(_parts(recorded.ledger, start, end))
        if not parts:
            yield Chunk((), (), None, finish or FinishReason.LENGTH)
        for at, (span, first, last) in enumerate(parts, start=1):
            yield Chunk(
                ids=tuple(span.ids[first:last].tolist()),
                logprobs=_floats(span.logprobs, first, last),
                raw_logprobs=_floats(span.raw_logprobs, first, last),
                finish=(finish or FinishReason.LENGTH) if at == len(parts) else None,
                version=span.version or 0,
            )

    async def release(self, context: str) -> None:
        """Free the name for another trajectory."""
        self._bound.pop(context, None)

    async def aclose(self) -> None:
        """Nothing is held."""

    def _find(self, request: Request) -> tuple[_Recorded, int, FinishReason | None]:
        start = len(request.ids)
        found: list[tuple[int, _Recorded, tuple[int, FinishReason | None]]] = []
        for index, recorded in enumerate(self._recorded):
            if np.array_equal(recorded.ledger.ids[:start], request.ids):
                end = recorded.end_of_turn(start)
                if end is not None:
                    found.append((index, recorded, end))
        if not found:
            raise EngineError(self._departure(request.ids))
        bound = self._bound.get(request.context or "")
        index, recorded, (stop, finish) = min(
            found, key=lambda f: (f[1].trajectory != bound, self._given[f[0], start], f[0])
        )
        self._given[index, start] += 1
        if request.context:
            self._bound[request.context] = recorded.trajectory
        return recorded, stop, finish

    def _first_stop(self, ids: Ids, stops: Sequence[str]) -> tuple[int, FinishReason] | None:
        finder = StopFinder(self.tokenizer, stops)
        for count, id in enumerate(ids.tolist(), start=1):
            if id in self.tokenizer.eos_ids:
                return count, FinishReason.EOS
            if finder.push(id):
                return count, FinishReason.STOP
        return None

    def _departure(self, ids: Ids) -> str:
        nearest = max(self._recorded, key=lambda recorded: common_length(recorded.ledger.ids, ids))
        at = common_length(nearest.ledger.ids, ids)
        if at == len(ids) and at < len(nearest.ledger):
            writer = nearest.ledger.sources[at]
            return (
                f"the recording of episode {nearest.episode!r} holds this context of {at} tokens, "
                f"but there the {writer.value} goes on, not the policy"
            )
        if at == len(ids):
            return f"the recording of episode {nearest.episode!r} ends with this context"
        there = (
            f"{self.tokenizer.token(int(nearest.ledger.ids[at]))!r} is recorded"
            if at < len(nearest.ledger)
            else "the recording ends"
        )
        return (
            f"the context departs from the recording of episode {nearest.episode!r} at token {at}: "
            f"{there}, {self.tokenizer.token(int(ids[at]))!r} was asked for"
        )


def _floats(values: Floats | None, first: int, last: int) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[first:last].tolist())


def _parts(ledger: Ledger, start: int, end: int) -> Iterator[tuple[Span, int, int]]:
    """The pieces of the policy spans that lie in [start, end) of the ledger."""
    at = 0
    for span in ledger:
        first, last = max(start - at, 0), min(end - at, len(span))
        if span.source is Source.POLICY and first < last:
            yield span, first, last
        at += len(span)

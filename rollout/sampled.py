"""The tokens of one request, until they become a span."""

from collections.abc import Sequence

from .engines.base import Chunk
from .engines.stops import ends_in_partial_stop
from .ledger import Span
from .tokenizer import Tokenizer

__all__ = ["SampledTokens"]


class SampledTokens:
    """Collects what an engine streams."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._logprobs: list[float] = []
        self._raw: list[float] = []
        self._version = 0
        self.counted: int | None = None  # as the engine counts, if these ids are not the model's
        self.estimated = False

    def add(self, chunk: Chunk) -> None:
        """Take in the next tokens."""
        self.ids += chunk.ids
        self._logprobs += chunk.logprobs or ()
        self._raw += chunk.raw_logprobs or ()
        if chunk.ids:
            self._version = chunk.version
        if chunk.counted is not None:
            self.counted, self.estimated = chunk.counted, chunk.estimated

    @property
    def exact(self) -> bool:
        """True if these ids were sampled as such, each with its log-probability."""
        return len(self._logprobs) == len(self.ids)

    def can_pause(self, tokenizer: Tokenizer, stops: Sequence[str]) -> bool:
        """True if generation can be interrupted here: the engine returned exact ids, and their text
        does not end inside a stop string, the rest of which would then be read alone.
        """
        return (
            bool(self.ids) and self.exact and not ends_in_partial_stop(tokenizer, self.ids, stops)
        )

    def span(self) -> Span:
        """The tokens as the policy's; ids that were not sampled as such can't be trained on."""
        if not self.exact:
            return Span.policy(self.ids, version=self._version, weight=0.0)
        differ = len(self._raw) == len(self.ids) and self._raw != self._logprobs
        return Span.policy(
            self.ids,
            logprobs=self._logprobs,
            raw_logprobs=self._raw if differ else None,
            version=self._version,
        )

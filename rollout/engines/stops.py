"""Finding stop strings in tokens that come one by one."""

from collections.abc import Sequence

from ..formats.stream import unfinished_mark
from ..tokenizer import Tokenizer

__all__ = ["StopFinder", "completing_ids", "ends_in_partial_stop"]


class StopFinder:
    """Says which token completes one of the stop strings, in the text of the pushed tokens.

    The token is not cut: what follows the stop inside it stays in the context as sampled. A push
    costs the same however many tokens came before.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        if "" in stops:
            raise ValueError("a stop string must not be empty")
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._keep = max(map(len, self._stops), default=1) - 1
        self._stream = tokenizer.stream()
        self._tail = ""
        self._held = False

    def push(self, token: int) -> bool:
        """Add a token. Return True if it completes a stop string."""
        if not self._stops:
            return False
        text = self._stream.push(token)
        if not text:
            return self._completes_before_partial(token)
        self._held = False
        text = self._tail + text
        self._tail = text[-self._keep :] if self._keep else ""
        return any(stop in text for stop in self._stops)

    def _completes_before_partial(self, token: int) -> bool:
        """Look into a token that ends in the first bytes of a character (`>` and half an arrow).

        The stream holds such a token back whole. After another held token, the bytes between are
        part of no stop, so that one can only lie inside this token.
        """
        text = self._tokenizer.decode([token])
        if not self._held:
            text = self._tail + text
        self._held = True
        return any(stop in text for stop in self._stops)


def ends_in_partial_stop(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> bool:
    """True if the text of the ids may end inside a stop string, or inside a character."""
    if not stops:
        return False
    longest = max(map(len, stops))
    # Tokens may be less than a character each; four bytes are the most that one takes.
    tail = tokenizer.decode(ids[-4 * longest :])
    if tail.endswith("\N{REPLACEMENT CHARACTER}"):
        return True
    return unfinished_mark(tail, stops) > 0


def completing_ids(tokenizer: Tokenizer, stops: Sequence[str]) -> list[int] | None:
    """All ids after which one of the stop strings may be complete; None if that is unknown.

    In most vocabularies a tag is several tokens, and the last of them may extend beyond it:
    `</code>` is completed by `>`, `de>`, or `>` with line feeds. Not every such token does complete
    a stop. A non-ASCII character may be split into tokens that are not text, hence None.
    """
    if not all(stop.isascii() for stop in stops):
        return None
    tails = tuple({stop[-length:] for stop in stops for length in range(1, len(stop) + 1)})
    found = []
    for id in range(len(tokenizer)) if stops else ():
        text = tokenizer.decode([id])
        if text.startswith(tails) or any(stop in text for stop in stops):
            found.append(id)
    return found

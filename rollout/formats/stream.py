"""Text that comes in parts, cut at marks that may be spread over several of them."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

__all__ = ["MarkStream", "unfinished_mark"]


def unfinished_mark(text: str, marks: Sequence[str]) -> int:
    """The number of characters at the end of `text` that could be the beginning of a mark.

    Example:
        >>> unfinished_mark("So it is <ans", ["<answer>"])
        4
    """
    longest = min(len(text), max(map(len, marks)) - 1)
    for length in range(longest, 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


@lru_cache(maxsize=64)
def _any_of(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the marks, the longest where several begin at one place.

    One search for each mark would read all of the text again for every mark that is not in it.
    """
    return re.compile("|".join(map(re.escape, sorted(marks, key=len, reverse=True))))


class MarkStream:
    """Cuts a stream of text at marks and holds back what could be the beginning of one.

    Example:
        >>> stream = MarkStream()
        >>> [*stream.feed("a <", lambda: ["<b>"])], [*stream.feed("b> c", lambda: ["<b>"])]
        ([('a ', '')], [('', '<b>'), (' c', '')])
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str, marks: Callable[[], Sequence[str]]) -> Iterator[tuple[str, str]]:
        """Pairs of text and the mark after it ("" if no mark follows yet), as far as certain.

        `marks` is asked again after each mark, since one may change which have a meaning.
        """
        text, self._held = self._held + text, ""
        start = 0
        while start < len(text):
            known = tuple(marks())
            found = _any_of(known).search(text, start)
            end = found.start() if found else len(text) - unfinished_mark(text[start:], known)
            # `<a` could still become `<ab`: wait for what follows.
            rest = text[end : end + max(map(len, known))]
            if not found or any(mark != rest and mark.startswith(rest) for mark in known):
                self._held = text[end:]
                if end > start:
                    yield text[start:end], ""
                return
            yield text[start:end], found[0]
            start = found.end()

    def end(self) -> str:
        """The text that was held back: the stream is over, so it is text after all."""
        held, self._held = self._held, ""
        return held

"""Text that comes in parts, cut at marks that may be spread over several of them."""

from collections.abc import Callable, Iterator, Sequence

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
        while text:
            known = marks()
            found = min(
                ((at, -len(mark), mark) for mark in known if (at := text.find(mark)) >= 0),
                default=None,
            )
            end = found[0] if found else len(text) - unfinished_mark(text, known)
            mark = found[2] if found else ""
            rest = text[end:]
            # `<a` could still become `<ab`: wait for what follows.
            if not found or any(each != rest and each.startswith(rest) for each in known):
                self._held = rest
                if end:
                    yield text[:end], ""
                return
            yield text[:end], mark
            text = rest[len(mark) :]

    def end(self) -> str:
        """The text that was held back: the stream is over, so it is text after all."""
        held, self._held = self._held, ""
        return held

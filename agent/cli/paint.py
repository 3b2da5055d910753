"""Colours for what a model writes, while it writes it: its words, its code, its answer."""

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ...rollout.formats import FORMATS, Block

__all__ = ["Painter", "Piece"]

Piece: TypeAlias = tuple[str, str]
"""Text and the kind of text it is: `words`, `code` or `answer`."""


_FENCES = ("```python\n", "```py\n", "```sql\n", "```\n", "```")
_BRACES = re.compile(r"(\\boxed\s*\{)|(\\(?:b(?:o(?:x(?:e(?:d\s*)?)?)?)?)?\Z)|\\.|[{}]", re.DOTALL)


class Painter:
    """Cuts a stream of text into pieces of one kind each; tags themselves are left out, and
    LaTeX's boxes around answers.

    A tag may come in any number of parts: what could be the beginning of one is held back until it
    is clear. `live` says whether the last call's code was shown while it was written, `language`
    in what it is written, where that is known.

    `blocks` are those of a format beside the built-in ones, whose marks are all known: people read
    what models of any kind wrote.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        every = [*(block for each in FORMATS.values() for block in each.blocks), *blocks]
        self._openings = {block.open: block for block in every}
        self._block: Block | None = None
        self._boxes = _Boxes()
        self._held = ""
        self.live = False
        self.language = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """The pieces that are certain now."""
        text = self._held + text
        self._held = ""
        while text:
            marks = self._marks()
            found = re.search("|".join(map(re.escape, marks)), text)
            end = found.start() if found else len(text) - _beginning(text, marks)
            if end:
                yield from self._piece(text[:end])
            text = text[end:]
            if found is None or _may_go_on(text, marks):
                self._held = text
                return
            yield from self._rest()
            self._pass(found[0])
            text = text[len(found[0]) :]

    def end(self) -> Iterator[Piece]:
        """The turn is over: what was held back is text after all."""
        held, self._held = self._held, ""
        if held and held not in self._marks():
            yield from self._piece(held)
        yield from self._rest()
        self._block = None

    def _piece(self, text: str) -> Iterator[Piece]:
        # A query has no LaTeX in it.
        if self._block is None or (self._block.kind == "answer" and not self._block.language):
            text = self._boxes.open(text)
        if self._kind is not None and text:
            yield text, self._kind

    @property
    def _kind(self) -> str | None:
        if self._block is None:
            return "words"
        return None if self._block.kind == "call" else self._block.kind

    def _rest(self) -> Iterator[Piece]:
        """What could have been the beginning of a box, and is none."""
        if rest := self._boxes.end():
            yield rest, self._kind or "words"

    def _marks(self) -> tuple[str, ...]:
        """What has a meaning here; longer ones first."""
        if self._block is None:
            return tuple(sorted(self._openings, key=len, reverse=True))
        fenced = self._block.language and not self._block.open.startswith("```")
        return (self._block.close, *(_FENCES if fenced else ()))

    def _pass(self, mark: str) -> None:
        if self._block is None:
            self._block = self._openings[mark]
            self.live = self._block.kind == "code"
            self.language = self._block.language
        elif mark == self._block.close:
            self._block = None


class _Boxes:
    r"""Leaves out `\boxed{` and the brace that closes it, wherever they stand, in a text that comes
    in any number of parts. Other braces stay.
    """

    def __init__(self) -> None:
        self._open: list[bool] = []  # for each open brace, whether it is a box's
        self._held = ""

    def open(self, text: str) -> str:
        """What is certain now, without boxes."""
        text, self._held = self._held + text, ""
        return _BRACES.sub(self._pass, text)

    def end(self) -> str:
        """What was held back: the text is over."""
        held, self._held, self._open = self._held, "", []
        return held

    def _pass(self, found: re.Match[str]) -> str:
        mark = found[0]
        if found[2] is not None:
            self._held = mark
            return ""
        if found[1] is not None or mark == "{":
            self._open.append(mark != "{")
        elif mark == "}" and self._open and self._open.pop():
            return ""
        return "" if found[1] is not None else mark


def _beginning(text: str, marks: tuple[str, ...]) -> int:
    """How many characters at the end of `text` could be the beginning of a mark."""
    longest = min(len(text), max(map(len, marks)) - 1)
    for length in range(longest, 0, -1):
        if any(mark.startswith(text[-length:]) for mark in marks):
            return length
    return 0


def _may_go_on(text: str, marks: tuple[str, ...]) -> bool:
    """Whether what is there is the beginning of a mark that is longer still."""
    return any(mark != text and mark.startswith(text) for mark in marks)

"""Colours for what a model writes, while it writes it: its words, its code, its answer."""

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ....rollout.formats import FORMATS, Block
from ....rollout.formats.stream import MarkStream

__all__ = ["Piece", "TagStream"]

Piece: TypeAlias = tuple[str, str]
"""Text and the kind of text it is: `words`, `code` or `answer`."""


_FENCES = ("```python\n", "```py\n", "```sql\n", "```\n", "```")
# Blanks after `\boxed` are held back until a brace comes, so there is a bound.
_BRACES = re.compile(
    r"(\\boxed\s{0,64}\{)|(\\(?:b(?:o(?:x(?:e(?:d\s{0,64})?)?)?)?)?\Z)|\\.|[{}]", re.DOTALL
)


class TagStream:
    """Cuts a stream of text into pieces of one kind each; tags themselves are left out, and
    LaTeX's boxes around answers.

    `live` says whether the last call's code was shown while it was written, `language`
    in what it is written, where that is known.

    `blocks` are those of a format beside the built-in ones, whose marks are all known: people read
    what models of any kind wrote.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        every = [*(block for each in FORMATS.values() for block in each.blocks), *blocks]
        self._openings = {block.open: block for block in every}
        self._block: Block | None = None
        self._boxes = _Boxes()
        self._stream = MarkStream()
        self.live = False
        self.language = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """The pieces that are certain now."""
        for before, mark in self._stream.feed(text, self._marks):
            if before:
                yield from self._piece(before)
            if mark:
                yield from self._rest()
                self._pass(mark)

    def end(self) -> Iterator[Piece]:
        """The turn is over: what was held back is text after all."""
        held = self._stream.end()
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
        """Yield the text that might have begun a box and did not."""
        if rest := self._boxes.end():
            yield rest, self._kind or "words"

    def _marks(self) -> tuple[str, ...]:
        """The marks that have a meaning here."""
        if self._block is None:
            return tuple(self._openings)
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
        """The text certain by now, without boxes."""
        text, self._held = self._held + text, ""
        return _BRACES.sub(self._pass, text)

    def end(self) -> str:
        """The text that was held back; no more will come."""
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

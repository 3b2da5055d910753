"""A model's words as Markdown, while it writes them."""

import re

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.text import Text

from .terminal import printable

__all__ = ["MarkdownStream"]

_FRAMES_A_SECOND = 12
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class _Heading(Heading):
    """A heading at the margin, like all other text, without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.assemble((f"{'#' * int(self.tag[1:])} ", "dim"), self.text)


class _Words(Markdown):
    """Markdown as models mean it: a line break is one, LaTeX's backslashes stay, and nothing that
    was written is left out: HTML and entities are text.
    """

    elements = Markdown.elements | {"heading_open": _Heading}

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        reader = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
        reader.disable(["escape", "entity", "image", "reference"])
        self.markup = text
        self.parsed = reader.parse(text)
        for token in self.parsed:
            for child in token.children or ():
                child.type = "hardbreak" if child.type == "softbreak" else child.type


class _Block:
    """A block without empty lines around it; `live`: as much of its end as the window holds."""

    def __init__(self, text: str, *, live: bool) -> None:
        self._words = _Words(printable(text).strip("\n"))
        self._live = live

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._words, options, pad=False)
        full = [number for number, line in enumerate(lines) if any(s.text.strip() for s in line)]
        lines = lines[full[0] : full[-1] + 1] if full else []
        if self._live:
            lines = lines[-max(1, options.size.height - 2) :]
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line
        if not self._live:
            yield Segment.line()


class MarkdownStream:
    """Shows Markdown block by block, on a terminal with colours.

    A block (a paragraph, a table, a listing) that is finished is printed for good; the one that is
    being written is drawn again and again, as far as the window holds it. Begins and ends at the
    beginning of a line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._block = ""
        self._live: Live | None = None
        self._printed = False

    def feed(self, text: str) -> None:
        """Take in what was written, in any number of parts."""
        self._block += text
        while (end := _end_of_block(self._block)) is not None:
            block, self._block = self._block[:end], self._block[end:]
            self._print(block)
        if self._block.strip():
            if self._live is None:
                self._gap()
                self._live = Live(
                    console=self._console,
                    transient=True,
                    refresh_per_second=_FRAMES_A_SECOND,
                    redirect_stdout=False,
                    redirect_stderr=False,
                    vertical_overflow="visible",
                )
                self._live.start()
            self._live.update(_Block(self._block, live=True))

    def end(self) -> None:
        """Print what is left: something else comes next."""
        block, self._block = self._block, ""
        self._print(block)
        self._printed = False

    def _print(self, block: str) -> None:
        started = self._live is not None
        if self._live is not None:
            self._live.stop()  # takes away what it drew
            self._live = None
        if block.strip():
            if not started:
                self._gap()
            self._console.print(_Block(block, live=False))
            self._printed = True

    def _gap(self) -> None:
        """An empty line between two blocks."""
        if self._printed:
            self._console.out("", highlight=False)


def _end_of_block(text: str) -> int | None:
    """The end of the first block, or None unless another begins after it: an empty line outside a
    fence, then a line that is not indented (if it were, it would belong to a list before it).
    """
    fence = ""
    seen = gap = False
    at = 0
    for line in text.splitlines(keepends=True):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif not line.strip():
            gap = seen and line.endswith("\n")
        elif gap and not line.startswith((" ", "\t")):
            return at
        else:
            seen, gap = True, False
            found = _FENCE.match(line)
            fence = found[1] if found else ""
        at += len(line)
    return None

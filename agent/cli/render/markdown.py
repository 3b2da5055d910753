"""A model's words as Markdown, while it writes them."""

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown
from rich.segment import Segment
from rich.text import Text

from .terminal import printable

__all__ = ["MarkdownStream"]

_FRAMES_A_SECOND = 12
_LONGEST_DRAWN = 20_000
"""Characters: a quarter of a second at worst."""
_LEAST_DRAWN = 4_000
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


def _drawn(text: str, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
    """The lines of a block, without the empty ones around it."""
    words = _Words(printable(text).strip("\n"))
    lines = console.render_lines(words, options, pad=False)
    full = [number for number, line in enumerate(lines) if any(s.text.strip() for s in line)]
    return lines[full[0] : full[-1] + 1] if full else []


class _Block:
    """A finished block."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in _drawn(self._text, console, options):
            yield from line
            yield Segment.line()


class _OpenBlock:
    """The block that is being written; drawn as much of its end as the window holds.

    A block ends where another begins: after an empty line outside a fence, with a line that is not
    indented (if it were, it would belong to a list before it). Each line is looked at once, and a
    drawing reads no more of a long block than could be seen.
    """

    def __init__(self) -> None:
        self._begin([], blank=True)

    def _begin(self, rest: list[str], *, blank: bool) -> None:
        self._lines: list[str] = []
        self._fences: list[str] = []  # for each line, the one that opened the fence around it
        self._rest = rest  # of a line that has no end yet
        self._fence = self._fence_line = ""
        self._seen = self._gap = False
        self.blank = blank

    def feed(self, text: str) -> Iterator[str]:
        """Take in text; the blocks that it ends."""
        if not text:
            return
        last = self._rest[-1][-1] if self._rest else ""
        self.blank &= not text.strip()
        self._rest.append(text)
        if len(f"{last}{text}.".splitlines()) > 1:
            lines = "".join(self._rest).splitlines(keepends=True)
            # A line feed may follow a carriage return, and makes one end of the two.
            self._rest = [] if lines[-1].endswith("\n") else [lines.pop()]
            for line in lines:
                if self._ends_before(line):
                    yield self._end()
                self._add(line)
        if self._rest and self._ends_before(self._rest[0]):
            yield self._end()

    def end(self) -> str:
        """All that is left: nothing more comes."""
        block = "".join([*self._lines, *self._rest])
        self._begin([], blank=True)
        return block

    def _end(self) -> str:
        block = "".join(self._lines)
        self._begin(self._rest, blank=False)
        return block

    def _ends_before(self, line: str) -> bool:
        indented = line.startswith((" ", "\t"))
        return self._gap and not self._fence and not indented and bool(line.strip())

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._fences.append(self._fence_line)
        told = line.strip()
        if self._fence:
            if told.startswith(self._fence) and not told.strip(self._fence[0]):
                self._fence = self._fence_line = ""
        elif not told:
            self._gap = self._seen and line.endswith("\n")
        else:
            self._seen, self._gap = True, False
            if found := _FENCE.match(line):
                self._fence, self._fence_line = found[1], line

    def _tail(self, characters: int) -> str:
        parts = ["".join(self._rest)]
        size, first = len(parts[0]), len(self._lines)
        while first and size < characters:
            first -= 1
            parts.append(self._lines[first])
            size += len(parts[-1])
        text = "".join(reversed(parts))
        if not first and size <= characters:
            return text
        fence = self._fences[first] if first < len(self._fences) else self._fence_line
        return fence + text[-characters:]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.size
        text = self._tail(max(_LEAST_DRAWN, 4 * width * height))
        lines = _drawn(text, console, options)[-max(1, height - 2) :]
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line


class MarkdownStream:
    """Shows Markdown block by block, on a terminal with colours.

    A block (a paragraph, a table, a listing) that is finished is printed for good, one of more than
    20,000 characters as it was written; the one that is being written is drawn again and again, as
    far as the window holds it. Begins and ends at the beginning of a line.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._open = _OpenBlock()
        self._live: Live | None = None
        self._printed = False

    def feed(self, text: str) -> None:
        """Add the next piece of text, of any length; print the blocks it finishes."""
        for block in self._open.feed(text):
            self._print(block)
        if not self._open.blank and self._live is None:
            self._gap()
            self._live = Live(
                self._open,
                console=self._console,
                transient=True,
                refresh_per_second=_FRAMES_A_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="visible",
            )
            self._live.start()

    def end(self) -> None:
        """Print what is left: something else comes next."""
        self._print(self._open.end())
        self._printed = False

    def _print(self, block: str) -> None:
        started = self._live is not None
        if self._live is not None:
            self._live.stop()  # takes away what it drew
            self._live = None
        if block.strip():
            if not started:
                self._gap()
            if len(block) <= _LONGEST_DRAWN:
                self._console.print(_Block(block))
            else:
                self._console.out(printable(block).strip("\n"), highlight=False)
            self._printed = True

    def _gap(self) -> None:
        """An empty line between two blocks."""
        if self._printed:
            self._console.out("", highlight=False)

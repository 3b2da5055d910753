"""Rows of a report: aligned for people, with tabs for programs, and ids always whole."""

import re
from collections.abc import Container, Sequence

from rich.console import Console
from rich.text import Text

from .terminal import printable

__all__ = ["print_rows"]

_LEAST = 24
"""Characters of the last column that are worth showing next to the others."""


def print_rows(
    console: Console,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Container[str] = (),
    shorten: bool = False,
    heads_for_programs: bool = False,
) -> None:
    """Print rows below their heads. `right` are the heads of columns of numbers.

    On a terminal columns are aligned; a line that is wider than the window is wrapped by the
    terminal, so nothing is cut in its middle. With `shorten`, the last column is free text: it is
    cut to the window, or goes below the others where the window is narrow. Anywhere else a row is a
    line with tabs between its values, whole, without heads unless `heads_for_programs`.
    """
    cells = [[re.sub(r"\s+", " ", printable(value)).strip() for value in row] for row in rows]
    if not (console.is_terminal or console.file.isatty()):
        for row in [heads, *cells] if heads_for_programs else cells:
            console.file.write("\t".join(row) + "\n")  # rich would make blanks of the tabs
        return
    widths = [max(len(row[at]) for row in (heads, *cells)) for at in range(len(heads))]
    widths = [min(width, console.width // 2) for width in widths]  # one long value pads no others
    taken = sum(widths[:-1]) + 2 * (len(heads) - 1)
    room = console.width - taken
    for number, row in enumerate([heads, *cells]):
        padded = [
            value.rjust(width) if head in right else value.ljust(width)
            for head, value, width in zip(heads, row, widths, strict=True)
        ]
        if shorten and room < _LEAST:
            padded[-1:] = [f"\n  {_cut(row[-1], max(_LEAST, console.width - 2))}"]
        elif shorten:
            padded[-1] = _cut(row[-1], room)
        line = Text("  ".join(padded).rstrip(), "" if number else "dim")
        console.print(line, soft_wrap=True, highlight=False)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"

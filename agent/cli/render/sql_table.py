"""Tables as grids: what the SQL tool gives back, with its columns one below the other."""

import re

from rich.cells import cell_len

__all__ = ["as_grid"]

_LAST_LINE = re.compile(r"\((no rows|the first [\d,]+ |[\d,]+ rows?)")
_NUMBER = re.compile(r"-?[\d,]*\.?\d+(e[+-]?\d+)?|NULL")


def as_grid(text: str, width: int) -> str | None:
    r"""A result of the SQL tool as a grid at most `width` cells wide; None where it is none.

    Example:
        >>> print(as_grid("name | people\nOslo | 717710\nNes | NULL\n(2 rows)", 40))
        name │ people
        ─────┼───────
        Oslo │ 717710
        Nes  │   NULL
        (2 rows)
    """
    lines = text.split("\n")
    if len(lines) < 3 or not _LAST_LINE.match(lines[-1]):
        return None
    rows = [line.split(" | ") for line in lines[:-1]]
    if len({len(row) for row in rows}) != 1:
        return None
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    if sum(widths) + 3 * (len(widths) - 1) > width:
        return None
    right = [all(map(_NUMBER.fullmatch, column[1:])) for column in columns]

    def line(row: list[str]) -> str:
        cells = []
        for text, wide, flush in zip(row, widths, right, strict=True):
            space = " " * (wide - cell_len(text))
            cells.append(space + text if flush else text + space)
        return " │ ".join(cells).rstrip()

    rule = "─┼─".join("─" * wide for wide in widths)
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:]), lines[-1]])

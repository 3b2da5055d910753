"""A result as text for a model: a header, rows, and what was cut."""

import math
import re
import unicodedata
from collections.abc import Callable

from .database import Cut, Rows, Value

__all__ = ["escaped", "render", "show"]

_SHOWN_BYTES = 16
"""Bytes of a blob that are shown."""
_NAME = 60
"""Characters of a column's name: without an alias it is the whole expression."""

_READS_AS_ELSE = re.compile(
    r"\s*|[-+]?(\d[\d_]*(?:\.\d*)?|\.\d+)(e[-+]?\d+)?|null|nan|[-+]?inf(inity)?|x?'.*|\s.*|.*\s",
    re.IGNORECASE | re.DOTALL,
)
"""Texts that would be taken for a number, NULL or a blob, or whose end could not be seen."""

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "|": "\\|"}


def escaped(text: str) -> str:
    r"""Text in which nothing is invisible or could pass for the table's own signs.

    Control and format characters (which hide or reorder text) become escapes; so do `|` and the
    backslash.

    Example:
        >>> print(escaped("a|b\n\x1b[31m\u202e"))
        a\|b\n\x1b[31m\u202e
    """
    if text.isascii() and text.isprintable() and "|" not in text and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        code = ord(character)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else (
            f"\\U{code:08x}"
        )  # fmt: skip
    return character


def show(value: Value) -> str:
    r"""One value. NULL, numbers and blobs look like themselves, text that looks so is quoted.

    Example:
        >>> [show(v) for v in (None, "NULL", 7, "007", 0.1, float("inf"), b"\x00\xff", "")]
        ['NULL', "'NULL'", '7', "'007'", '0.1', 'Infinity', "x'00ff'", "''"]
    """
    if value is None:
        return "NULL"
    if isinstance(value, float):
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return repr(value)
    if isinstance(value, int):
        return str(value)
    size: int | None = None
    if isinstance(value, Cut):
        size = value.size
        value = value.shown
    if isinstance(value, bytes):
        size = len(value) if size is None else size
        if len(value) == size <= _SHOWN_BYTES:
            return f"x'{value.hex()}'"
        return f"x'{value[:_SHOWN_BYTES].hex()}…' ({size:,} bytes)"
    text = escaped(value)
    if _READS_AS_ELSE.fullmatch(value):
        text = "'" + text.replace("'", "''") + "'"
    return text if size is None else f"{text}… ({size:,} characters)"


def render(
    rows: Rows, *, budget: int | None = None, count: Callable[[str], int] = len
) -> tuple[str, int]:
    """The table, and how many rows it shows. What is cut is said in the last line, always.

    `budget` bounds the text as `count` measures it (characters, or a tokenizer's tokens): rows
    are left out at the end until it fits. The header, the first row and the last line are never
    left out.

    Example:
        >>> print(render(Rows.of(["name", "people"], [["Oslo", 717710], ["Bergen", None]]))[0])
        name | people
        Oslo | 717710
        Bergen | NULL
        (2 rows)
    """
    header = " | ".join(_name(name) for name in rows.columns)
    lines = [" | ".join(show(value) for value in row) for row in rows.rows]
    shown = len(lines)
    if budget is not None:
        # Measured line by line, as tokens of a joined text are hardly ever more than of its lines.
        left = budget - count(header + "\n") - count(_summary(rows, shown, shown))
        for i, line in enumerate(lines):
            left -= count(line + "\n")
            if left < 0 and i:
                shown = i
                break
    cut = sum(isinstance(value, Cut) for row in rows.rows[:shown] for value in row)
    return "\n".join([header, *lines[:shown], _summary(rows, shown, cut)]), shown


def _name(name: str) -> str:
    name = escaped(name)
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _summary(rows: Rows, shown: int, cut: int) -> str:
    if not rows.total:
        text = "no rows"
    elif rows.ended and shown == rows.total:
        text = f"{shown:,} row{'s' if shown != 1 else ''}"
    elif rows.ended:
        text = f"the first {shown:,} of {rows.total:,} rows"
    else:
        # The last row that came only showed that there are more.
        text = f"the first {shown:,} of more than {rows.total - 1:,} rows"
    if len(rows.columns) < rows.width:
        text += f"; the first {len(rows.columns)} of {rows.width} columns"
    if cut:
        text += f"; {cut} value{'s' if cut != 1 else ''} cut at …"
    return f"({text})"

"""Values of a row as text: answers and ids, which a file may hold as texts, numbers or nothing."""

import hashlib
import math
from datetime import date, time
from decimal import Decimal
from typing import Any, Self

__all__ = ["WrittenFloat", "answer_text", "answer_texts", "row_id", "text_id"]


class WrittenFloat(float):
    """A float that remembers how its file writes it: `2.50`, `1000000000000000000000.5`."""

    text: str

    def __new__(cls, text: str, value: float | None = None) -> Self:
        """The float that `text` writes, or `value`, to be written so."""
        made = super().__new__(cls, text if value is None else value)
        made.text = text
        return made


def answer_text(value: Any) -> str | None:
    """One answer as text; None for no value: None, NaN and blank texts.

    A number has the digits that it has in its file. Raises ValueError for anything else.

    Example:
        >>> answer_text(WrittenFloat("2.50")), answer_text(0), answer_text(float("nan"))
        ('2.50', '0', None)
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy's
    if value is None or repr(value) in ("NaT", "<NA>"):  # pandas'
        return None
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if math.isnan(value):
            return None
        if math.isfinite(value):
            return _digits(value)
    if isinstance(value, date | time):
        return value.isoformat()
    raise ValueError(f"an answer is a text or a number, not {value!r:.60}")


def answer_texts(value: Any) -> list[str]:
    """All answers of a value that holds one or a list of them, each once; None, NaN and blank texts
    are left out.

    Raises ValueError as `answer_text` does.

    Example:
        >>> answer_texts(["Oslo", None, "Christiania", "Oslo"]), answer_texts(7), answer_texts(None)
        (['Oslo', 'Christiania'], ['7'], [])
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    given = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(text for each in given if (text := answer_text(each)) is not None))


def row_id(value: Any) -> str | None:
    """A row's own id, a text or an integer; None for no value. Raises ValueError for others."""
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy's
    try:
        text = answer_text(value)
        is_float = text is not None and isinstance(value, float | Decimal)
        whole = value == int(value) if is_float else not isinstance(value, date | time)
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"an id is a text or an integer, not {value!r:.60}")
    # pandas keeps integers as floats if one of them is missing
    return str(int(value)) if is_float else text


def _digits(number: float | Decimal) -> str:
    if isinstance(number, WrittenFloat):
        return number.text
    if isinstance(number, int):
        return str(number)
    return format(Decimal(str(number)), "f")


def text_id(text: str) -> str:
    """The hash of a text, as an id: 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()

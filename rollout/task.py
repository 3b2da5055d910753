"""A task: a question, the answer that settles it, and when two answers are equal."""

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

__all__ = ["Task", "equal_answers"]


@dataclass(frozen=True, slots=True)
class Task:
    """One question put to a policy. `answer` is None where nobody knows it.

    `data` holds what rewards and reports need beside the answer (level, template, a gold query);
    it must survive JSON.
    """

    id: str
    question: str
    answer: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


_NUMBER = re.compile(r"[-+]?([1-9]\d{0,2}(,\d{3})+|\d+)?(\.\d*)?(e[-+]?\d{1,4})?")


def _number(text: str) -> Decimal | None:
    text = text.replace("\N{MINUS SIGN}", "-")
    if not text or not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def equal_answers(a: str, b: str) -> bool:
    """True if two short answers are the same: as numbers, else as text.

    Numbers are compared exactly (`1,200` equals `1200.0`); a leading `$` and a trailing `%`, dot
    or blank do not count, nor does letter case or the width of white space. A comma belongs to a
    number only before groups of three digits: elsewhere it makes a list, which is text.

    Example:
        >>> equal_answers("1,298,552", "1298552.0"), equal_answers("4,6,8", "468")
        (True, False)
        >>> equal_answers(".5", "0.5"), equal_answers(".5", "5")
        (True, False)
    """
    a, b = (" ".join(text.split()).casefold() for text in (a, b))
    short = [text.lstrip(" $").rstrip(" $%.") for text in (a, b)]
    if not all(short):  # nothing but signs
        return a == b
    x, y = map(_number, short)
    if x is not None and y is not None:
        return x == y
    return short[0] == short[1]

r"""Units before and after an expression: bare, in `\text{..}`, or a sign such as `\$`."""

import re
from collections.abc import Sequence

from .items import Group, Item, Token, is_space, kind_of, text_of, trim
from .latex import write
from .spellings import CHANGES, CURRENCIES, FUNCTIONS, NO_UNITS, PRODUCTS, ROUNDED, SCALES, UNITS

__all__ = ["without_unit"]

_FACTOR = re.compile(r"[^\W\d_]+|\^?-?\d+|[/$€£¥¢°%'\"]")
_CHANGES, _ROUNDED = re.compile(CHANGES), re.compile(ROUNDED)
_POWERS = {"square": 2, "cubic": 3}


def _unit(text: str) -> str | None:
    """A unit as its factors with their powers, in one order: `m/s` and `m s^{-1}` are one."""
    text = re.sub(r"\\(?:text[a-z]*|mathrm|cdot|times)|[{}]", " ", text.casefold())
    text = re.sub(r"\b(?:in total|in all|total|altogether|only)\b", " ", text)
    powers: dict[str, int] = {}
    sign, prefix, last = 1, 1, ""
    for word in _FACTOR.findall(text):
        if word in ("/", "per"):
            sign = -1
        elif word.lstrip("^-").isdigit():
            if last:
                powers[last] += (int(word.lstrip("^")) - 1) * sign
        else:
            plain = word if word in UNITS else word[:-1] if word.endswith("s") else word
            name = UNITS.get(plain, plain or word)
            if name in _POWERS:
                prefix = _POWERS[name]
                continue
            for at, part in enumerate(name.split("/")):
                last = part
                powers[part] = powers.get(part, 0) + prefix * (sign if not at else -sign)
            prefix = 1
    if prefix > 1:
        last = next(name for name, power in _POWERS.items() if power == prefix)
        powers[last] = powers.get(last, 0) + 1
    return (
        " ".join(
            f"{name}^{power}" if power != 1 else name for name, power in sorted(powers.items())
        )
        or None
    )


def without_unit(items: list[Item], measured: bool = False) -> tuple[list[Item], str | None]:
    """An expression without the unit before or after it, and that unit."""
    items = trim(items)
    currency = UNITS.get(text_of(items[0]).casefold(), "") if items else ""
    if len(items) > 1 and currency in CURRENCIES:
        rest, unit = without_unit(trim(items[1:]))
        # $25 per hour; $5 dollars
        return rest, _unit(f"{currency} {unit.removeprefix(currency)}" if unit else currency)
    if len(items) > 2 and text_of(items[0]) == "-" and text_of(items[1]) == "\\$":
        return [items[0], *trim(items[2:])], "$"
    end = len(items)
    if any(text_of(item)[1:] in FUNCTIONS for item in items):  # \sin 30^\circ
        return items, None
    units = _bare_units(items, measured)

    def is_unit(at: int) -> bool:
        return 0 <= at < len(items) and (kind_of(items[at]) == "text" or units[at])

    while end:
        item = items[end - 1]
        if is_unit(end - 1) or kind_of(item) in ("space", "thin"):
            end -= 1
        elif isinstance(item, Group) and end > 2 and text_of(items[end - 2]) == "^":
            if all(kind_of(each) == "text" for each in item.items):  # 5^{th}
                end -= 2
                continue
            if not is_unit(end - 3):
                break
            end -= 2
        elif (
            (text_of(item) in ("\\$", "/", "\\cdot") and is_unit(_next(items, end)))
            or (text_of(item) == "\\$" and end == len(items))
            or (text_of(item) in ("'", '"') and end > 1 and kind_of(items[end - 2]) == "number")
        ):
            end -= 1
        else:
            break
    behind = items[end:]
    rest = trim(items[:end])
    if not rest or not behind:
        return items, None
    told = "".join(write(i.items) if isinstance(i, Group) else f" {text_of(i)}" for i in behind)
    words = told.casefold().split()
    while words[:1] and (scale := words[0].removesuffix("s")) in SCALES:
        ten = [Token("command", "\\times"), Token("number", "10"), Token("symbol", "^")]
        rest = [*rest, *ten, Group((Token("number", str(SCALES[scale])),))]
        del words[0]
    plain = " ".join(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*|\d+", " ".join(words)))
    if NO_UNITS.intersection(words) or _CHANGES.search(_ROUNDED.sub("", plain)):
        return items, None
    return rest, _unit(" ".join(words))


def _next(items: Sequence[Item], at: int) -> int:
    """The place of the next item from `at` on that is no space."""
    while at < len(items) and is_space(items[at]):
        at += 1
    return at


def _bare_units(items: Sequence[Item], measured: bool) -> list[bool]:
    """For each item: True if it is bare letters that are a unit: a known one after a number, or
    words after a blank. One letter is a unit only where one is expected, or in `km/h`.
    """
    units: list[bool] = []
    before, plain = -1, True  # the last item that is no space; only numbers and signs so far
    inside = False  # a unit has begun
    for at, item in enumerate(items):
        word, spaced, unit = text_of(item).casefold(), before < at - 1, False
        known = word in UNITS or word.removesuffix("s") in UNITS
        if text_of(item) == "\\Omega" and (spaced or measured) and before >= 0 and plain:
            unit = True
        elif before < 0 or kind_of(item) != "letters":
            pass
        elif inside and known:
            unit = True
        elif len(word) == 1:  # 5m is a product
            behind = isinstance(items[before], Group) or kind_of(items[before]) == "number"
            unit = measured and known and (behind or plain)
        elif kind_of(items[before]) == "letters":
            unit = spaced and units[before]
        elif (
            kind_of(items[before]) == "number"
            or isinstance(items[before], Group)
            or text_of(items[before]) in ("\\pi", ")")
        ):
            sure = spaced or measured or word not in PRODUCTS
            unit = (known and sure) or (spaced and len(word) > 2 and plain)
        units.append(unit)
        inside = (
            unit or text_of(item) == "°" or (inside and kind_of(item) not in ("number", "letters"))
        )
        before = before if is_space(item) else at
        plain &= kind_of(item) in ("number", "space", "thin") or text_of(item) in ("-", "+")
    return units

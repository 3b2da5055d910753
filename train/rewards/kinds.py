r"""An answer, read as what it is: a number, a set, an interval, a relation, a word ...

`read_answer` gives plain data that survives JSON, since it is compared in another process
(`math_worker`). Each is a list whose first entry is its kind:

    ["expr", latex, number, unit]      a value; `number` is [fraction, exponent of the last decimal
                                       digit or None] where it is written as a number
    ["word", text]                     words, compared as text
    ["base", digits, base]             a numeral with a base
    ["list", values], ["set", values]  in any order; ["seq", values] has dots and an order
    ["tuple", open, close, values]     also an open or half-open interval
    ["matrix", rows, latex]
    ["region", variable, parts, holes] numbers; a part is [low, closed, high, closed] in LaTeX
    ["equal", names, members, sides]   `x = 3`; names are left of it, sides are LaTeX
    ["relation", sign, left, right]    any other with two sides, `<` or `<=`
    ["ratio", values]                  `3:4`, two or more
    ["congruence", name, value, modulus]   `x \equiv 3 \pmod{7}`; the name may be None
    ["date", ..], ["time", ..], ["amounts", ..]   as `phrases` reads them
    ["choice", letter, value]          an option's letter with its text after it
    ["raw", latex]                     what none of these fits
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeAlias

from .items import Group, Item, Token, enclosed, is_space, kind_of, split, text_of, trim, unspaced
from .latex import Unreadable, read_latex, write
from .phrases import read_phrase, without_words
from .spellings import BASES, FUNCTIONS, GREEK
from .units import without_unit

__all__ = ["Value", "read_answer"]

Value: TypeAlias = list[Any]

_RELATIONS = ("=", "<", ">", "\\leq", "\\geq", "\\neq", "\\approx", "\\in")


def read_answer(text: str, *, measured: bool = False) -> Value:
    r"""An answer as a value; `["raw", text]` where it can't be read.

    `measured`: the answer that it is compared with has a unit, so that letters of a unit behind a
    number are one: `5 m` is else a product.

    Example:
        >>> read_answer(r"$\left(3, \dfrac{\pi}{2}\right)$")[0], read_answer("x = 3")[1]
        ('tuple', ['x'])
        >>> read_answer(r"1{,}200\text{ m}")
        ['expr', '1200', ['1200', None], 'm']
    """
    text = without_words(text.strip())
    told = read_phrase(text)
    if isinstance(told, list):
        return [*told[:2], read_answer(told[2])] if told[0] == "choice" else told
    try:
        items = read_latex(text if told is None else told)
    except Unreadable:
        return ["raw", text]
    return _value(items, measured)


# -- kinds ---------------------------------------------------------------------------------------


def _value(items: Sequence[Item], measured: bool = False) -> Value:
    items = trim(items)
    start = 0
    while start < len(items) - 1 and text_of(items[start]) in ("=", "\\approx"):
        start += 1
    items = trim(items[start:]) if start else items
    if not items:
        return ["raw", ""]
    parts, marks = split(items, (",", ";", "and", "or", "\\vee"))
    parts = [part for part in parts if unspaced(part)]
    if marks and parts:
        return _many([_value(part, measured) for part in parts], marks)
    if (found := _congruence(items)) is not None:
        return found
    parts, marks = split(items, (":", "to"))
    if marks and all(map(unspaced, parts)):
        values = [_value(part) for part in parts]
        if all(value[0] == "expr" and value[3] is None for value in values):
            return ["ratio", values]
    parts, marks = split(items, _RELATIONS)
    if marks:
        return _relation([trim(part) for part in parts], marks)
    solid = unspaced(items)
    for at in range(1, len(solid) - 1):  # (0, 1) U (2, 3)
        if text_of(solid[at]) == "U" and text_of(solid[at - 1]) in (")", "]"):
            solid[at] = Token("command", "\\cup") if text_of(solid[at + 1]) in "([" else solid[at]
    parts, marks = split(solid, ("\\cup", "\\setminus"))
    if marks:
        return _region_of(parts, marks) or ["raw", write(solid)]
    if text_of(solid[0]) == "\\mathbb" and len(solid) == 2 and write(solid[1:]) == "{R}":
        return ["region", None, [["-\\infty", False, "\\infty", False]], []]
    if enclosed(solid):
        return _brackets(solid)
    if text_of(solid[0]).startswith("\\begin{") and text_of(solid[-1]).startswith("\\end{"):
        return _matrix(solid)
    if solid == [Token("command", "\\emptyset")]:
        return ["set", []]
    if enclosed(solid[1:]) and kind_of(solid[0]) == "letters" and text_of(solid[0]).isupper():
        point = _value(solid[1:])
        if point[0] == "tuple" and len(text_of(solid[0])) == 1:  # P(2, 3)
            return ["equal", [text_of(solid[0])], [point], []]
    return _numeral(solid) or _expression(items, measured)


def _congruence(items: Sequence[Item]) -> Value | None:
    r"""`x \equiv 3 \pmod{7}`, `3 (mod 7)`."""
    solid = unspaced(items)
    signs = ("\\pmod", "\\bmod", "\\mod", "mod")
    at = next(
        (i for i, item in enumerate(solid) if text_of(item).casefold().strip("( ") in signs), 0
    )
    if not 0 < at < len(solid) - 1:
        return None
    head, modulus = solid[:at], solid[at + 1 :]
    if text_of(head[-1]) == "(" and text_of(modulus[-1]) == ")":
        head, modulus = head[:-1], modulus[:-1]
    elif text_of(modulus[-1]) == ")" and "(" in text_of(solid[at]):
        modulus = modulus[:-1]
    sides, marks = split(head, ("\\equiv", "="))
    if len(sides) > 2 or not all(sides) or not modulus:
        return None
    name = write(sides[0]) if marks else None
    return ["congruence", name, _value(sides[-1]), write(trim(modulus))]


def _many(values: list[Value], marks: Sequence[str]) -> Value:
    """Values side by side: a list, a sequence with dots, or the numbers of several relations."""
    if len(values) == 1:
        return values[0]
    if any(value == ["expr", "\\ldots", None, None] for value in values):
        return ["seq", values]
    if all(value[0] == "region" and value[1] == values[0][1] for value in values):
        if "and" in marks:
            return _both(values) or ["list", values]
        parts = [part for value in values for part in value[2]]
        return ["region", values[0][1], parts, [hole for value in values for hole in value[3]]]
    flat = [each for value in values for each in (value[1] if value[0] == "list" else [value])]
    return ["list", flat]


def _both(values: list[Value]) -> Value | None:
    """`x > 2 and x < 5` is one region: what two rays have in common."""
    if len(values) != 2 or any(len(value[2]) != 1 or value[3] for value in values):
        return None
    one, other = (value[2][0] for value in values)
    if one[0] == "-\\infty":
        one, other = other, one
    if one[2] != "\\infty" or other[0] != "-\\infty" or "\\infty" in (one[0], other[2]):
        return None
    return ["region", values[0][1], [[*one[:2], *other[2:]]], []]


def _brackets(items: list[Item]) -> Value:
    opening, closing = text_of(items[0]), text_of(items[-1])
    inside = items[1:-1]
    if not inside and opening != "\\{":
        return ["raw", write(items)]
    parts, _ = split(inside, (",", ";"))
    if (opening == "\\{") != (closing == "\\}"):
        return ["raw", write(items)]
    if opening == "\\{":
        if not inside:
            return ["set", []]
        told, marks = split(inside, ("|", ":"))
        if len(told) == 2 and marks:
            value = _value(told[1])
            return value if value[0] == "region" else ["raw", write(items)]
        value = _value(inside)
        if value[0] == "region":
            return ["raw", write(items)]
        if value[0] in ("list", "seq"):
            return ["set" if value[0] == "list" else "seq", value[1]]
        return ["set", [value]]
    if len(parts) == 1:
        if text_of(inside[0]).startswith("\\begin{") and text_of(inside[-1]).startswith("\\end{"):
            return _matrix(inside)
        return _value(inside) if opening == "(" and closing == ")" else ["raw", write(items)]
    return ["tuple", opening, closing, [_value(part) for part in parts]]


def _matrix(items: list[Item]) -> Value:
    name = text_of(items[0])[7:-1]
    latex = write(items)
    if name not in ("pmatrix", "bmatrix", "Bmatrix", "matrix", "smallmatrix", "array"):
        return ["raw", latex] if name == "cases" else _expression(items)
    inside = items[1:-1]
    if any(text_of(item).startswith("\\begin{") for item in inside):
        return _expression(items)
    rows, _ = split(inside, ("\\\\",))
    rows = [row for row in rows if row]
    return ["matrix", [[_value(cell) for cell in split(row, ("&",))[0]] for row in rows], latex]


def _numeral(items: list[Item]) -> Value | None:
    r"""`61_7`, `1A_{16}`, `201_{\text{three}}`: digits and a base. Base ten is a plain number."""
    if len(items) < 3 or text_of(items[-2]) != "_" or not isinstance(items[-1], Group):
        return None
    inside = unspaced(items[-1].items)
    told = "".join(map(text_of, inside)).casefold().strip(" .()").removeprefix("base").strip(" .")
    if not (told.isdigit() or told in BASES):
        return None
    base = BASES.get(told) or int(told[:4])
    digits = items[:-2]
    if enclosed(digits):
        digits = digits[1:-1]
    text = "".join(map(text_of, digits)).upper()
    if not re.fullmatch(r"-?[0-9A-F]+", text) or not (text.strip("-")[0].isdigit() or base > 10):
        return None
    if len(text) == 1 and text.isalpha():
        return None
    if base == 10:
        return _expression(digits)
    return ["base", text.lstrip("0") or "0", base]


# -- relations -----------------------------------------------------------------------------------


def _is_name(items: Sequence[Item]) -> bool:
    r"""True for a name: `x`, `a_1`, `f(x)`, `\angle ABC`, `(x, y)`, `\text{Area}`."""
    items = unspaced(items)
    if not items:
        return False
    if enclosed(items):
        parts, _ = split(items[1:-1], (",",))
        return len(parts) > 1 and all(map(_is_name, parts))
    if all(kind_of(item) == "text" for item in items) or text_of(items[0]) == "\\lim":
        return True
    if _is_sum_of_letters(items):
        return True
    if text_of(items[0]) in ("\\angle", "\\triangle", "\\overline", "\\vec"):
        return not any(kind_of(item) == "number" for item in items)
    if len(items) == 3 and text_of(items[0]) == text_of(items[2]) == "|":  # a length, of AB
        return len(text_of(items[1])) > 1 and text_of(items[1]).isupper()
    first = items[0]
    if not (kind_of(first) == "letters" or text_of(first) in GREEK) or text_of(first) in ("e", "i"):
        return False
    if 1 < len(text_of(first)) < 4 and not text_of(first).isupper() and kind_of(first) == "letters":
        return False  # xy is a product, AB a length, area a word
    at = 1
    inverse = Group((Token("symbol", "-"), Token("number", "1")))
    while at < len(items) and (
        text_of(items[at]) in ("_", "'") or (text_of(items[at]) == "^" and items[at + 1] == inverse)
    ):
        at += 1 if text_of(items[at]) == "'" else 2
    rest = items[at:]
    return not rest or (
        enclosed(rest)
        and text_of(rest[0]) == "("
        and len(text_of(first)) == 1
        and all(
            kind_of(item) in ("letters", "number") or text_of(item) == "," for item in rest[1:-1]
        )
    )


def _is_sum_of_letters(items: Sequence[Item]) -> bool:
    """True for `a + b`, which names a value as one letter does; `2a` and `ab` don't."""
    letters, signs = items[::2], items[1::2]
    names = [text_of(item) for item in letters if kind_of(item) == "letters"]
    return (
        len(letters) == len(signs) + 1 > 1
        and all(text_of(sign) in ("+", "-") for sign in signs)
        and len(set(names)) == len(letters)
        and all(len(name) == 1 and name not in "ei" for name in names)
    )


def _has_letters(items: Sequence[Item]) -> bool:
    """True if there are variables in it."""
    return any(
        _has_letters(item.items)
        if isinstance(item, Group)
        else (item.kind == "letters" and item.text not in ("e", "i")) or item.text in GREEK
        for item in items
    )


def _holds(items: Sequence[Item], name: str) -> bool:
    return any(
        _holds(item.items, name) if isinstance(item, Group) else item.text == name for item in items
    )


def _relation(sides: list[list[Item]], marks: list[str]) -> Value:
    latex = [write(_exact(side)) for side in sides]
    if not all(sides):
        return ["raw", " ".join([*marks, *latex])]
    if marks[0] == "\\in" and len(marks) == 1:
        value = _value(sides[1])
        if not _is_name(sides[0]):
            return ["raw", " ".join([*marks, *latex])]
        if value[0] in ("region", "tuple"):
            region = _region(value)
            return value if region is None else ["region", latex[0], *region]
        return value
    if set(marks) <= {"=", "\\approx"}:
        return _equal(sides, marks, latex)
    signs = {"<": "<", "\\leq": "<=", ">": "<", "\\geq": "<="}
    if marks == ["\\neq"]:
        if _is_name(sides[0]) and not _holds(sides[1], latex[0]):
            low = ["-\\infty", False, latex[1], False]
            return ["region", latex[0], [low, [latex[1], False, "\\infty", False]], []]
        return ["raw", f"{latex[0]} \\neq {latex[1]}"]
    if not set(marks) <= signs.keys() or len({mark in (">", "\\geq") for mark in marks}) > 1:
        return ["raw", " ".join([*marks, *latex])]
    closed = [signs[mark] == "<=" for mark in marks]
    if marks[0] in (">", "\\geq"):
        sides, latex, closed = sides[::-1], latex[::-1], closed[::-1]
    if len(sides) == 3 and _is_name(sides[1]):
        return ["region", latex[1], [[latex[0], closed[0], latex[2], closed[1]]], []]
    if len(sides) == 2:
        if _is_name(sides[0]) and not _holds(sides[1], latex[0]):
            return ["region", latex[0], [["-\\infty", False, latex[1], closed[0]]], []]
        if _is_name(sides[1]) and not _holds(sides[0], latex[1]):
            return ["region", latex[1], [[latex[0], closed[0], "\\infty", False]], []]
        return ["relation", "<=" if closed[0] else "<", *latex]
    return ["raw", " ".join([*marks, *latex])]


def _equal(sides: list[list[Item]], marks: list[str], latex: list[str]) -> Value:
    if len(sides) == 2 and _is_name(sides[1]) and not _is_name(sides[0]):
        sides, latex = sides[::-1], latex[::-1]
    names = 0
    while names < len(sides) - 1 and _is_name(sides[names]):
        names += 1
    if names and len(sides) == 2 and text_of(sides[0][0]) == "\\lim":
        return _value(sides[1])
    told = sides[names:-1]
    if "\\approx" not in marks and not _has_letters(sides[-1]):
        # What can't be worked out claims nothing: A = \pi r^2 = 9\pi, 1 + ... + 9 = 45.
        formula = len(sides) > 2
        told = [s for s in told if not (_holds(s, "\\ldots") or (formula and _has_letters(s)))]
    members = [_value(side) for side in (*told, sides[-1])]
    if "\\approx" in marks:  # what follows it is rounded, and not claimed to be equal
        first = marks.index("\\approx")
        exact = members[: max(1, first + 1 - names)]
        return ["equal", latex[:names], exact, [], members[-1]]
    return ["equal", latex[:names], members, latex]


def _region(value: Value) -> list[Any] | None:
    """Parts and holes of what can be a set of numbers."""
    if value[0] == "region":
        return [value[2], value[3]]
    if value[0] == "tuple" and len(value[3]) == 2 and value[1] in "([" and value[2] in ")]":
        low, high = value[3]
        if low[0] == high[0] == "expr":
            return [[[low[1], value[1] == "[", high[1], value[2] == "]"]], []]
    if value[0] == "set" and all(each[0] == "expr" for each in value[1]):
        return [[[each[1], True, each[1], True] for each in value[1]], []]
    return None


def _region_of(parts: list[list[Item]], marks: list[str]) -> Value | None:
    """A union of sets of numbers, or one without some points."""
    if "\\setminus" in marks[:-1]:
        return None
    together: list[Any] = []
    holes: list[Any] = []
    for part, mark in zip(parts, ["\\cup", *marks], strict=True):
        region = _region(_value(part))
        if region is None:
            return None
        if mark == "\\cup":
            together += region[0]
            holes += region[1]
        elif any(low != high for low, _, high, _ in region[0]):
            return None
        else:
            holes += [low for low, _, _, _ in region[0]]
    return ["region", None, together, holes]


# -- expressions ---------------------------------------------------------------------------------


def _expression(items: Sequence[Item], measured: bool = False) -> Value:
    rest, unit = without_unit(list(items), measured)
    solid = unspaced(rest)
    if enclosed(solid) and text_of(solid[0]) == "(" and unit is not None:
        value = _value(solid)
        return [*value[:3], unit] if value[0] == "expr" else value
    if words := _words(rest):
        return ["word", words]
    for sign in ("\\pm", "\\mp"):
        if _holds(solid, sign):
            return ["list", [_expression(_signed(rest, up)) for up in (True, False)]]
    if any(text_of(item) in ("\\ldots", "\\mod", "\\bmod", "\\pmod") for item in solid[1:]):
        return ["raw", write(solid)]
    apart = any(kind_of(a) == kind_of(b) == "number" for a, b in pairwise(solid))
    if apart or any(map(_has_text, solid)):
        return ["raw", write(unspaced(items))]
    solid = _scientific(_arguments(solid))
    return ["expr", write(_exact(solid)), _number(solid), unit]


def _has_text(item: Item) -> bool:
    if isinstance(item, Group):
        return any(map(_has_text, item.items))
    return item.kind == "text" and item.text != "°"


def _words(items: Sequence[Item]) -> str | None:
    """Words as they are compared, or None. As a product of its letters, `act` would be `cat`."""
    solid = unspaced(items)
    letters = [item for item in solid if kind_of(item) in ("letters", "text")]
    if not any(kind_of(item) == "text" or len(text_of(item)) > 2 for item in letters):
        return None
    for item in solid:
        if isinstance(item, Group) or kind_of(item) == "command":
            return None
        if kind_of(item) == "symbol" and text_of(item) not in ("-", "'", ".", ":", '"', "!", "?"):
            return None
    if kind_of(solid[0]) == "number" and not any(is_space(item) for item in items):
        return None
    text = " ".join(text_of(item) for item in items if not is_space(item))
    text = " ".join(re.sub(r"\s*-\s*", "-", text.strip(" .!?\"'")).casefold().split())
    return re.sub(r"^(?:an?|the) (?=\w)", "", text)


def _signed(items: Sequence[Item], up: bool) -> list[Item]:
    signs = {"\\pm": "+" if up else "-", "\\mp": "-" if up else "+"}
    out: list[Item] = []
    for at, item in enumerate(items):
        if isinstance(item, Group):
            out.append(Group(tuple(_signed(item.items, up))))
        elif item.text in signs:
            sign = signs[item.text]
            if sign == "-" or at:
                out.append(Token("symbol", sign))
        else:
            out.append(item)
    return out


def _arguments(items: list[Item]) -> list[Item]:
    r"""`\ln 2 \cdot 3` as `\ln(2) \cdot 3`: a sign of multiplication ends an argument."""
    out: list[Item] = []
    for at, item in enumerate(items):
        ends = text_of(items[at + 1]) in ("\\cdot", "\\times") if at + 1 < len(items) else False
        if ends and out and text_of(out[-1])[1:] in FUNCTIONS and kind_of(item) == "number":
            out += [Token("symbol", "("), item, Token("symbol", ")")]
        else:
            out.append(item)
    return out


def _scientific(items: list[Item]) -> list[Item]:
    """`1.5e10` as `1.5 * 10^{10}`."""
    for at in range(1, len(items) - 1):
        if text_of(items[at]) in ("e", "E") and kind_of(items[at - 1]) == "number":
            power = items[at + 1 :]
            if len(power) <= 2 and re.fullmatch(r"[-+]?\d{1,4}", "".join(map(text_of, power))):
                ten = [Token("command", "\\times"), Token("number", "10"), Token("symbol", "^")]
                return [*items[:at], *ten, Group(tuple(power))]
    return items


def _number(items: Sequence[Item]) -> list[Any] | None:
    """The number that is written here in digits, and the exponent of its last decimal digit."""
    text = write(items)
    found = re.fullmatch(
        r"([-+]?)(\d+)?(?:\.(\d+))?(?:\\(?:times|cdot)10\^\{([-+]?\d{1,3})\})?", text
    )
    if not found or not (found[2] or found[3]) or len(text) > 1000:
        return None
    power = int(found[4] or 0)
    places = len(found[3] or "")
    value = Fraction(int(found[1] + (found[2] or "") + (found[3] or "")), 10**places)
    value *= Fraction(10) ** power
    return [str(value), power - places if places else None]


def _exact(items: Sequence[Item]) -> list[Item]:
    """Decimals as fractions, which are exact; degrees inside an expression as radians."""
    out: list[Item] = []
    angles = any(text_of(item)[1:] in FUNCTIONS for item in items)
    for item in items:
        if isinstance(item, Group):
            out.append(Group(tuple(_exact(item.items))))
        elif item.kind == "number" and "." in item.text.rstrip("."):
            whole, _, places = item.text.partition(".")
            out += [Token("symbol", "("), Token("command", "\\frac")]
            out += [Group((Token("number", str(int(whole + places))),))]
            out += [Group((Token("number", str(10 ** len(places))),)), Token("symbol", ")")]
        elif item == Token("text", "°") and out:
            number = out.pop()
            pi, half_turn = Group((Token("command", "\\pi"),)), Group((Token("number", "180"),))
            times, over = Token("command", "\\cdot"), Token("command", "\\frac")
            degree = (number, times, over, pi, half_turn)
            out += [Token("symbol", "("), *degree, Token("symbol", ")")] if angles else [number]
        elif item.text == "'" and kind_of(out[-1] if out else None) == "letters":
            out += [Token("symbol", "_"), Group((Token("letters", "p"),))]  # x' is not x
        elif item.text == "'" and len(out) > 1 and text_of(out[-2]) == "_":
            script = out.pop()
            assert isinstance(script, Group)
            out.append(Group((*script.items, Token("letters", "p"))))
        elif item.kind == "letters" and len(item.text) > 1:
            out += [Token("letters", letter) for letter in item.text]
        elif not is_space(item):
            out.append(item)
    return out

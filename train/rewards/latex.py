r"""LaTeX read as tokens.

`read_latex` turns an answer into items: tokens, and groups for what is in braces. Spaces,
styles and fences are gone (see `spellings`), arguments are always groups, Unicode is LaTeX, a
number with thousands marks is one number. `write` makes LaTeX of items again, always in one way.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import accumulate

from .items import CLOSING, Group, Item, Token, text_of
from .spellings import (
    BARE,
    CHARACTERS,
    NAMES,
    NOTHING,
    ONE,
    SPACE,
    TEXT,
    THIN,
    TWO,
    UNIT_VECTORS,
    WITH_ARGUMENT,
)

__all__ = ["Unreadable", "read_latex", "write"]


class Unreadable(ValueError):
    """Text that is no LaTeX: braces that don't match, or nested too deeply."""


_OPEN, _CLOSE = tuple(CLOSING), tuple(CLOSING.values())
_DEPTH = 40
_DIGITS = 2_100
"""Digits of a number: a fraction of two such can still be written (Python refuses above 4,300)."""
_TOKEN = re.compile(
    r"\\(?:not\s*=|[a-zA-Z]+\*?|.)|\.{3,}|\d+(?:\.(?!\.)\d*)?|\.\d+|[a-zA-Z]+|\s+|\*\*|.", re.DOTALL
)
_HALF_DAY = re.compile(r"\b([ap])\. ?m\.")
_LETTERS = re.compile(r"\(?[A-Z]\)?(?:(?:,? and |,? or |, ?)\(?[A-Z]\)?)+")
_INLINE = re.compile(r"(?<!\\)\$\$?([^$]+)(?<!\\)\$\$?")
_OUTWARD = re.compile(
    r"(^|\\cup|\\in|=|\$)(\s*)(?:\\left)?\](?=[^\[\]]*[,;][^\[\]]*[\[\]])|"
    r"(?<=[\[(])([^\[\](){}]*[,;][^\[\](){}]*?)(?:\\right)?(?<!\\)\[(?=\s*(?:$|\\cup|\$|\.))"
)
"""Brackets that are turned outward, as in ]1, 2], for an end that does not belong."""
_SCRIPTS = re.compile(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+)|([₀₁₂₃₄₅₆₇₈₉]+)|([¼-¾⅐-⅞])")


def _script(match: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", match[0]).replace("\N{MINUS SIGN}", "-")
    if match[3]:
        top, _, bottom = plain.partition("\N{FRACTION SLASH}")
        return f"\\frac{{{top}}}{{{bottom}}}"
    return f"{'^' if match[1] else '_'}{{{plain}}}"


def _character(char: str) -> str:
    if char.isascii():
        return char
    if char in CHARACTERS:
        return CHARACTERS[char]
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if unicodedata.category(char) == "Zs":
        return " "
    plain = unicodedata.normalize("NFKC", char)
    found = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)", unicodedata.name(plain[0], ""))
    if found and len(plain) == 1:
        name = found[2].lower().replace("lamda", "lambda")
        return f"\\{name if found[1] == 'SMALL' else name.capitalize()} "
    return plain if plain.isascii() else char


# -- reading -------------------------------------------------------------------------------------


def read_latex(text: str) -> tuple[Item, ...]:
    """The items of an answer. Raises Unreadable where its braces don't match."""
    text = "".join(map(_character, _SCRIPTS.sub(_script, text)))
    text = _INLINE.sub(r" \1 ", _HALF_DAY.sub(r"\1m", text)).replace("sq. ", "sq ")
    for mark in ("**", "__", "*"):  # Markdown
        inside = text.strip()[len(mark) : -len(mark)]
        if text.strip() == f"{mark}{inside}{mark}" and inside and mark[0] not in inside:
            text = inside
    text = re.sub(r"([<>])=", lambda sign: "\\leq " if sign[1] == "<" else "\\geq ", text)
    for _ in range(2):  # the first end of an interval, then the last
        text = _OUTWARD.sub(
            lambda end: f"{end[1]}{end[2]}(" if end[3] is None else f"{end[3]})", text
        )
    words = _TOKEN.findall(text)
    steps = ((word in _OPEN) - (word in _CLOSE) for word in words)
    if max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0)) > _DEPTH:
        raise Unreadable("it is nested too deeply")
    return _Reader(words).read()


class _Reader:
    """Tokens, read from left to right."""

    def __init__(self, words: list[str]) -> None:
        self._words = words
        self._at = 0

    def read(self) -> tuple[Item, ...]:
        """Everything."""
        return tuple(_tidy(self._items(0, "")))

    def _next(self) -> str:
        return self._words[self._at] if self._at < len(self._words) else ""

    def _blanks(self) -> None:
        while self._next().isspace():
            self._at += 1

    def _items(self, depth: int, end: str) -> list[Item]:
        """Items up to `end`, which is passed over."""
        if depth > _DEPTH:
            raise Unreadable("it is nested too deeply")
        items: list[Item] = []
        while (word := self._next()) != end:
            if not word:
                raise Unreadable(f"{end!r} is missing")
            items += self._item(depth)
        self._at += 1
        return items

    def _item(self, depth: int) -> list[Item]:
        self._at += 1
        return self._item_of(self._words[self._at - 1], depth)

    def _item_of(self, word: str, depth: int) -> list[Item]:
        """The items that a word begins which has been passed over."""
        word = NAMES.get(word.replace(" ", "") if word.startswith("\\not") else word, word)
        if word == "{":
            inside = _tidy(self._items(depth + 1, "}"))
            if len(inside) == 1 and (_kind(inside, 0) == "letters" or _is(inside, 0, ":")):
                return inside  # {a}_n
            return [Group(tuple(inside))]
        if word == "}":
            raise Unreadable("a brace is closed that was not opened")
        if word.isspace() or word in SPACE:
            return [Token("space", " ")]
        if word in THIN:
            return [Token("thin", " ")]
        if word == "\\\\":
            if self._next() == "[":  # \\[4pt]
                self._items(depth, "]")
            return [Token("symbol", "\\\\")]
        if word in NOTHING:
            if word in ("\\left", "\\right") and self._next() == ".":
                self._at += 1
            return []
        if word in WITH_ARGUMENT:
            self._argument(depth)
            return []
        if word in TEXT:
            return self._text(depth)
        if word in ("\\begin", "\\end"):
            name = "".join(self._raw())
            if word == "\\begin" and name == "array":
                self._argument(depth)
            return [Token("command", f"{word}{{{name}}}")]
        if word == "\\R":
            return [Token("command", "\\mathbb"), Group((Token("letters", "R"),))]
        if word in ("^", "_"):
            return [Token("symbol", word), self._argument(depth, script=True)]
        if word.startswith("..."):
            return [Token("command", "\\ldots")]
        if word == "**":
            return [Token("symbol", "^"), self._argument(depth, script=True)]
        if word == "*":
            return [Token("command", "\\cdot")]
        if word in TWO:
            return [Token("command", word), self._argument(depth), self._argument(depth)]
        if word in ONE:
            argument = self._argument(depth)
            if word in ("\\hat", "\\vec") and write(argument.items) in UNIT_VECTORS:
                return list(argument.items)
            return [Token("command", word), argument]
        if word == "\\sqrt" or (
            word == "sqrt" and (self._next() in ("(", "{") or self._next().isdigit())
        ):
            return self._root(depth)
        if word[0] in ".0123456789" and word != ".":
            if len(word) > _DIGITS:
                raise Unreadable("a number is too long")
            return [Token("number", word)]
        if word.isascii() and word.isalpha():
            return [Token("command", BARE[word])] if word in BARE else [Token("letters", word)]
        if word[0] == "\\" and word[1:2].isalpha():
            return [Token("command", word)]
        return [Token("symbol", word)]

    def _argument(self, depth: int, *, script: bool = False) -> Group:
        r"""The argument of a command: a group, a digit (`\frac12`), a command with its arguments.

        As a script, all of a number: nobody who writes `2^10` means two to the one, times zero.
        """
        self._blanks()
        word = self._next()
        if depth > _DEPTH:
            raise Unreadable("it is nested too deeply")
        if script and word in ("-", "+"):
            self._at += 1
            argument = self._argument(depth + 1, script=True)
            return Group((Token("symbol", word), *argument.items))
        if script and word == "(":
            self._at += 1
            return Group(tuple(_tidy(self._items(depth + 1, ")"))))
        if not word or word == "}":
            raise Unreadable("an argument is missing")
        if len(word) > 1 and (word.isalpha() or (word[0].isdigit() and not script)):
            self._words[self._at] = word[1:]  # its first character is the argument
            items = self._item_of(word[0], depth + 1)
        else:
            items = self._item(depth + 1)
        if len(items) == 1 and isinstance(items[0], Group):
            return items[0]
        return Group(tuple(_tidy(items)))

    def _root(self, depth: int) -> list[Item]:
        self._blanks()
        degree: list[Item] = []
        if self._next() == "[":
            self._at += 1
            inside = _tidy(self._items(depth + 1, "]"))
            degree = [Token("symbol", "["), *inside, Token("symbol", "]")]
        self._blanks()
        if self._next() == "(":
            self._at += 1
            under = Group(tuple(_tidy(self._items(depth + 1, ")"))))
        else:  # \sqrt11 is the root of 11
            under = self._argument(depth, script=True)
        root = [Token("command", "\\sqrt"), *degree, under]
        odd = (
            len(degree) == 3 and _kind(degree, 1) == "number" and write(degree[1:2])[-1] in "13579"
        )
        signs = [
            item for item in under.items if isinstance(item, Token) and item.text in ("+", "-")
        ]
        if odd and len(signs) == 1 and signs[0] is under.items[0] and signs[0].text == "-":
            root[-1] = Group(under.items[1:])  # a real number, as everywhere below a root sign
            return [Token("symbol", "("), signs[0], *root, Token("symbol", ")")]
        return root

    def _raw(self) -> list[str]:
        """The words of a group as they are."""
        self._blanks()
        if self._next() != "{":
            word = self._next()
            self._at += 1
            return [word]
        depth, start = 0, self._at
        while word := self._next():
            self._at += 1
            depth += (word == "{") - (word == "}")
            if not depth:
                return self._words[start + 1 : self._at - 1]
        raise Unreadable("a brace is not closed")

    def _text(self, depth: int) -> list[Item]:
        words = self._raw()
        text = " ".join("".join(" " if word in SPACE else word for word in words).split())
        if text in BARE:
            return [Token("command", BARE[text])]
        if (
            text in ("e", "i")
            or not re.search("[a-zA-Z€£¥¢]", text)
            or (re.search(r"[\\$^,]|(?<![a-zA-Z])\d", text) and not _LETTERS.fullmatch(text))
        ):
            return _Reader(words)._items(depth + 1, "")
        if re.fullmatch(r"[a-zA-Z]!", text):
            return _Reader(words)._items(depth + 1, "")
        if _LETTERS.fullmatch(text):
            kinds = {"and": "text", "or": "text", ",": "symbol"}
            found = re.findall(r"[A-Z]|,|and|or", text)
            return [Token(kinds.get(each, "letters"), each) for each in found]
        return [Token("text", text)]


# -- numbers -------------------------------------------------------------------------------------


def _tidy(items: list[Item]) -> list[Item]:
    """One level of items with its numbers joined and its spaces gone."""
    return _degrees(_chosen(_repeating(_mixed(_numbers(_initials(items))))))


def _kind(items: Sequence[Item], at: int) -> str:
    item = items[at] if 0 <= at < len(items) else None
    return item.kind if isinstance(item, Token) else ""


def _is(items: Sequence[Item], at: int, text: str) -> bool:
    item = items[at] if 0 <= at < len(items) else None
    return isinstance(item, Token) and item.text == text


def _initials(items: Sequence[Item]) -> list[Item]:
    r"""One capital in a text is a letter (`\text{B}`); after a number it stays a unit."""
    out: list[Item] = []
    before: Item | None = None
    for item in items:
        if isinstance(item, Token) and re.fullmatch(r"\(?[A-Z]\)?", item.text):
            measured = (
                isinstance(before, Group)
                or text_of(before) in ("/", "\\cdot")
                or (isinstance(before, Token) and before.kind in ("number", "text"))
            )
            if item.kind == "text" and not (measured and before is not None):
                item = Token("letters", item.text.strip("()"))
        out.append(item)
        if not (isinstance(item, Token) and item.kind in ("space", "thin")):
            before = item
    return out


def _spaced_commas(items: Sequence[Item]) -> list[bool]:
    """For each item: True at the top, or in brackets that hold a comma with a space after it.

    In `(1,200)` the comma separates; in `(1,000, 2,000)` only the spaced one does.
    """
    inside = [True] * len(items)
    stack: list[int] = []
    commas = (_is(items, i, ",") and _kind(items, i + 1) == "space" for i in range(len(items)))
    before = [0, *accumulate(commas)]
    for at, item in enumerate(items):
        if isinstance(item, Token) and item.text in _OPEN:
            stack.append(at)
        elif isinstance(item, Token) and item.text in _CLOSE and stack:
            start = stack.pop()
            inside[start:at] = [before[start] < before[at]] * (at - start)
    return inside


def _numbers(items: list[Item]) -> list[Item]:
    r"""Thousands marks: a comma, a thin space, both, or a blank before exactly three digits."""
    allowed = _spaced_commas(items)
    out: list[Item] = []
    at = refused = 0  # what stands before `refused` begins no number with thousands marks
    while at < len(items):
        item = items[at]
        end, digits = at + 1, ""
        if at >= refused and isinstance(item, Token) and re.fullmatch(r"[1-9]\d{0,2}", item.text):
            digits = item.text
            kind = None
            while "." not in digits and len(digits) <= _DIGITS:
                mark, behind = _mark(items, end)
                if mark is None or (kind is not None and mark != kind):
                    break
                if mark == "," and not allowed[at]:
                    break
                number = items[behind] if behind < len(items) else None
                if not isinstance(number, Token) or number.kind != "number":
                    break
                if not re.fullmatch(r"\d{3}(\.\d*)?", number.text):
                    if mark == ",":  # 2,450,00 is not a number with thousands marks
                        end, digits, refused = at + 1, item.text, behind
                    break
                kind, digits, end = mark, digits + number.text, behind + 1
            if "," in (kind or "") and _is(items, end, ",") and _kind(items, end + 1) == "number":
                refused, end, digits = max(refused, end - 1), at + 1, item.text
            if len(digits) > _DIGITS:
                raise Unreadable("a number is too long")
        out.append(Token("number", digits) if digits else item)
        at = end
    return out


def _mark(items: Sequence[Item], at: int) -> tuple[str | None, int]:
    """The thousands mark at a place, and what follows it."""
    item = items[at] if at < len(items) else None
    if item == Group((Token("symbol", ","),)):
        return "{,}", at + 1
    if _is(items, at, ","):
        if _kind(items, at + 1) == "thin":
            at += 2
            while _kind(items, at) in ("thin", "space"):
                at += 1
            return ",\\!", at
        return ",", at + 1
    if _kind(items, at) in ("thin", "space"):
        first = at
        while _kind(items, at) in ("thin", "space"):
            at += 1
        thin = any(_kind(items, i) == "thin" for i in range(first, at))
        return ("thin" if thin else "blank"), at
    return None, at


def _whole(item: Item | None) -> str | None:
    if isinstance(item, Group):
        item = item.items[0] if len(item.items) == 1 else None
    return item.text if isinstance(item, Token) and item.text.isdigit() else None


def _mixed(items: list[Item]) -> list[Item]:
    r"""`3\frac{2}{5}` and `3 2/5` as sums in brackets; spaces go."""
    out: list[Item] = []
    at = 0
    while at < len(items):
        item = items[at]
        parts: tuple[str | None, str | None] = (None, None)
        if isinstance(item, Token) and _whole(item):
            behind = at + 1
            while _kind(items, behind) in ("space", "thin"):
                behind += 1
            rest = items[behind : behind + 3]
            if len(rest) == 3 and _is(rest, 0, "\\frac"):
                parts = _whole(rest[1]), _whole(rest[2])
            elif len(rest) == 3 and behind > at + 1 and _is(rest, 1, "/"):
                parts = _whole(rest[0]), _whole(rest[2])
        if all(parts):
            top, bottom = (Group((Token("number", str(part)),)) for part in parts)
            out += [Token("symbol", "("), item, Token("symbol", "+"), Token("command", "\\frac")]
            out += [top, bottom, Token("symbol", ")")]
            at = behind + 3
            continue
        out.append(item)
        at += 1
    return [item for item in out if not isinstance(item, Token) or item.kind != "thin"]


_BLOCKS = re.compile(r"(\d*\.\d*?)((\d+?)\3{2,})")
"""A decimal whose last digits come at least three times."""


def _repeating(items: list[Item]) -> list[Item]:
    r"""`0.1\overline{6}` and `0.1666\ldots` as fractions."""
    out: list[Item] = []
    for item in items:
        digits = _whole(item)
        if (
            isinstance(item, Group)
            and digits
            and _is(out, len(out) - 1, "\\overline")
            and (_kind(out, len(out) - 2) == "number" or _is(out, len(out) - 2, "."))
        ):
            out.pop()
            number = out.pop()
            assert isinstance(number, Token)
            if "." in number.text:
                out += _periodic(number.text, digits)
                continue
            out += [number, Token("command", "\\overline")]
        if text_of(item) == "\\ldots" and _kind(out, len(out) - 1) == "number":
            found = _BLOCKS.fullmatch(text_of(out[-1])[:60])
            if found:
                out[-1:] = _periodic(found[1], found[3])
                continue
        out.append(item)
    return out


def _periodic(number: str, digits: str) -> list[Item]:
    """A decimal that goes on with the same digits for ever, as a fraction."""
    start, _, tail = number.partition(".")
    value = Fraction(int(start + tail or "0"), 10 ** len(tail))
    value += Fraction(int(digits), (10 ** len(digits) - 1) * 10 ** len(tail))
    parts = (Group((Token("number", str(n)),)) for n in value.as_integer_ratio())
    return [Token("command", "\\frac"), *parts]


def _chosen(items: list[Item]) -> list[Item]:
    r"""`{n \choose 2}` as `\binom{n}{2}`, `1 \over 2` as a fraction."""
    for at, item in enumerate(items):
        if isinstance(item, Token) and item.text in ("\\choose", "\\over"):
            name = "\\binom" if item.text == "\\choose" else "\\frac"
            return [Token("command", name), Group(tuple(items[:at])), Group(tuple(items[at + 1 :]))]
    return items


def _degrees(items: list[Item]) -> list[Item]:
    r"""`^\circ`, `^{\circ}` and `\degree` as the unit `°`."""
    out: list[Item] = []
    for item in items:
        circle = item == Group((Token("command", "\\circ"),))
        if circle and _is(out, len(out) - 1, "^"):
            out[-1] = Token("text", "°")
        elif isinstance(item, Token) and (
            item.text == "\\degree"
            or (item.text == "\\deg" and any(text_of(each).isdigit() for each in out[-2:]))
        ):
            if _is(out, len(out) - 1, "^"):
                out.pop()
            out.append(Token("text", "°"))
        elif item == Group((Token("text", "°"),)) and _is(out, len(out) - 1, "^"):
            out[-1] = Token("text", "°")
        elif isinstance(item, Token) and item.text == "%":
            out.append(Token("text", "%"))
        else:
            out.append(item)
    return out


# -- writing -------------------------------------------------------------------------------------

_COMMAND_END = re.compile(r"\\[a-zA-Z]+\Z")


def write(items: Iterable[Item]) -> str:
    """Items as LaTeX: braces around every argument, a blank between two words, no other."""
    parts: list[str] = []
    end = ""  # as much of the text's end as tells a command or a digit
    for item in items:
        if isinstance(item, Group):
            part = f"{{{write(item.items)}}}"
        elif item.kind == "text":
            part = f"\\text{{{item.text}}}"
        elif item.kind == "space":
            continue
        else:
            part = item.text.removesuffix(".") if item.kind == "number" else item.text
        if part[:1].isalpha() and _COMMAND_END.search(end):
            parts.append(" ")
        elif part[:1].isdigit() and end[-1:].isdigit():
            parts.append(" \\cdot ")
        elif (
            # 2(3) and (2)\frac13 are products; math-verify takes them for mixed numbers
            (end[-1:] == ")" and (part[:1].isdigit() or part in ("(", "\\frac")))
            or (end[-1:].isdigit() and not isinstance(item, Group) and part in ("(", "\\frac"))
        ):
            parts.append("\\cdot ")
        parts.append(part)
        end = end[-1:] + part if part else end
    return "".join(parts)

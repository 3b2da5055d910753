r"""Answers in words: dates, times of day, numbers, "no solution"; and the words around an answer.

`without_words` takes away what only introduces an answer ("The answer is"), `read_phrase` reads
what is written in words. Both are asked before the rest is read as LaTeX (`kinds`).
"""

import re
from typing import Any

from .spellings import BASES, CONNECTIVES, EMPTY, LEADS, NUMBERS, PARTS, SAYINGS, SCALES, UNITS

__all__ = ["read_phrase", "without_words"]

_WRAPPED = re.compile(
    r"\\(?:text[a-z]*|math(?:rm|bf|it|sf|tt|normal)|mbox|emph|boxed|operatorname)\s*\{([^{}]*)\}"
)
_BLANK = re.compile(r"\\[ ,;:!]|\\q?quad(?![a-z])|~|\s+")
_WRAPPER = r"(?:\\text[a-z]*\s*\{|\*\*|)\s*"
_LEAD = re.compile(
    rf"(\s*\$?\s*{_WRAPPER})(?:(?:{CONNECTIVES})(?: +(?:{LEADS}))?|{LEADS})[\s:]*(?=\S)",
    re.IGNORECASE,
)
_NOTHING_LEFT = re.compile(r"(\s*\$?\s*)(?:\\text[a-z]*\s*\{\s*\}|\*\*\s*\*\*)\s*")
_CHOICE = re.compile(
    r"(?:\\text[a-z]*\s*\{\s*\(([A-Z])\)\s*\}|\*\*\(([A-Z])\)\*\*|\(([A-Z])\))"
    r"(?:\\[ ,;:]|\\quad|~|[\s:])+(\S.*)",
    re.DOTALL,
)
_LETTER = re.compile(r"(?:(?i:choice|option|letter) )?\(?([A-Z])\)?")
_BASE = re.compile(rf"\(?([0-9a-f]+)\)? ?\(?(?:in )?base[ -]?(\d{{1,2}}|{'|'.join(BASES)})\)?")
_SMALL = "|".join(name for name, number in NUMBERS.items() if 0 < number < 20)
_PART = re.compile(
    rf"(?:(\d+|{_SMALL}) and )?(?:(an?|\d+|{_SMALL})[ -](?=.)|(?=half))({'|'.join(PARTS)})s?"
)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
_MONTH = (
    "(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?:the )?(\d{1,2})(?:st|nd|rd|th)?"
_DATES = (
    re.compile(rf"{_MONTH} {_DAY}(?:,? (\d{{4}}))?"),
    re.compile(rf"{_DAY}(?: of)? {_MONTH}(?:,? (\d{{4}}))?"),
    re.compile(r"(\d{4})-(\d\d)-(\d\d)"),
)
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))? ?([ap])\.? ?m\.?")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)(?:,? and |, | |$)")


def without_words(text: str) -> str:
    r"""The answer without what introduces it.

    Example:
        >>> without_words(r"So the answer is $\frac12$."), without_words(r"\text{exactly } 5")
        ('$\\frac12$.', '5')
    """
    found = _LEAD.match(text)
    if found is None:
        return text
    return _NOTHING_LEFT.sub(r"\1", found[1] + text[found.end() :], count=1)


def _plain(text: str) -> str:
    """The words alone, without what styles them."""
    for _ in range(4):
        text, count = _WRAPPED.subn(r"\1", text)
        if not count:
            break
    return " ".join(_BLANK.sub(" ", text.replace("{:}", ":")).strip('$*_`" .').split())


def read_phrase(text: str) -> list[Any] | str | None:
    """A value (see `kinds`), or the same in a spelling that is read as LaTeX, or None.

    Besides the values of `kinds`: `["date", year, month, day]`, `["time", minutes]`,
    `["amounts", [[number, unit], ...]]` and `["choice", letter, rest]`, `rest` still a text.
    """
    text = text.strip()
    chosen = _CHOICE.fullmatch(text.removeprefix("$") if text.count("$") == 1 else text)
    if (
        chosen
        and not re.match(r"(?:or|and)\b|,", chosen[4])
        and not re.search(r"\([A-Z]\)", chosen[4])
    ):
        return ["choice", chosen[1] or chosen[2] or chosen[3], chosen[4]]
    plain = _plain(text)
    if letter := _LETTER.fullmatch(plain):
        return ["expr", letter[1], None, None]
    words = plain.casefold()
    if words in NUMBERS:
        return str(NUMBERS[words])
    number, _, scale = words.rpartition(" ")
    if scale in SCALES and number in NUMBERS:
        return f"{NUMBERS[number]} \\times 10^{{{SCALES[scale]}}}"
    if part := _PART.fullmatch(words):
        whole, count = (
            each if each and each.isdigit() else NUMBERS.get(each, other)
            for each, other in ((part[1], ""), (part[2], 1))
        )
        return f"{whole}\\frac{{{count}}}{{{PARTS[part[3]]}}}"
    if words in EMPTY:
        return ["set", []]
    for saying, meaning in SAYINGS.items():
        if re.fullmatch(saying, words):
            return meaning if meaning.startswith(("\\", "-")) else ["word", meaning]
    if numeral := _BASE.fullmatch(words):
        return f"{numeral[1]}_{{{BASES.get(numeral[2], numeral[2])}}}"
    return _date(words) or _time(words) or _amounts(words)


def _date(words: str) -> list[Any] | None:
    for pattern in _DATES:
        found = pattern.fullmatch(words)
        if found is None:
            continue
        if pattern is _DATES[2]:
            year, month, day = map(int, found.groups())
        else:
            name, day_text = found[1], found[2]
            if pattern is _DATES[1]:
                name, day_text = day_text, name
            year, month, day = int(found[3] or 0), 1 + _MONTHS.index(name[:3]), int(day_text)
        return ["date", year, month, day] if 0 < month < 13 and 0 < day < 32 else None
    return None


def _time(words: str) -> list[Any] | None:
    """Minutes since midnight."""
    if words in ("noon", "midnight"):
        return ["time", 720 if words == "noon" else 0]
    found = _TIME.fullmatch(words)
    if found is None or not 0 < int(found[1]) < 13 or int(found[2] or 0) > 59:
        return None
    return ["time", int(found[1]) % 12 * 60 + int(found[2] or 0) + 720 * (found[3] == "p")]


def _amounts(words: str) -> list[Any] | None:
    """Two or more amounts that are one together: `2 h 30 min`."""
    found: list[list[str]] = []
    at = 0
    while at < len(words):
        part = _AMOUNT.match(words, at)
        unit = (
            "" if part is None else UNITS.get(part[2]) or UNITS.get(part[2].removesuffix("s"), "")
        )
        if part is None or not unit:
            return None
        found.append([part[1], unit])
        at = part.end()
    return ["amounts", found] if len({unit for _, unit in found}) > 1 else None

"""How the words of a team's roles are read: the CEO's decision, experts, votes, verdicts.

The forms are those of the CEO agent (arXiv 2504.09772), in any markup: bold, headings, lists,
tables, code fences, JSON, full-width signs. A mark is read on its own line and whole, and the last
one counts. Pure functions of a text; what can't be read is None, and the team decides what that
means. Nothing that is unclear is read as an acceptance, a stop or an agreement.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = [
    "AGREE",
    "DISAGREE",
    "CeoDecision",
    "EvaluatorVerdict",
    "Vote",
    "read_decision",
    "read_experts",
    "read_verdict",
    "read_vote",
    "write_decision",
]

V = TypeVar("V")

AGREE, DISAGREE = "[Agree]", "[Disagree]"

# Full-width signs, of the same length: text is found in the copy and cut out of the original.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord("【"): "[",
    ord("】"): "]",
    ord("、"): ".",
    0x3000: " ",
    0xA0: " ",
}
_MARKUP = " \t#*_`~|\"'"
_CEO = ("decision", "recruit number", "direction", "maximum tokens")
_EVALUATOR = ("correctness", "advice")
_FREE = ("direction", "advice")
"""Fields in words: whatever else stands on their line belongs to them."""
_BULLET = re.compile(r"(?:[-+•*]|\d{1,2}[.)])[ \t]+")
_VERDICTS = {
    **dict.fromkeys(("1", "yes", "true", "correct", "✅", "✓", "✔"), True),
    **dict.fromkeys(("0", "no", "false", "incorrect", "❌", "✗", "✘"), False),
}
_WORD = re.compile(r"[-+\u2212]?\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]|_")
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathbf)\b")
_SIGNS = set("*_`~|\"'()[]{}$.,;:!-\u2013\u2014=\ufe0f")
_CONTINUE = {"continue", "continues", "continuing", "proceed", "go on", "keep going", "carry on"}
_STOP = {"stop", "stops", "stopping", "halt", "end", "finish", "terminate"}
_UNSURE = re.compile(r"\b(?:not|no|never|cannot|if|unless|or|until|nor)\b|n['\u2019]t\b", re.I)
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_NUMBER = re.compile(
    r"(\d{1,3}(?:([ ,.'\u2019_])\d{3})(?:\2\d{3})*|\d+)(?: ?(k))?(?: (?:tokens?|experts?))?"
)
_MARK = re.compile(r"[\[\u3010\uff3b]\W{0,4}(agree|disagree)d?\W{0,4}[\]\u3011\uff3d]", re.I)
_CHOICE = re.compile(r"\b(?:if|or|else|otherwise)\b", re.I)
_DENIED = re.compile(r"(?:\b(?:not|never|cannot)|n['\u2019]t)[\s*_`\"']*$", re.I)
_ITEM = re.compile(
    r"([ \t]*)(?:#{1,6}[ \t]+)?(?:\*\*)?(?:(\d{1,2})(?:\*\*)?[.):](?!\d)|[-+•*](?=[ \t]))(.*)"
)
_CELLS = re.compile(r"[ \t]*\|[ \t]*(\d{1,2})[.)]?[ \t]*\|(.*)")
_LONGEST_NAME = 300


@dataclass(frozen=True, slots=True)
class CeoDecision:
    """A CEO's decision for a round.

    `experts` counts the solver and its critics; `tokens` is what each of them may sample in one
    answer. What could not be read is None. `direction` is "" if none was given.
    """

    goes_on: bool
    experts: int | None
    direction: str
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Vote:
    """A critic's vote on a plan; `agrees` is None if the review does not make it clear."""

    agrees: bool | None
    review: str


@dataclass(frozen=True, slots=True)
class EvaluatorVerdict:
    """The evaluator's verdict on a plan."""

    correct: bool
    advice: str


def read_decision(text: str) -> CeoDecision | None:
    r"""A CEO's four fields, in any order; None where one is missing or the decision is unclear.

    The decision's first word is one of a closed list, and no negation or condition follows it.

    Example:
        >>> read_decision("### Decision: continue\n### Recruit Number: 3\n"
        ...               "### Direction: check the units\n### Maximum Tokens: 4,096")
        CeoDecision(goes_on=True, experts=3, direction='check the units', tokens=4096)
    """
    found = _fields(text, _CEO)
    if any(name not in found for name in _CEO):
        return None
    goes_on = _last(found["decision"], _goes_on, unsafe=False)
    if goes_on is None:
        return None
    direction = found["direction"][-1]
    if re.fullmatch(r"(none|no advice|n/a|-)?[. ]*", direction, re.I):
        direction = ""
    return CeoDecision(
        goes_on=goes_on,
        experts=_last(found["recruit number"], _number),
        direction=direction,
        tokens=_last(found["maximum tokens"], _number),
    )


def write_decision(decision: CeoDecision) -> str:
    """The four fields as a CEO is asked to write them.

    Example:
        >>> text = write_decision(CeoDecision(False, 2, "", 2048))
        >>> read_decision(text) == CeoDecision(False, 2, "", 2048)
        True
    """
    return (
        f"### Decision: {'continue' if decision.goes_on else 'stop'}\n"
        f"### Recruit Number: {decision.experts}\n"
        f"### Direction: {decision.direction or 'none'}\n"
        f"### Maximum Tokens: {decision.tokens}"
    )


def read_experts(text: str, count: int) -> list[str] | None:
    r"""The first `count` names of the last list that has as many; None where there is none.

    A list's numbers run from 1 at one depth; where none is numbered, its lines begin with a bullet.

    Example:
        >>> read_experts("Draft:\n1. cook\n2. baker\nFinal:\n1. A geometer\n2. A reader", 2)
        ['A geometer', 'A reader']
    """
    lists = [*_lists(text, numbered=False), *_lists(text, numbered=True)]
    found = _json(text)
    if found is not None:
        values = found[1].values() if isinstance(found[1], dict) else [found[1]]
        lists += [
            [
                " - ".join(map(str, each.values())) if isinstance(each, dict) else str(each)
                for each in value
            ]
            for value in values
            if isinstance(value, list)
        ]
    long_enough = [names for names in lists if len(names) >= count]
    return (
        [" ".join(name.split())[:_LONGEST_NAME] for name in long_enough[-1][:count]]
        if long_enough
        else None
    )


def read_vote(text: str, *, agrees_first: bool = False) -> Vote:
    """A critic's review and vote. The last mark counts; with `agrees_first`, one [Agree] anywhere
    makes it agree, whatever else is there (as in the released code).

    Marks in quoted lines and in a choice between both ("[Agree] if ..., else [Disagree]") are none.

    Example:
        >>> read_vote("The sum is off by one. [Disagree]")
        Vote(agrees=False, review='The sum is off by one.')
    """
    agrees: bool | None = None
    for line in text.splitlines():
        marks = list(_MARK.finditer(line))
        kinds = {mark[1].lower() for mark in marks}
        if agrees_first:
            agrees = agrees or ("agree" in kinds if kinds else agrees)
        elif marks and not line.lstrip().startswith(">"):
            if len(kinds) == 2 and _CHOICE.search(line):
                continue
            agrees = marks[-1][1].lower() == "agree"
            if agrees and _DENIED.search(line[: marks[-1].start()][-20:]):
                agrees = None
    return Vote(agrees, _MARK.sub("", text).strip())


def read_verdict(text: str) -> EvaluatorVerdict | None:
    r"""The evaluator's verdict: a whole 0 or 1 (yes, no, correct, ...) on the line of
    "Correctness:", and all after "Advice:". None where it can't be read.

    Example:
        >>> read_verdict("Correctness: 0\nAdvice: count again\nRecruiting Suggestion: none")
        EvaluatorVerdict(correct=False, advice='count again\nRecruiting Suggestion: none')
    """
    found = _fields(text, _EVALUATOR)
    correct = _last(found.get("correctness", []), _correct, unsafe=True)
    if correct is None:
        return None
    return EvaluatorVerdict(correct, found.get("advice", [""])[-1])


# -- fields -------------------------------------------------------------------------------------


def _fields(text: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The values of each field that is there, in their order. Quoted lines hold none."""
    found: dict[str, list[str]] = {}
    parsed = _json(text)
    if parsed is not None and isinstance(parsed[1], dict):
        span, items = parsed
        for name, value in _lines(text[: span.start], names):
            found.setdefault(name, []).append(value)
        for key, value in items.items():
            name = re.sub(r"[\W_]+", " ", key).strip().lower()
            if name in names:
                found.setdefault(name, []).append("" if value is None else str(value).strip())
        text = text[span.stop :]
    for name, value in _lines(text, names):
        found.setdefault(name, []).append(value)
    return found


def _lines(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The fields that stand at the beginning of a line, each with all up to the next one."""
    inner = re.compile(rf"[\s,;.|*_]({'|'.join(names)})[*_ \t]*:", re.I)
    begun: tuple[str, int] | None = None
    wide, at = text.translate(_WIDE), 0
    for line in wide.splitlines(keepends=True):
        start = at
        at += len(line)
        while (field := _field(line, names)) is not None:
            name, used = field
            if begun is not None:
                yield begun[0], _value(text[begun[1] : start])
            begun = (name, start + used)
            more = None if name in _FREE else inner.search(line, used)
            if more is None:
                break
            start, line = start + more.start() + 1, line[more.start() + 1 :]
    if begun is not None:
        yield begun[0], _value(text[begun[1] :])


def _field(line: str, names: Sequence[str]) -> tuple[str, int] | None:
    """The field that a line begins with, and where its value begins."""
    rest = line.lstrip(_MARKUP)
    rest = (rest[found.end() :] if (found := _BULLET.match(rest)) else rest).lstrip(_MARKUP)
    name = next((name for name in names if rest[: len(name)].lower() == name), None)
    if name is None:
        return None
    tail = rest[len(name) :]
    value = tail.lstrip(" \t*_`\"'")
    heading = not value.strip("\n#") and line.lstrip(" \t")[:1] in ("#", "*")
    in_table = value[:1] == "|" and line.lstrip(" \t")[:1] == "|"
    if value[:1] != ":" and not heading and not in_table:
        return None
    return name, len(line) - len(value) + (not heading)


def _value(text: str) -> str:
    return text.strip(" \t\r\n*|`").removeprefix("_").strip()


def _last(
    values: Sequence[str], read: Callable[[str], V | None], unsafe: V | None = None
) -> V | None:
    """The last value that can be read. An `unsafe` one counts only if no other follows it."""
    read_values = [read(value.translate(_WIDE).split("\n", 1)[0]) for value in values]
    whole = [value for value in read_values if value is not None]
    if not whole or (unsafe is not None and whole[-1] == unsafe and read_values[-1] is None):
        return None
    return whole[-1]


def _correct(value: str) -> bool | None:
    words = [word.lower() for word in _WORD.findall(_LATEX.sub("", value))]
    said = {_VERDICTS.get(word) for word in words if word not in _SIGNS}
    return said.pop() if len(said) == 1 else None


def _goes_on(value: str) -> bool | None:
    words = re.findall(r"[^\W\d_]+", value.lower())
    if not words or _UNSURE.search(value):
        return None
    first = {words[0], " ".join(words[:2])}
    stops, continues = first & _STOP, first & _CONTINUE
    if not stops and not continues:
        return None
    return None if set(words) & (_STOP if continues else _CONTINUE) else bool(continues)


def _number(value: str) -> int | None:
    """A number of tokens or experts; None where something else stands beside it."""
    value = re.sub(r"\([^()]*\)$", "", value.strip(" \t*_`\"'.,;|$~")).strip(" *_").lower()
    found = _NUMBER.fullmatch(value)
    if found is None:
        return _NUMBERS.get(value.removesuffix(" experts"))
    digits = re.sub(r"\D", "", found[1]) + ("000" if found[3] else "")
    return int(digits) if len(digits) < 10 else 10**9 - 1


# -- lists --------------------------------------------------------------------------------------


def _lists(text: str, *, numbered: bool) -> list[list[str]]:
    """The outermost lists: numbers that run from 1, or lines with bullets."""
    outer: list[list[str]] = []
    open_lists: dict[int, tuple[list[str], bool]] = {}  # by depth: the names, and if it is inner
    broken = False  # words at no depth since the last item
    for line in text.splitlines():
        if line.lstrip().startswith(">"):
            line = line.lstrip("> ")
        wide = line.translate(_WIDE)
        cells, item = _CELLS.match(wide), _ITEM.match(wide)
        depth, number, said = 0, None, ""
        if cells is not None:
            number, said = cells[1], " - ".join(filter(None, map(str.strip, cells[2].split("|"))))
        elif item is not None:
            depth, number, said = len(item[1].expandtabs()), item[2], _name(line[item.start(3) :])
        if not any(map(str.isalnum, said)):
            broken = broken or bool(line.strip() and not line[0].isspace())
            continue
        if (number is None) is numbered:
            continue
        for deeper in [each for each in open_lists if each > depth]:
            del open_lists[deeper]
        names, inner = open_lists.get(depth, ([], False))
        goes_on = int(number) == len(names) + 1 if number else bool(names) and not broken
        if goes_on and names:
            names.append(said)
        elif number is None or int(number) == 1:
            names, inner = [said], not broken and any(each < depth for each in open_lists)
            open_lists[depth] = (names, inner)
            if not inner:
                outer.append(names)
        else:
            open_lists.pop(depth, None)
        broken = False
    return outer


def _name(text: str) -> str:
    """An expert's name without markup around it; what is inside keeps both its halves."""
    text = text.strip(" \t")
    if text.count("**") % 2:
        text = text.replace("**", "", 1)
    for mark in ("**", "*", "`", "_"):
        inside = text[len(mark) : -len(mark)]
        if len(text) > 2 * len(mark) and text == f"{mark}{inside}{mark}" and mark not in inside:
            text = inside
    return text.strip(" \t")


def _json(text: str) -> tuple[slice, Any] | None:
    """The object or the list that a text holds as JSON, and where it stands."""
    for first, last in ("{}", "[]"):
        start, stop = text.find(first), text.rfind(last) + 1
        if 0 <= start < stop:
            try:
                return slice(start, stop), json.loads(text[start:stop])
            except (ValueError, RecursionError):
                continue
    return None

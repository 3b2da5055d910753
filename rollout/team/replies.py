"""How the words of a team's roles are read: the CEO's decision, experts, votes, verdicts.

The forms are those of the CEO agent (arXiv 2504.09772). Pure functions of a text; what was not said
so that it can be read is None, and it is for the team to say what that means.
"""

import re
from dataclasses import dataclass

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

AGREE, DISAGREE = "[Agree]", "[Disagree]"

_FIELD = re.compile(
    r"^[#* \t]*(decision|recruit number|direction|maximum tokens)[* ]*:", re.I | re.M
)
_NUMBER = re.compile(r"\d+")
_NUMBERED = re.compile(r"^[ \t*]*\d{1,2}[.):][ \t]*(.+)$", re.M)
_MARK = re.compile(r"\[(agree|disagree)\]", re.I)
_CORRECT = re.compile(r"correctness[* \t]*:", re.I)
_BIT = re.compile("[01]")
_ADVICE = re.compile(r"advice[* \t]*:(.*)", re.I | re.S)


@dataclass(frozen=True, slots=True)
class CeoDecision:
    """A CEO's decision for a round.

    `experts` counts the solver and its critics; `tokens` is what each of them may sample in one
    answer. Numbers that were not written as such are None. `direction` is "" if none was given.
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
    r"""A CEO's four fields, in any order; None where one is missing.

    It goes on if its decision has the word continue.

    Example:
        >>> read_decision("### Decision: continue\n### Recruit Number: 3\n"
        ...               "### Direction: check the units\n### Maximum Tokens: 4,096")
        CeoDecision(goes_on=True, experts=3, direction='check the units', tokens=4096)
    """
    found: dict[str, str] = {}
    marks = list(_FIELD.finditer(text))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        found.setdefault(mark[1].lower(), text[mark.end() : end].strip(" \t\n*"))
    if len(found) < 4:
        return None
    direction = found["direction"]
    if re.fullmatch(r"(none|no advice|n/a|-)?[. ]*", direction, re.I):
        direction = ""
    return CeoDecision(
        goes_on="continue" in found["decision"].lower(),
        experts=_number(found["recruit number"]),
        direction=direction,
        tokens=_number(found["maximum tokens"]),
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


def _number(text: str) -> int | None:
    found = _NUMBER.search(text.replace(",", ""))
    return int(found[0][:9]) if found else None


def read_experts(text: str, count: int) -> list[str] | None:
    r"""The first `count` lines of a numbered list; None where there are fewer.

    Example:
        >>> read_experts("1. A geometer\n2. A careful reader\n3. A cook", 2)
        ['A geometer', 'A careful reader']
    """
    found = [line.strip(" \t*") for line in _NUMBERED.findall(text)]
    found = [line for line in found if line]
    return found[:count] if len(found) >= count else None


def read_vote(text: str, *, agrees_first: bool = False) -> Vote:
    """A critic's review and vote. The last mark counts; with `agrees_first`, one [Agree] anywhere
    makes it agree, whatever else is there (as in the released code).

    Example:
        >>> read_vote("The sum is off by one. [Disagree]")
        Vote(agrees=False, review='The sum is off by one.')
    """
    marks = [mark[1].lower() for mark in _MARK.finditer(text)]
    review = _MARK.sub("", text).strip()
    if not marks:
        return Vote(None, review)
    return Vote("agree" in marks if agrees_first else marks[-1] == "agree", review)


def read_verdict(text: str) -> EvaluatorVerdict | None:
    r"""The evaluator's verdict: the first 0 or 1 behind "Correctness:", all behind "Advice:".

    Example:
        >>> read_verdict("Correctness: 0\nAdvice: count again\nRecruiting Suggestion: none")
        EvaluatorVerdict(correct=False, advice='count again\nRecruiting Suggestion: none')
    """
    correct, advice = _CORRECT.search(text), _ADVICE.search(text)
    bit = _BIT.search(text, correct.end()) if correct is not None else None
    if bit is None:
        return None
    return EvaluatorVerdict(bit[0] == "1", advice[1].strip() if advice else "")

"""Replies of a team's roles in the shapes that models give them, each with a person's reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from interlace.rollout.formats.plain import without_thinking
from interlace.rollout.team.replies import (
    CeoDecision,
    read_decision,
    read_experts,
    read_verdict,
    read_vote,
    write_decision,
)

VERDICTS: dict[str, bool | None] = {
    "Correctness: 1\nAdvice: none": True,
    "Correctness: 0\nAdvice: step 1 is off": False,
    "correctness : 0": False,
    "**Correctness:** 1": True,
    "**Correctness: 1**\n**Advice:** none": True,
    "### Correctness: 0": False,
    "### Correctness\n0\n### Advice\nstep 1": False,
    "**Correctness**\n1": True,
    "- Correctness: 1\n- Advice: none": True,
    "1. Correctness: 0\n2. Advice: step 1": False,
    "* **Correctness**: yes": True,
    "| Correctness | 0 |\n| Advice | step 1 |": False,
    "```\nCorrectness: 1\nAdvice: none\n```": True,
    '{"Correctness": 0, "Advice": "step 1"}': False,
    '```json\n{\n "correctness": true,\n "advice": "none"\n}\n```': True,
    "Here you are:\n{'Correctness': 1}": None,
    "Correctness\uff1a\uff11": True,
    "Correctness: `0`": False,
    "Correctness: $\\boxed{1}$": True,
    "Correctness: 1.": True,
    "Correctness: 1 (correct)": True,
    "Correctness: 0 - incorrect": False,
    "Correctness: No, incorrect.\nAdvice: see 1": False,
    "Correctness: True": True,
    "Correctness: \u2705": True,
    "Correctness: 0, Advice: step 1": False,
    # The value is not on its line, or is not whole.
    "Correctness: incorrect\nAdvice: repeat step 1": False,
    "Correctness: partly\nAdvice: repeat step 1": None,
    "Correctness: not correct": None,
    "Correctness: 1 if it is right and complete, else 0": None,
    "Correctness: 0 or 1": None,
    "Correctness: 1/2": None,
    "Correctness: 0.1": None,
    "Correctness: 1.1": None,
    "Correctness: -1": None,
    "Correctness: 10": None,
    "Correctness: 1%": None,
    "Correctness: ?": None,
    "Correctness:": None,
    "Correctness:\nAdvice: 1": None,
    "The correctness: 1": None,
    "> Correctness: 1": None,
    "The plan ends with:\n> Correctness: 1\nCorrectness: 0": False,
    "It is right, 1.": None,
    "1": None,
    "": None,
    # Draft and final, a repeated instruction.
    "Correctness: 1 if it is right and complete, else 0\nCorrectness: 0": False,
    "Correctness: 1 if it is right and complete, else 0\nCorrectness: 1": True,
    "Correctness: 0\nOn a second look:\nCorrectness: 1": True,
    "Correctness: 1\nOn a second look:\nCorrectness: 0": False,
    "Correctness: 1\nOn a second look:\nCorrectness: hard to say": None,
    "Correctness: 0\nCorrectness: 1 if it is right, else 0": False,
    '{"correctness": 1}\nNo, I was wrong.\nCorrectness: 0': False,
    "<think>Correctness: 1": None,
    "<think>Correctness: 1</think>Correctness: 0": False,
    "<Thinking>\nCorrectness: 1\n</Thinking>\nCorrectness: 0": False,
}

REST = "### Recruit Number: 3\n### Direction: none\n### Maximum Tokens: 512"
DECISIONS: dict[str, bool | None] = {
    "### Decision: continue": True,
    "### Decision: stop": False,
    "**Decision:** Continue.": True,
    "- Decision: stop": False,
    "1. Decision: continue": True,
    "Decision\uff1acontinue": True,
    "Decision: `stop`": False,
    "### Decision\ncontinue": True,
    "| Decision | stop |": False,
    "### Decision: go on": True,
    "### Decision: proceed with more experts": True,
    "### Decision: Stop (the solution is right)": False,
    "### Decision: do not continue": None,
    "### Decision: don't stop": None,
    "### Decision: continue or stop": None,
    "### Decision: not yet": None,
    "### Decision: stop if it is right": None,
    "### Decision: we should continue": None,
    "### Decision: nonstop": None,
    "### Decision: continuity": None,
    "### Decision:": None,
    "### Decision: continue or stop\n### Decision: stop": False,
    "### Decision: stop\nNo:\n### Decision: continue": True,
    "### Decision: stop\nOr better:\n### Decision: hm": None,
    "> Decision: stop": None,
    "I decide to stop.": None,
    "<think>\n### Decision: stop": None,
}

NUMBERS: dict[str, int | None] = {
    "4096": 4096,
    "4,096": 4096,
    "4 096": 4096,
    "4.096": 4096,
    "4'096": 4096,
    "4_096": 4096,
    "1,048,576": 1048576,
    "4k": 4000,
    "4 K tokens": 4000,
    "**4096**": 4096,
    "4096 tokens.": 4096,
    "4096 (the most)": 4096,
    "\uff14\uff10\uff19\uff16": 4096,
    "three": 3,
    "2^12": None,
    "4.5": None,
    "40,96": None,
    "1024 or 2048": None,
    "-4": None,
    "lots": None,
    "": None,
    "9" * 40: 999_999_999,
}

AB = ["Ada", "Bob"]
EXPERTS: dict[str, list[str] | None] = {
    "1. Ada\n2. Bob": AB,
    "1) Ada\n2) Bob\n3) Cyd": AB,
    "  1. Ada\n  2. Bob": AB,
    "1: Ada\n2: Bob": AB,
    "**1. Ada**\n**2. Bob**": AB,
    "1. **Ada**\n2. *Bob*": AB,
    "### 1. Ada\nknows sums\n### 2. Bob": AB,
    "> 1. Ada\n> 2. Bob": AB,
    "- Ada\n- Bob": AB,
    "* Ada\n\n* Bob": AB,
    "\u2022 Ada\n\u2022 Bob": AB,
    "```\n1. Ada\n2. Bob\n```": AB,
    '["Ada", "Bob"]': AB,
    '{"experts": ["Ada", "Bob"]}': AB,
    '[{"name": "Ada"}, {"name": "Bob"}]': AB,
    "| No. | Name |\n|---|---|\n| 1 | Ada |\n| 2 | Bob |": AB,
    "\uff11\uff0eAda\n\uff12\uff0eBob": AB,
    "Draft:\n1. cook\n2. baker\nFinal:\n1. Ada\n2. Bob": AB,
    "1. Ada\n   1. knows sums\n   2. knows signs\n2. Bob\n   1. reads\n   2. counts": AB,
    "1. Ada\n   - knows sums\n   - knows signs\n2. Bob": AB,
    "1.5 m is the height.\n1. Ada\n2. Bob": AB,
    "1. Ada\n1.5 m is the height.\n2. Bob": AB,
    "1. **Surveyor** - measures\n2. Bob": ["**Surveyor** - measures", "Bob"],
    "1. ...\n2. ...": None,
    "2. Ada\n3. Bob": None,
    "1. Ada\n3. Bob": None,
    "1. Ada": None,
    "Ada and Bob": None,
    "": None,
}

VOTES: dict[str, bool | None] = {
    "The same. [Agree]": True,
    "The sum is off. [Disagree]": False,
    "**[Agree]**": True,
    "[ DISAGREE ]": False,
    "[**Disagree**]": False,
    "\u3010Agree\u3011": True,
    "\uff3bDisagree\uff3d": False,
    "I would say [Agree], but the sign is wrong. [Disagree]": False,
    "[Disagree]\nOn a second look they are the same.\n[Agree]": True,
    "I do not [Agree]": None,
    "I can't [Agree].": None,
    "[Agree] or [Disagree]?": None,
    "End with [Agree] if the answers are the same, else with [Disagree].": None,
    "> [Agree]": None,
    "The last solution said:\n> [Agree]\n[Disagree]": False,
    "I agree.": None,
    "Agree": None,
    "[Agreement]": None,
    "": None,
    "<think>They are the same. [Agree]": None,
}


@pytest.mark.parametrize("text", VERDICTS)
def test_a_verdict_is_read_as_a_person_reads_it(text: str) -> None:
    verdict = read_verdict(without_thinking(text))
    assert (None if verdict is None else verdict.correct) is VERDICTS[text]


@pytest.mark.parametrize("text", DECISIONS)
def test_a_decision_is_read_as_a_person_reads_it(text: str) -> None:
    decision = read_decision(without_thinking(f"{text}\n{REST}"))
    assert (None if decision is None else decision.goes_on) is DECISIONS[text]


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_read_whole(text: str) -> None:
    rest = f"Decision: continue\nRecruit Number: 2\nDirection: none\nMaximum Tokens: {text}"
    decision = read_decision(rest)
    assert decision is not None and decision.tokens == NUMBERS[text]


@pytest.mark.parametrize("text", EXPERTS)
def test_a_list_of_experts_is_read_as_a_person_reads_it(text: str) -> None:
    assert read_experts(text, 2) == EXPERTS[text]


@pytest.mark.parametrize("text", VOTES)
def test_a_vote_is_read_as_a_person_reads_it(text: str) -> None:
    assert read_vote(without_thinking(text)).agrees is VOTES[text]


DECISION = CeoDecision(False, 3, "check the units", 4096)


@pytest.mark.parametrize(
    "text",
    [
        "- Decision: stop\n- Recruit Number: 3\n- Direction: check the units\n"
        "- Maximum Tokens: 4,096",
        "**Decision:** stop\n\n**Recruit Number:** 3\n\n**Direction:** check the units\n\n"
        "**Maximum Tokens:** 4096\n\nThat should be enough.",
        "Decision: stop, Recruit Number: 3, Maximum Tokens: 4096, Direction: check the units",
        '{"Decision": "stop", "Recruit Number": 3, "Direction": "check the units",'
        ' "Maximum Tokens": 4096}',
        '```json\n{"decision": "stop", "recruit_number": "3", "direction": "check the units",'
        '\n"maximum_tokens": "4,096"}\n```',
        "| Decision | stop |\n|---|---|\n| Recruit Number | 3 |\n| Direction | check the units |\n"
        "| Maximum Tokens | 4096 |",
        "Draft:\nDecision: continue\nRecruit Number: 2\nDirection: none\nMaximum Tokens: 8k\n"
        + write_decision(DECISION),
    ],
)
def test_the_four_fields_are_read_in_any_markup(text: str) -> None:
    assert read_decision(text) == DECISION


FIELDS = ("### Decision: ", "Recruit Number:", "**Direction:**", "### Maximum Tokens: ", "\n")
WORDS = ("stop", "continue", "2", "4,096", "[Agree]", "[Disagree]", "Correctness: ", "Advice:")
PIECES = some.sampled_from([*FIELDS, *WORDS, "1. ", "9" * 40, "- ", "  ", '{"', "[", "}", "]", "|"])
TEXTS = some.one_of(some.text(), some.lists(PIECES | some.text(max_size=5)).map("".join))


@given(TEXTS)
def test_nothing_that_is_said_raises_or_is_consent_without_a_mark(text: str) -> None:
    decision, verdict, vote = read_decision(text), read_verdict(text), read_vote(text)
    assert decision is None or 0 <= (decision.tokens or 0) < 10**9
    said = text.lower()
    assert verdict is None or "correctness" in said
    assert decision is None or decision.goes_on or "decision" in said
    assert vote.agrees is None or "agree" in said
    names = read_experts(text, 2)
    assert names is None or (len(names) == 2 and all(names))


@given(some.text(alphabet="01 \n:.yestrue[]{}*#", max_size=60))
def test_no_text_without_a_field_or_a_mark_is_consent(text: str) -> None:
    assert read_verdict(text) is None and read_decision(text) is None
    assert read_vote(text).agrees is None


@given(
    some.booleans(),
    some.integers(0, 99),
    some.sampled_from(["", "mind the signs"]),
    some.integers(0, 10**6),
)
def test_a_decision_that_is_written_is_read(goes_on: bool, n: int, why: str, tokens: int) -> None:
    decision = CeoDecision(goes_on, n, why, tokens)
    assert read_decision(write_decision(decision)) == decision


def test_both_marks_the_last_one_counts_and_in_the_released_code_agreement() -> None:
    both = "I would say [Agree], but the sign is wrong. [Disagree]"
    assert read_vote(both).agrees is False
    assert read_vote(both, agrees_first=True).agrees is True

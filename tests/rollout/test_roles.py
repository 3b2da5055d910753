"""Whatever a member of a team says, it is read without an error; what is written can be read."""

from hypothesis import given
from hypothesis import strategies as some

from interlace.rollout.team.replies import (
    CeoDecision,
    read_decision,
    read_experts,
    read_verdict,
    read_vote,
    write_decision,
)

FIELDS = ("### Decision: ", "Recruit Number:", "**Direction:**", "### Maximum Tokens: ", "\n")
WORDS = ("stop", "continue", "2", "4,096", "[Agree]", "[Disagree]", "Correctness: ", "Advice:")
PIECES = some.sampled_from([*FIELDS, *WORDS, "1. ", "9" * 40])
TEXTS = some.one_of(some.text(), some.lists(PIECES | some.text(max_size=5)).map("".join))


@given(TEXTS)
def test_nothing_that_is_said_raises(text: str) -> None:
    decision, verdict, vote = read_decision(text), read_verdict(text), read_vote(text)
    assert decision is None or 0 <= (decision.tokens or 0) < 10**9
    assert verdict is None or isinstance(verdict.correct, bool)
    assert (vote.agrees is None) == (
        "[agree]" not in text.lower() and "[disagree]" not in text.lower()
    )
    experts = read_experts(text, 2)
    assert experts is None or (len(experts) == 2 and all(experts))


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

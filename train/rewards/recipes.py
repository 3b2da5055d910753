"""The rewards of the papers, by name."""

from collections.abc import Callable

from ...rollout.tokenizer import Tokenizer
from .base import RewardPart, Rewards
from .checker import Checker
from .shaping import calls, forged, overlong, tool_errors, void_turns
from .sql import well_formed

__all__ = ["CORRECT", "REWARDS", "find_rewards"]

CORRECT = "correct"
"""The part of a reward that says right from wrong: what dynamic sampling and accuracies go by."""

_SIGNALS = (
    RewardPart("calls", calls, 0.0),
    RewardPart("tool_errors", tool_errors, 0.0),
    RewardPart("void_turns", void_turns, 0.0),
    RewardPart("forged", forged, 0.0),
)
"""What every recipe logs beside the reward: what was learnt shows in them first."""


def correct(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """1 for a right answer, else 0."""
    return Rewards(RewardPart(CORRECT, checker.correct), *_SIGNALS)


def retool(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """ReTool (arXiv 2504.11536): +1 for a right answer, -1 else; nothing for format or code."""
    return Rewards(RewardPart("outcome", checker.sign), *_SIGNALS)


def retool_verl(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """ReTool as verl's recipe has it: wrong answers with calls get a little back."""
    return Rewards(RewardPart("outcome", checker.sign_with_calls), *_SIGNALS)


def search_r1(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """Search-R1 (arXiv 2503.09516): the exact match of the answer; F1 is logged beside it."""
    return Rewards(
        RewardPart("exact_match", checker.exact_match), RewardPart("f1", checker.f1, 0.0), *_SIGNALS
    )


def reex_sql(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """ReEx-SQL (arXiv 2505.12768): five parts with the paper's weights and our formulas."""
    sql = checker.sql
    return Rewards(
        RewardPart("format", well_formed(tokenizer), 2.0),
        RewardPart("execution", sql.execution, 3.0),
        RewardPart("exact_match", sql.exact, 1.0),
        RewardPart("entity", sql.entities, 1.0),
        RewardPart("exploration", sql.exploration, 2.0),
        *_SIGNALS,
    )


REWARDS: dict[str, Callable[[Checker, Tokenizer], Rewards]] = {
    "correct": correct,
    "retool": retool,
    "retool_verl": retool_verl,
    "search_r1": search_r1,
    "reex_sql": reex_sql,
}


def find_rewards(
    name: str,
    checker: Checker,
    tokenizer: Tokenizer,
    *,
    response_tokens: int,
    overlong_buffer: int = 0,
) -> Rewards:
    """A recipe's parts as a run takes them: `CORRECT` is among them, as a signal if it is no part
    of the recipe, and DAPO's soft punishment over the last `overlong_buffer` of `response_tokens`.

    Raises KeyError for a name that is not in `REWARDS`.
    """
    parts = list(REWARDS[name](checker, tokenizer).parts)
    if CORRECT not in {part.name for part in parts}:
        parts.append(RewardPart(CORRECT, checker.correct, 0.0))
    if overlong_buffer:
        parts.append(RewardPart("overlong", overlong(response_tokens, overlong_buffer)))
    return Rewards(*parts)

"""Rewards by name: those of the papers, and the user's."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ...rollout.tokenizer import Tokenizer
from ...tools.errors import InterlaceError, UsageError
from ...tools.importing import find
from .base import RewardPart, Rewards, bound, user_function
from .checker import Checker
from .shaping import calls, forged, overlong, tool_errors, void_turns
from .sql import well_formed

__all__ = ["CORRECT", "REWARDS", "RewardLike", "find_reward", "find_rewards"]

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
    """ReEx-SQL (arXiv 2505.12768): five parts with the paper's weights and our formulas.

    A wrong final query earns at most 2 + 1/2 + 2/5, a right one at least 3.
    """
    sql = checker.sql
    entity = sql.less_if_wrong(sql.entities, 1 / 2)
    exploration = sql.less_if_wrong(sql.exploration(tokenizer), 1 / 5)
    return Rewards(
        RewardPart("format", well_formed(tokenizer), 2.0),
        RewardPart("execution", sql.execution, 3.0),
        RewardPart("exact_match", sql.exact, 1.0),
        RewardPart("entity", entity, 1.0),
        RewardPart("exploration", exploration, 2.0),
        *_SIGNALS,
    )


def bird(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """BIRD (arXiv 2305.03111): R-VES, which is 0 for a wrong query."""
    return Rewards(RewardPart("r_ves", checker.sql.r_ves), *_SIGNALS)


def commongen(checker: Checker, tokenizer: Tokenizer) -> Rewards:
    """CommonGen (arXiv 1911.03705): the share of a task's concepts that the answer covers."""
    return Rewards(RewardPart("coverage", checker.coverage), *_SIGNALS)


REWARDS: dict[str, Callable[[Checker, Tokenizer], Rewards]] = {
    "correct": correct,
    "retool": retool,
    "retool_verl": retool_verl,
    "search_r1": search_r1,
    "reex_sql": reex_sql,
    "bird": bird,
    "commongen": commongen,
}


RewardLike: TypeAlias = Rewards | RewardPart | Sequence[RewardPart] | Callable[..., Any]
"""A reward of the user's: parts, a function of an episode and its task, or a function whose first
parameter is called `checker` (and another one `tokenizer`, if it needs that) that makes parts."""


def find_reward(
    given: str | RewardLike, *, trusted: bool = True, folder: Path | None = None
) -> Callable[[Checker, Tokenizer], list[RewardPart]]:
    """The reward of that name, by the grammar of `tools/importing.py`, or the one given: a function
    that makes its parts from a run's checker and tokenizer.

    `retool`; of your own `my_rewards:terse` or `my_rewards.py:terse@most=200`, a `RewardLike`.
    Raises UsageError for any other.
    """
    value: Any = given
    name = getattr(given, "__name__", type(given).__name__)
    if isinstance(given, str):
        found = find("reward", given, REWARDS, trusted=trusted, folder=folder)
        if found.own:
            make = bound("reward", found)
            return lambda checker, tokenizer: list(make(checker, tokenizer).parts)
        name = found.name.source or found.name.head
        value = found.make() if isinstance(found.value, type) else bound("reward", found)
    if callable(value):
        if _first_parameter(value) == "checker":
            return partial(_make_parts, name, value)
        try:
            value = RewardPart(name, value)
        except ValueError as error:
            raise UsageError(f"the reward {name}: {error}") from error
    parts = _as_parts(name, value)
    return lambda checker, tokenizer: list(parts)


def _first_parameter(function: Callable[..., Any]) -> str | None:
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except ValueError:  # of a function in C nothing is known
        return None


def _make_parts(
    name: str, make: Callable[..., Any], checker: Checker, tokenizer: Tokenizer
) -> list[RewardPart]:
    wants_tokenizer = "tokenizer" in inspect.signature(make).parameters
    try:
        made = make(checker, tokenizer=tokenizer) if wants_tokenizer else make(checker)
    except InterlaceError:
        raise
    except Exception as error:  # boundary: somebody's code
        raise UsageError(
            f"the reward {name} can't be made: {type(error).__name__}: {error}"
        ) from error
    return _as_parts(name, made)


def _as_parts(name: str, given: Any) -> list[RewardPart]:
    parts = given.parts if isinstance(given, Rewards) else given
    parts = [parts] if isinstance(parts, RewardPart) else parts
    is_list = isinstance(parts, list | tuple) and bool(parts)
    if not is_list or not all(isinstance(part, RewardPart) for part in parts):
        raise UsageError(
            f"the reward {name} is {given!r:.60}: give a function of (episode, task), a RewardPart "
            "or a list of them, Rewards, or a function of (checker, tokenizer) that makes one of "
            "these"
        )
    return [
        replace(part, function=user_function("reward", part.name, part.function, "(episode, task)"))
        for part in parts
    ]


def find_rewards(
    given: str | RewardLike,
    checker: Checker,
    tokenizer: Tokenizer,
    *,
    response_tokens: int,
    overlong_buffer: int = 0,
) -> Rewards:
    """A reward's parts as a run takes them: `CORRECT` is among them, as a signal if it is no part
    of the reward, and DAPO's soft punishment over the last `overlong_buffer` of `response_tokens`.

    Raises UsageError as `find_reward` does, and for two parts of one name.
    """
    parts = find_reward(given)(checker, tokenizer)
    if CORRECT not in {part.name for part in parts}:
        parts.append(RewardPart(CORRECT, checker.correct, 0.0))
    if overlong_buffer:
        parts.append(RewardPart("overlong", overlong(response_tokens, overlong_buffer)))
    try:
        return Rewards(*parts)
    except ValueError as error:
        raise UsageError(str(error)) from error

"""Rewards: functions of an episode and its task, put together with weights (docs/rewards.md)."""

from .base import (
    TOTAL,
    RewardFunction,
    RewardPart,
    Rewards,
    Score,
    Unscored,
    policy_text,
    why_unscored,
)
from .checker import CHECKERS, Checker, SameAnswer, find_checker
from .math_answers import MathVerify
from .recipes import CORRECT, REWARDS, RewardLike, find_reward, find_rewards
from .search import best_f1, exact_match
from .shaping import overlong, tool_errors, void_turns
from .sql import SqlJudge

__all__ = [
    "CHECKERS",
    "CORRECT",
    "REWARDS",
    "TOTAL",
    "Checker",
    "MathVerify",
    "RewardFunction",
    "RewardLike",
    "RewardPart",
    "Rewards",
    "SameAnswer",
    "Score",
    "SqlJudge",
    "Unscored",
    "best_f1",
    "exact_match",
    "find_checker",
    "find_reward",
    "find_rewards",
    "overlong",
    "policy_text",
    "tool_errors",
    "void_turns",
    "why_unscored",
]

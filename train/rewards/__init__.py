"""Rewards: functions of an episode and its task, put together with weights (docs/rewards.md)."""

from .base import TOTAL, Part, RewardFunction, Rewards, Score, Unscored, said, why_unscored
from .checker import CHECKERS, Checker
from .math_answers import MathVerify
from .recipes import CORRECT, REWARDS, find_rewards
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
    "Part",
    "RewardFunction",
    "Rewards",
    "Score",
    "SqlJudge",
    "Unscored",
    "best_f1",
    "exact_match",
    "find_rewards",
    "overlong",
    "said",
    "tool_errors",
    "void_turns",
    "why_unscored",
]

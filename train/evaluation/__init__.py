"""Evaluation: attempts and their figures, intervals, comparisons and plots."""

from .compare import Comparison, compare
from .results import Evaluation, load_evaluation
from .run import evaluate, evaluate_async

__all__ = [
    "Comparison",
    "Evaluation",
    "compare",
    "evaluate",
    "evaluate_async",
    "load_evaluation",
]

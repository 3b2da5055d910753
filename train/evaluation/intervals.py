"""Shares and means with their intervals, pass@k, and tests of paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEVEL",
    "Estimate",
    "bootstrap",
    "bounded_mean",
    "mcnemar",
    "pass_at_k",
    "sign_flip",
    "wilson",
]

LEVEL = 0.95
"""The share of repetitions in which an interval is to hold the truth."""
_RESAMPLES = 10_000
_CHUNK = 4_000_000
"""Drawn indices that are held at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, the ends of its interval at `LEVEL`, and how the interval was made."""

    value: float
    low: float
    high: float
    method: str


def wilson(successes: int, trials: int) -> Estimate:
    """A share of independent trials with Wilson's score interval (Wilson 1927).

    It stays within 0 and 1 and is right for few trials and for shares near the ends, where the
    usual interval fails. Raises ValueError without a trial.

    Example:
        >>> [round(x, 4) for x in (wilson(8, 10).low, wilson(8, 10).high)]
        [0.4902, 0.9433]
    """
    if not 0 <= successes <= trials or not trials:
        raise ValueError(f"{successes} of {trials} is no share")
    return _score(successes / trials, trials)


def _score(share: float, trials: int) -> Estimate:
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    spread = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    low = 0.0 if share == 0 else middle - half  # exact at the ends, whatever the rounding
    high = 1.0 if share == 1 else middle + half
    return Estimate(share, low, high, "Wilson")


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean of `values`, one for each task, with the percentile interval over resampled tasks.

    Attempts at one task are alike, so it is tasks that are drawn, never attempts. The same values
    and seed give the same interval. Raises ValueError where there are no values.
    """
    given = np.asarray(values, np.float64)
    if not len(given):
        raise ValueError("there is nothing to take the mean of")
    low, high = np.quantile(_means(given, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(given.mean()), float(low), float(high), "bootstrap over tasks")


def bounded_mean(values: Sequence[float], *, lowest: float = 0.0) -> Estimate:
    """The mean of values from `lowest` to 1, one for each task: a bootstrap, or, if all values are
    equal, Wilson's interval over the tasks.

    Equal values give resampling nothing to vary, so its interval has no width, however few the
    tasks are.

    Example:
        >>> round(bounded_mean([1.0] * 5).low, 3), bounded_mean([1.0] * 5).method
        (0.566, 'Wilson over tasks')
    """
    found = bootstrap(values)
    if found.low < found.high:
        return found
    span = 1 - lowest
    score = _score((found.value - lowest) / span, len(values))
    low, high = (lowest + span * end for end in (score.low, score.high))
    return Estimate(found.value, low, high, "Wilson over tasks")


def _means(given: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(given))
    parts = []
    for start in range(0, _RESAMPLES, rows):
        drawn = rng.integers(len(given), size=(min(rows, _RESAMPLES - start), len(given)))
        parts.append(given[drawn].mean(axis=1))
    return np.concatenate(parts)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that at least one of k attempts is right, without bias from n >= k attempts.

    1 - C(n - c, k) / C(n, k), as in Chen et al. (arXiv 2107.03374), worked out exactly.

    Example:
        >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
        (0.25, 0.5, 1.0)
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@{k} of {correct} right among {n} attempts makes no sense")
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p-value, from the tasks that only one of two runs got right.

    Example:
        >>> mcnemar(8, 2)
        0.109375
    """
    n = only_a + only_b
    tail: int = sum(math.comb(n, i) for i in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / (1 << n))


def sign_flip(differences: Sequence[float], *, seed: int = 0) -> float:
    """The two-sided p-value of a mean of paired differences, by a permutation test.

    If neither run were better, each task's difference would have either sign alike. The observed
    signs count as one of the drawn ones, so the value is never 0.
    """
    given = np.asarray(differences, np.float64)
    observed = abs(given.mean()) - 1e-12  # sums in another order may differ in the last bit
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // max(1, len(given)))
    extreme = 0
    for start in range(0, _RESAMPLES, rows):
        signs = rng.choice((-1.0, 1.0), size=(min(rows, _RESAMPLES - start), len(given)))
        extreme += int((np.abs((signs * given).mean(axis=1)) >= observed).sum())
    return (extreme + 1) / (_RESAMPLES + 1)

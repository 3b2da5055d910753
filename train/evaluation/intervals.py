"""Shares and means with their intervals, pass@k, and tests of paired differences."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FEW_TASKS",
    "LEVEL",
    "Estimate",
    "bootstrap",
    "bounded_mean",
    "free_mean",
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
FEW_TASKS = 10
"""Below so many tasks a reader is told that figures say little."""
_FEW = "too few tasks"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, the ends of its interval at `LEVEL`, and how the interval was made.

    The ends are NaN if the values say nothing of the doubt.
    """

    value: float
    low: float
    high: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data; an end that is NaN is None."""
        return {k: None if v != v else v for k, v in asdict(self).items()}


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


def _score(share: float, trials: float) -> Estimate:
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
    and seed give the same interval; of equal values it has no width. Raises ValueError where there
    are no values.
    """
    given = np.asarray(values, np.float64)
    if not len(given):
        raise ValueError("there is nothing to take the mean of")
    low, high = np.quantile(_means(given, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(given.mean()), float(low), float(high), "bootstrap over tasks")


def free_mean(values: Sequence[float]) -> Estimate:
    """The mean of values without bounds, one for each task, with a bootstrap over tasks; for fewer
    than `FEW_TASKS`, whose doubt a bootstrap understates, with Student's interval.

    Equal values say nothing of the doubt: they have no interval. Without values the mean is NaN.
    """
    count = len(values)
    if not count or min(values) == max(values):
        why = _FEW if count < 2 else "all equal"
        return Estimate(values[0] if count else math.nan, math.nan, math.nan, why)
    if count >= FEW_TASKS:
        return bootstrap(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = _student(count - 1) * math.sqrt(variance / count)
    return Estimate(mean, mean - half, mean + half, "Student's t over tasks")


def bounded_mean(values: Sequence[float], *, lowest: float = 0.0) -> Estimate:
    """The mean of values from `lowest` to 1, one for each task, with Wilson's interval for as many
    independent trials as the spread between the tasks is worth (Korn and Graubard 1998).

    That number is p (1 - p) / var(p), reduced as Student's t asks of few tasks. If all values are
    equal, each end is the mean if the share of tasks that Wilson's bound allows had the lowest or
    the highest value. A single task gives no interval. Raises ValueError where there are no values.

    Example:
        >>> round(bounded_mean([1.0] * 5).low, 3), bounded_mean([1.0] * 5).high
        (0.566, 1.0)
    """
    count = len(values)
    if not count:
        raise ValueError("there is nothing to take the mean of")
    mean = math.fsum(values) / count
    if count < 2:
        return Estimate(mean, math.nan, math.nan, _FEW)
    span = 1 - lowest
    share = min(1.0, max(0.0, (mean - lowest) / span))
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1) / span**2
    other = wilson(0, count).high
    ends = (share * (1 - other), share + other * (1 - share))
    if min(values) < max(values):
        z = NormalDist().inv_cdf((1 + LEVEL) / 2)
        worth = share * (1 - share) / (variance / count) * (z / _student(count - 1)) ** 2
        found = _score(share, worth)
        ends = (found.low, found.high)
    low, high = (lowest + span * end for end in ends)
    return Estimate(mean, low, high, "Wilson over tasks")


def _student(degrees: int) -> float:
    """The quantile of Student's t for `LEVEL`: exact for 1 and 2 degrees, else by the expansion of
    Abramowitz and Stegun 26.7.5, which is off by less than 1 %.
    """
    share = (1 + LEVEL) / 2
    if degrees == 1:
        return math.tan(math.pi * (share - 0.5))
    if degrees == 2:
        return (2 * share - 1) * math.sqrt(2 / (4 * share * (1 - share)))
    z = NormalDist().inv_cdf(share)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
    )


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

"""BIRD's efficiency scores, from how much faster than the gold query a right query runs.

Sources: VES, arXiv 2305.03111 (section 4.2); R-VES, bird-bench/mini_dev (`evaluation_ves.py`).
"""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev

__all__ = ["r_ves", "ves"]

_STEPS = ((2.0, 1.25), (1.0, 1.0), (0.5, 0.75), (0.25, 0.5))


def _mean_ratio(ratios: Sequence[float]) -> float:
    """The mean without those that are 3 standard deviations or more away from it.

    The original's strict filter drops all ratios where they are equal; here they stay.
    """
    mean, sigma = fmean(ratios), pstdev(ratios)
    kept = [ratio for ratio in ratios if abs(ratio - mean) < 3 * sigma]
    return fmean(kept or ratios)


def ves(ratios: Sequence[float]) -> float:
    """The square root of the mean time ratio, gold over predicted, of a right query's runs.

    A set's VES is 100 times the mean over its queries, with 0 for a wrong one.
    """
    return math.sqrt(_mean_ratio(ratios))


def r_ves(ratios: Sequence[float]) -> float:
    """The square root of a step of the mean ratio: 1.25 from 2 on, 1 from 1, 0.75 from 1/2, 0.5
    from 1/4, else 0.25.

    A set's R-VES is 100 times the mean over its queries, with 0 for a wrong one.

    Example:
        >>> r_ves([1.0, 1.4]), round(r_ves([2.5]), 3)
        (1.0, 1.118)
    """
    mean = _mean_ratio(ratios)
    return math.sqrt(next((step for least, step in _STEPS if mean >= least), 0.25))

"""Results of the runs: curves with intervals, areas, paired differences, who passes whom."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interlace.train.evaluation.intervals import Estimate, bootstrap, sign_flip

from .runs import Point, Run

__all__ = [
    "AXES",
    "Comparison",
    "Crossing",
    "Curve",
    "areas",
    "compare",
    "curve",
    "horizon",
    "last",
    "passes",
]

AXES = ("step", "tokens", "seconds")
"""What accuracy is drawn against."""
_GRID = 60
"""Places at which a curve over tokens or seconds is read off."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The mean of a measure over seeds, with the interval of a bootstrap over seeds."""

    at: NDArray[np.float64]
    """Where on the axis, (N,)."""
    values: list[Estimate]
    """N of them."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """The first point where an arm's mean curve reaches the last mean accuracy of another."""

    step: int
    tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference, seed by seed: its mean with an interval, and a permutation test's p."""

    difference: Estimate
    p: float
    above: int
    """Seeds in which the first is above the second."""
    seeds: int


def curve(runs: Sequence[Run], axis: str, measure: str = "accuracy") -> Curve:
    """A measure against an axis of `Point`.

    Runs reach a number of tokens or seconds at different places: between their points they are
    taken as straight, up to where the first of them ends.
    """
    if axis == "step":
        at = np.array([point.step for point in runs[0].points], np.float64)
    else:
        ends = [getattr(run.points[-1], axis) for run in runs]
        at = np.linspace(0.0, min(ends), _GRID)
    rows = np.stack([_read(run.points, axis, measure, at) for run in runs])  # (seeds, N)
    return Curve(at, [bootstrap(column.tolist()) for column in rows.T])


def _read(
    points: Sequence[Point], axis: str, measure: str, at: NDArray[np.float64]
) -> NDArray[np.float64]:
    xs = [getattr(point, axis) for point in points]
    ys = [getattr(point, measure) for point in points]
    found: NDArray[np.float64] = np.interp(at, xs, ys)
    return found


def areas(runs: Sequence[Run], axis: str, until: float, measure: str = "accuracy") -> list[float]:
    """The area under each run's curve up to `until`, divided by that: the mean height.

    Example:
        >>> points = [Point(s, 0, 0, a, 0, 0, 0, 0) for s, a in ((0, 0.2), (10, 0.4))]
        >>> round(areas([Run("tools", 0, points)], "step", 10)[0], 6)
        0.3
    """
    at = np.linspace(0.0, until, 1001)
    heights = [_read(run.points, axis, measure, at) for run in runs]
    # Trapezia of equal width.
    return [float((height[1:] + height[:-1]).mean() / 2) for height in heights]


def compare(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Two measures of the same seeds, in the same order.

    Example:
        >>> found = compare([0.5, 0.6, 0.4], [0.3, 0.5, 0.4])
        >>> round(found.difference.value, 3), found.above, found.seeds
        (0.1, 2, 3)
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    above = sum(difference > 0 for difference in differences)
    return Comparison(bootstrap(differences), sign_flip(differences), above, len(differences))


def passes(a: Sequence[Run], b: Sequence[Run]) -> Crossing | None:
    """The first point where the mean of `a` reaches the last mean accuracy of `b`, or None.

    Only points at which accuracy was measured count: nothing is interpolated.
    """
    wanted = float(np.mean([run.points[-1].accuracy for run in b]))
    for index, point in enumerate(a[0].points):
        here = [run.points[index] for run in a]
        if _mean(here, lambda p: p.accuracy) >= wanted:
            tokens, seconds = _mean(here, lambda p: p.tokens), _mean(here, lambda p: p.seconds)
            return Crossing(point.step, tokens, seconds)
    return None


def _mean(points: Sequence[Point], read: Callable[[Point], float]) -> float:
    return float(np.mean([read(point) for point in points]))


def last(runs: Sequence[Run], measure: str = "accuracy") -> list[float]:
    """A measure at the end of each run."""
    return [getattr(run.points[-1], measure) for run in runs]


def horizon(runs: Mapping[str, Sequence[Run]], axis: str) -> float:
    """How far all runs of all arms go on an axis."""
    return float(min(getattr(r.points[-1], axis) for part in runs.values() for r in part))

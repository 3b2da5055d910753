"""What the benchmarks of rollouts print: where they are, and medians with intervals."""

import sys
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["interval", "print_table", "tell_round"]


def tell_round(wait: int, number: int, rounds: int) -> None:
    """Say on stderr that a round begins; the first one, number 0, is to warm up."""
    which = f"round {number} of {rounds}" if number else "warming up"
    print(f"tool {wait} ms: {which}", file=sys.stderr, flush=True)


def interval(values: Sequence[float]) -> list[float]:
    """Median and its 95 % bootstrap interval."""
    random = np.random.default_rng(0)
    drawn = np.median(random.choice(values, (2000, len(values))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [round(float(x), 3) for x in (np.median(values), low, high)]


def print_table(results: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> None:
    """Each tool's time, each way of working, each figure."""
    for tool, ways in results.items():
        for way, figures in ways.items():
            print(f"{tool}, {way}")
            for name, (median, low, high) in figures.items():
                print(f"  {name.replace('_', ' '):>34}  {median} [{low}, {high}]")

"""Sums, means and spreads over the tokens that count.

A mask is bool or a number, (B, T): 0 leaves a token out, 1 takes it, and a weight in between (the
ledger's loss weights) counts in `agg_loss` alone. What is at a place with mask 0 is never
looked at: NaN and infinity there give neither a value nor a gradient, since they are replaced
*before* anything is computed from them (0 * NaN afterwards would be NaN).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LOG_RATIO_LIMIT",
    "log_ratios",
    "masked",
    "masked_mean",
    "or_one",
    "precise",
    "to_ratio",
    "whiten",
]

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are cut to +-20 (as in verl), so that a ratio is never infinite; the gradient beyond
is 0."""


def precise(values: "Tensor") -> "Tensor":
    """Values in float32, or in float64 where they come so.

    A ratio of probabilities in bfloat16 is off by 1 %, and a count of tokens stops at 256.
    """
    exact = values.is_floating_point() and values.element_size() >= 4
    return values if exact else values.float()


def masked(values: "Tensor", mask: "Tensor") -> "Tensor":
    """The values where the mask is above 0, exact zeros elsewhere; at least float32."""
    return precise(values).masked_fill(~(mask > 0), 0.0)


def or_one(count: "Tensor") -> "Tensor":
    """A divisor: `count`, or 1 where it is 0 (and so is what it divides)."""
    return count.masked_fill(~(count > 0), 1)


def masked_mean(values: "Tensor", mask: "Tensor") -> "Tensor":
    """The mean over all tokens that count, a scalar; 0 if there are none."""
    return masked(values, mask).sum() / or_one((mask > 0).sum())


def log_ratios(log_prob: "Tensor", other: "Tensor", mask: "Tensor") -> "Tensor":
    """log(p / p_other) of each token, (B, T), 0 where the mask is."""
    return masked(precise(log_prob) - precise(other), mask)


def to_ratio(log_ratio: "Tensor") -> "Tensor":
    """The ratio of probabilities whose logarithm is given, cut at exp(+-20)."""
    return log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def whiten(values: "Tensor", mask: "Tensor", epsilon: float = 1e-8) -> "Tensor":
    """(values - mean) / sqrt(variance + epsilon) over all tokens that count; 0 elsewhere.

    The variance is the unbiased one. Values that are all equal give exact zeros: they are shifted
    by their smallest first, so that no rounding error is left to be blown up.
    """
    counts = mask > 0
    if not bool(counts.any()):
        return masked(values, mask)
    shifted = masked(precise(values) - precise(values)[counts].min(), mask)
    centred = masked(shifted - masked_mean(shifted, mask), mask)
    variance = centred.square().sum() / (counts.sum() - 1).clamp(min=1)
    return centred * (variance + epsilon).rsqrt()

"""DAPO: more room upwards, every token alike, and no groups that teach nothing."""

from typing import TYPE_CHECKING

import numpy as np

from .base import LossConfig, Objective
from .clipped import clipped_loss
from .groups import Groups, group_numbers
from .grpo import grpo_advantage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["DAPO", "informative"]


def informative(
    scores: "Sequence[float] | NDArray[np.floating]", index: Groups
) -> "NDArray[np.bool_]":
    """Which of B responses belong to a group whose scores differ: bool (B,).

    Dynamic sampling keeps a task iff 0 < number correct < G: where all are right or all are wrong
    every advantage is 0, and the batch is smaller than it seems. Drop the others and sample other
    tasks until the batch is full. `scores` should be what tells right from wrong (the accuracy, not
    a reward with a length penalty in it, under which no two are equal). A group of one is dropped.

    Source: DAPO, arXiv 2503.14476, section 3.2, equation 11. verl: `filter_groups`, the same, but
    groups of one are kept. TRL has no such filter.

    Example:
        >>> informative([1, 0, 1, 1], ["a", "a", "b", "b"]).tolist()
        [True, True, False, False]
    """
    values, group = np.asarray(scores, np.float64), np.array(group_numbers(index), np.intp)
    if values.shape != group.shape:
        raise ValueError(f"{values.shape} scores, but groups of {group.shape}")
    lowest, highest = np.full(len(group), np.inf), np.full(len(group), -np.inf)
    np.minimum.at(lowest, group, values)
    np.maximum.at(highest, group, values)
    differ: NDArray[np.bool_] = (lowest < highest)[group]
    return differ


DAPO = Objective(
    name="dapo",
    summary="GRPO's advantage, clip-higher (0.2, 0.28), mean over all tokens, dynamic sampling",
    paper="2503.14476",
    advantage=grpo_advantage,
    loss=clipped_loss,
    loss_agg_mode="token-mean",
    config=LossConfig(clip_ratio_low=0.2, clip_ratio_high=0.28),
    dynamic_sampling=True,
)
"""DAPO, equation 8: J = sum_i sum_t min(r A, clip(r, 1 - 0.2, 1 + 0.28) A) / sum_i L_i. The higher
upper bound lets unlikely tokens become likely, which keeps entropy up; the sum over all tokens lets
a long response weigh as much as it is long. The fourth part, the soft punishment of overlong
responses, is a reward. In the paper the mean is over each group's tokens; here and in verl it is
over those of the whole batch. verl: `vanilla` with these numbers and `filter_groups.enable`. When:
long chains of thought; what most tool-use recipes start from."""

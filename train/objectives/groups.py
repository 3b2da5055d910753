"""From rewards to one number a response, compared within its group (the attempts at one task)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .masked import precise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "GroupStatistics",
    "Groups",
    "group_numbers",
    "group_statistics",
    "outcome_rewards",
    "to_tokens",
    "token_returns",
]

Groups: TypeAlias = "Sequence[Any] | NDArray[np.generic] | Tensor"
"""Which group each of B responses belongs to: any names, in any order."""


class GroupStatistics(NamedTuple):
    """Scores within their groups, each (B,).

    `centred` is the score less its group's mean; `std` the group's standard deviation (divided by
    size - 1, as in verl and TRL); `size` its number of members. A group of one has nothing to be
    compared with: as in verl its mean counts as 0 and its deviation as 1.
    """

    centred: "Tensor"
    std: "Tensor"
    size: "Tensor"


def group_numbers(index: Groups) -> list[int]:
    """Groups numbered from 0 in the order they come."""
    names = index.tolist() if hasattr(index, "tolist") else index
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def token_returns(token_level_rewards: "Tensor") -> "Tensor":
    """The sum of each row's rewards, (B,), whichever tokens they are at.

    The response mask has no say here: a response that was cut after a tool's output has its reward
    at a token that the policy did not write. Raises ValueError where a reward is not a number.
    """
    scores = precise(token_level_rewards.detach()).sum(dim=-1)
    wrong = (~scores.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"rows {wrong} have a reward that is not finite: leave out episodes without a reward"
        )
    return scores


def group_statistics(scores: "Tensor", index: Groups) -> GroupStatistics:
    """Compare each of `scores` (B,) with its group; see `GroupStatistics`."""
    import torch

    numbers = group_numbers(index)
    if len(numbers) != len(scores):
        raise ValueError(f"{len(scores)} responses, but groups of {len(numbers)}")
    group = torch.tensor(numbers, dtype=torch.int64, device=scores.device)
    zeros = scores.new_zeros(max(numbers, default=-1) + 1)
    size = zeros.index_add(0, group, torch.ones_like(scores))[group]
    # Shifted by the group's smallest: equal scores are then exact zeros, and no rounding error is
    # left for a tiny deviation to blow up. Three rewards of 0.1 would otherwise get 0.007.
    smallest = zeros.scatter_reduce(0, group, scores, "amin", include_self=False)[group]
    shifted = scores - smallest
    centred = shifted - zeros.index_add(0, group, shifted)[group] / size
    variance = zeros.index_add(0, group, centred.square())[group] / (size - 1).clamp(min=1)
    alone = size == 1
    return GroupStatistics(
        torch.where(alone, scores, centred),
        torch.where(alone, torch.ones_like(scores), variance.sqrt()),
        size,
    )


def to_tokens(values: "Tensor", response_mask: "Tensor") -> "Tensor":
    """One number a response (B,) put at each of its tokens that count (B, T); 0 elsewhere."""
    rows = values.unsqueeze(-1).expand(response_mask.shape)
    return rows.masked_fill(~(response_mask > 0), 0.0)


def outcome_rewards(scores: "Tensor", response_mask: "Tensor") -> "Tensor":
    """One reward a response (B,) as token-level rewards (B, T): at its last token that counts.

    In a row without such a token it is at the end, so that the row still counts among its
    group: SimpleTIR filters a response from the loss, not from the baseline.
    """
    import torch

    length = response_mask.shape[-1]
    places = torch.arange(1, length + 1, device=response_mask.device)
    last = ((response_mask > 0) * places).amax(dim=-1) - 1
    last = torch.where(last < 0, length - 1, last)
    scores = precise(scores)
    rewards = scores.new_zeros(response_mask.shape)
    return rewards.scatter(-1, last.unsqueeze(-1), scores.unsqueeze(-1))

"""Episodes that are made of several rollouts, such as a team's: how each call becomes a row that
verl compares with those of its place.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from ...rollout.many.runner import Attempt, Open
from ...rollout.policy import Policy
from ...rollout.trajectory import Episode, StopReason, Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from ..objectives.base import AdvantageConfig, Advantages
    from ..objectives.groups import Groups

__all__ = [
    "ADVANTAGE",
    "SAMPLER",
    "row_name",
    "team_grpo_advantage",
    "within",
]

ADVANTAGE = "team_grpo"
"""`algorithm.adv_estimator` for teams."""
SAMPLER = ("pkg://interlace.train.verl.sampler", "TeamSampler")
"""`trainer.v1.sampler.custom_sampler`, its path and name: it gives rows their names."""
_MARK = "#"


def within(attempt: Attempt, seconds: float) -> Attempt:
    """The same attempt, ended with `StopReason.TIMEOUT` when its seconds are over."""

    async def timed(episode: Episode, policy: Policy, open: Open) -> None:
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                await attempt(episode, policy, open)
        except TimeoutError:
            if not timeout.expired():
                raise
            if not episode.trajectories:
                episode.trajectories.append(Trajectory(policy.engine.name, policy.format.name))
            for trajectory in episode.trajectories:
                if trajectory.stop in (None, StopReason.CANCELLED):
                    trajectory.stop = StopReason.TIMEOUT
            episode.trajectory.stop = StopReason.TIMEOUT

    return timed


def row_name(place: str, sample: int, number: int) -> str:
    """The name of a part among those of its task: its place, and whose it is. Its rows share it."""
    return f"{place}{_MARK}{sample}.{number}"


def team_grpo_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: "Groups",
    epsilon: float = 1e-6,
    config: "AdvantageConfig | None" = None,
    **_: Any,
) -> "Advantages":
    """GRPO among the parts of teams' episodes; `train/rewards/team_credit.py` says what a part is.

    `index` (B,) names each row: task, place, and the part. The rows of one part are one response,
    with one reward; it is compared with the parts of the same task and place, and each of its
    tokens has the advantage. A part with nothing to be compared with has 0, where GRPO would give
    it its bare reward. Without `norm_adv_by_std_in_grpo` in verl's `algorithm` it is Dr. GRPO's.

    Raises ValueError for rows without such names: our sampler gives them.
    """
    import torch

    from ..objectives.groups import group_statistics, to_tokens, token_returns

    names = [str(name) for name in index]
    unnamed = [name for name in names if _MARK not in name and not name.startswith("pad")]
    if unnamed:  # verl's padding has names of its own
        path, sampler = SAMPLER
        raise ValueError(
            f"algorithm.adv_estimator={ADVANTAGE} needs trainer.v1.sampler.custom_sampler.path="
            f"{path} and .name={sampler}: the row {unnamed[0]} has no place in a team"
        )
    first = {name: names.index(name) for name in dict.fromkeys(names)}
    places = [name.rpartition(_MARK)[0] or name for name in first]
    scores, std, size = group_statistics(
        token_returns(token_level_rewards)[list(first.values())], places
    )
    if getattr(config, "norm_adv_by_std_in_grpo", True):
        scores = scores / (std + epsilon)
    scores = torch.where(size == 1, torch.zeros_like(scores), scores)
    numbers = {name: number for number, name in enumerate(first)}
    advantages = to_tokens(scores[[numbers[name] for name in names]], response_mask)
    return advantages, advantages

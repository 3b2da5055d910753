"""Episodes that are made of several rollouts: how each call of a team, and each leaf of a tree,
becomes a row that verl compares with others.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from ...rollout.many.runner import Attempt, Open
from ...rollout.policy import Policy
from ...rollout.trajectory import Episode, StopReason, Trajectory
from ..objectives.groups import group_statistics, to_tokens, token_returns

if TYPE_CHECKING:
    from torch import Tensor

    from ..objectives.base import AdvantageConfig, Advantages
    from ..objectives.groups import Groups

__all__ = [
    "ADVANTAGE",
    "SAMPLER",
    "TREE_ADVANTAGE",
    "row_name",
    "team_grpo_advantage",
    "tree_grpo_advantage",
    "within",
]

ADVANTAGE = "team_grpo"
"""`algorithm.adv_estimator` for teams."""
TREE_ADVANTAGE = "tree_grpo"
"""The same for trees."""
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
    scores = _Scores(ADVANTAGE, token_level_rewards, index)
    places = [name.rpartition(_MARK)[0] or name for name in scores.parts]
    return scores.compare(places, config, epsilon).to_rows(response_mask)


def tree_grpo_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: "Groups",
    epsilon: float = 1e-6,
    config: "AdvantageConfig | None" = None,
    **_: Any,
) -> "Advantages":
    """GRPO among all leaves of a task, plus GRPO among those of a root (Tree-GRPO, arXiv
    2509.21240): the local trainer's `credit=leaves`, without the leaves' weights.

    `index` (B,) names each row: task, root, and the leaf, whose rows share it. A leaf that is alone
    has 0 in that comparison, where the released code gives it its bare reward. Without
    `norm_adv_by_std_in_grpo` the estimator is Dr. GRPO's. Raises ValueError as
    `team_grpo_advantage` does.
    """
    scores = _Scores(TREE_ADVANTAGE, token_level_rewards, index)
    pairs = [name.rpartition(_MARK) for name in scores.parts]  # uid#root, sample.leaf
    roots = [f"{head}{_MARK}{leaf.partition('.')[0]}" for head, _, leaf in pairs]
    tasks = [head.rpartition(_MARK)[0] or leaf for head, _, leaf in pairs]
    scores.compare(tasks, config, epsilon)
    return scores.compare(roots, config, epsilon).to_rows(response_mask)


class _Scores:
    """The scores of a batch's parts: rows of one name are one response, with one reward."""

    def __init__(self, estimator: str, token_level_rewards: "Tensor", index: "Groups") -> None:
        self._names = [str(name) for name in index]
        unnamed = [n for n in self._names if _MARK not in n and not n.startswith("pad")]
        if unnamed:  # verl's padding has names of its own
            path, sampler = SAMPLER
            raise ValueError(
                f"algorithm.adv_estimator={estimator} needs trainer.v1.sampler.custom_sampler.path="
                f"{path} and .name={sampler}: the row {unnamed[0]} has no place among others"
            )
        self.parts = list(dict.fromkeys(self._names))
        first = [self._names.index(name) for name in self.parts]
        self._rewards = token_returns(token_level_rewards)[first]
        self._scores = self._rewards.new_zeros(len(first))

    def compare(
        self, places: list[str], config: "AdvantageConfig | None", epsilon: float
    ) -> "_Scores":
        """Add how each part compares with those of its place; 0 for one that is alone there."""
        scores, std, size = group_statistics(self._rewards, places)
        if getattr(config, "norm_adv_by_std_in_grpo", True):
            scores = scores / (std + epsilon)
        self._scores += scores.masked_fill(size == 1, 0.0)
        return self

    def to_rows(self, response_mask: "Tensor") -> "Advantages":
        """Each part's score at the tokens of its rows."""
        numbers = {name: number for number, name in enumerate(self.parts)}
        rows = self._scores[[numbers[name] for name in self._names]]
        advantages = to_tokens(rows, response_mask)
        return advantages, advantages

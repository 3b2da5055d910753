"""Rewards for the members of a team, in addition to the reward for the team's answer."""

from ...rollout.task import Task
from ...rollout.trajectory import Episode
from .base import RewardFunction
from .checker import Checker

__all__ = ["judged_rightly", "token_cost"]


def judged_rightly(checker: Checker) -> RewardFunction:
    """The share of a critic's votes, or an evaluator's verdicts, that are right about the plan.

    An abstention, and what could not be read, is not right.
    """

    def judge(episode: Episode, task: Task) -> float:
        right = told = 0
        for trajectory in episode.trajectories:
            team = trajectory.team
            if team is None or team.speaker.role not in ("critic", "evaluator"):
                continue
            read = team.read
            said = read.get("agrees" if team.speaker.role == "critic" else "correct")
            told += 1
            right += said is not None and said == checker.right(task, read["answer"])
        return right / told if told else 0.0

    return judge


def token_cost(price: float) -> RewardFunction:
    """The cost of an episode's tokens, from 0 down: `price` for each 1000 sampled ones."""

    def cost(episode: Episode, task: Task) -> float:
        sampled = sum(trajectory.sampled_tokens for trajectory in episode.trajectories)
        return -price * sampled / 1000

    return cost

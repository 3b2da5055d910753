"""A team of two in a row, and a credit that says which of their trajectories are compared."""

from interlace.rollout.many.runner import Open
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import Episode, Speaker, TeamCall

__all__ = ["last_turn", "relay"]


async def relay(episode: Episode, policy: Policy, open: Open) -> None:
    """One answers; another one is told the answer and answers again, which counts."""
    question = episode.task.question
    for turn, role in enumerate(("first", "second")):
        seed = None if episode.seed is None else episode.seed + turn
        async with open(policy, name=f"{episode.id}.{role}", seed=seed) as rollout:
            episode.trajectories.append(rollout.trajectory)
            rollout.trajectory.team = TeamCall(Speaker(role, role, round=0, turn=turn))
            await rollout.ask(question)
        if episode.answer is not None:
            question = f"{question} (Somebody said {episode.answer}.)"


def last_turn(speaker: Speaker) -> str:
    """The place of a trajectory: the last word is compared with last words, all else with all."""
    return "last" if speaker.role == "second" else "earlier"

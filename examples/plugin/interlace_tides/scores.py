"""A reward, and a check of answers."""

from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode

__all__ = ["brief", "near"]


def brief(episode: Episode, task: Task, *, tokens: int = 100) -> float:
    """1 for an answer within so many tokens of the model's, falling to 0 at twice as many."""
    if episode.answer is None:
        return 0.0
    return min(1.0, max(0.0, 2 - episode.trajectory.sampled_tokens / tokens))


def near(task: Task, a: str, b: str, *, within: float = 0.1) -> bool:
    """True if two answers are numbers (a unit may follow) that are this close."""
    try:
        return abs(float(a.split()[0]) - float(b.split()[0])) <= within + 1e-9
    except (ValueError, IndexError):
        return False

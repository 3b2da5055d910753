"""Signals from how an episode went, whatever its answer: length, tool errors, void turns."""

from ...rollout.task import Task
from ...rollout.trajectory import Episode, Trajectory, Turn
from ...tools import ErrorKind
from .base import RewardFunction

__all__ = ["calls", "forged", "is_void", "overlong", "tool_errors", "void_turns"]

_OURS = (ErrorKind.UNAVAILABLE, ErrorKind.REFUSED, ErrorKind.INTERRUPTED)
"""Not the policy's mistakes: the tool was down, a budget was spent, or the time was up."""


def overlong(most: int, buffer: int) -> RewardFunction:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), from 0 to -1.

    With L tokens sampled: 0 up to `most - buffer`, falling to -1 at `most`, -1 beyond. L counts
    what the policy sampled in all its trajectories: the length of a tool's output is not its doing.

    Example:
        >>> from ...rollout.task import Task
        >>> from ...rollout.trajectory import FinishReason
        >>> turn = Turn(0, 0, 18432, FinishReason.EOS)
        >>> task = Task("a", "?")
        >>> episode = Episode("a/0", task, "a", 0, [Trajectory("m", "retool", turns=[turn])])
        >>> overlong(20480, 4096)(episode, task)
        -0.5
    """
    if not 0 < buffer <= most:
        raise ValueError(f"the buffer must be from 1 to {most} tokens, not {buffer!r}")

    def punish(episode: Episode, task: Task) -> float:
        length = sum(trajectory.sampled_tokens for trajectory in episode.trajectories)
        return -min(1.0, max(0.0, (length - (most - buffer)) / buffer))

    return punish


def tool_errors(episode: Episode, task: Task) -> float:
    """The share of the calls that were run and failed by the policy's doing, 0 without calls."""
    run = [call for each in episode.trajectories for call in each.calls if call.error not in _OURS]
    return sum(call.error is not None for call in run) / len(run) if run else 0.0


def calls(episode: Episode, task: Task) -> float:
    """The number of calls that could be read."""
    read = [call for each in episode.trajectories for call in each.calls]
    return float(sum(call.arguments is not None for call in read))


def void_turns(episode: Episode, task: Task) -> float:
    """The number of void turns (SimpleTIR, arXiv 2509.02479): see `is_void`."""
    return float(sum(is_void(each, turn) for each in episode.trajectories for turn in each.turns))


def is_void(trajectory: Trajectory, turn: Turn) -> bool:
    """True if the policy ended a turn with neither a readable call nor the answer."""
    if any(call.arguments is not None for call in turn.calls):
        return False
    return turn is not trajectory.turns[-1] or trajectory.answer is None


def forged(episode: Episode, task: Task) -> float:
    """1 where the policy wrote tool output itself in any turn, else 0."""
    return float(any(turn.forged for each in episode.trajectories for turn in each.turns))

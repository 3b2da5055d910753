"""SimpleTIR's filter: what is trained on holds no turn in which nothing was done."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...rollout.trajectory import FinishReason, StopReason, Trajectory

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["keep_mask", "void_turns"]


def void_turns(trajectory: Trajectory) -> list[int]:
    """The turns, by index, in which the policy neither made a call that could be read nor answered.

    Such are: thinking without end until the tokens are used up, an end without an answer, a call
    that is broken. A call that could be read but failed, was refused, or ran into an error is a
    call. A turn that we broke off (time, a cancel, a failure of ours), or for which there was no
    token left, is not the policy's doing. Of a trajectory of several questions, where only the last
    answer is on record, the turns that answered the earlier ones count as void: for training there
    is one question.
    """
    answered = trajectory.stop is StopReason.ANSWERED
    last = len(trajectory.turns) - 1
    return [
        number
        for number, turn in enumerate(trajectory.turns)
        if not any(call.arguments is not None for call in turn.calls)
        and not (answered and number == last)
        and turn.finish is not FinishReason.CANCELLED
        and turn.stop > turn.start
    ]


def keep_mask(trajectories: Sequence[Trajectory]) -> "NDArray[np.bool_]":
    """Which trajectories have no void turn, bool (B,): multiply the response mask with it.

        m_it := m_it * 1[no turn of trajectory i is void]

    A tool's output is not what the model expects, and the turns after it drift into unlikely
    tokens; void turns are where that shows, and their gradients are what blows a run up. The
    filtered trajectory gives no gradient but still counts in its group's mean, so compute the
    advantages from all.

    Source: SimpleTIR, arXiv 2509.02479, section 3 (with A = R - mean, clip 0.2/0.28). verl, TRL:
    none. When: several turns, from a base model or without a cold start.
    """
    return np.array([not void_turns(trajectory) for trajectory in trajectories], np.bool_)

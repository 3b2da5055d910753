"""A reward: named parts, each a function of an episode and its task, put together with weights."""

import ctypes
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from ...rollout.ledger import Source
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode, StopReason, Trajectory, Turn
from ...tools import ErrorKind

__all__ = [
    "TOTAL",
    "RewardFunction",
    "RewardPart",
    "Rewards",
    "Score",
    "Unscored",
    "policy_text",
    "why_unscored",
]

RewardFunction: TypeAlias = Callable[[Episode, Task], float]

TOTAL = "total"
"""The name under which `Episode.rewards` holds the weighted sum."""
_THREADS = min(4, os.cpu_count() or 1)


class Unscored(Exception):
    """No reward can be given, through no fault of the policy: the message says why."""


@dataclass(frozen=True, slots=True)
class RewardPart:
    """One part of a reward. Weight 0 makes it a signal: logged, and no part of the sum.

    `seconds` is the wall time after which the episode goes without a reward. What a policy wrote
    must not be able to use it up: a part that reads expressions or queries has a limit of its own,
    below this one, at which they count as wrong.
    """

    name: str
    function: RewardFunction
    weight: float = 1.0
    seconds: float = 600.0

    def __post_init__(self) -> None:
        """Refuse what can't be added up or told apart."""
        if not self.name or self.name == TOTAL:
            raise ValueError(f"a part needs a name, and not {TOTAL!r}: got {self.name!r}")
        if not math.isfinite(self.weight):
            raise ValueError(f"the weight of {self.name!r} must be finite, not {self.weight!r}")
        if self.seconds <= 0:
            raise ValueError(f"the limit of {self.name!r} must be above 0, not {self.seconds!r}")


@dataclass(frozen=True, slots=True)
class Score:
    """An episode's score: each part before its weight, and their weighted sum.

    If no reward can be given, `total` is None, `parts` is empty and `problem` says why: such an
    episode is to be left out of its group. It is never the same as a reward of 0.
    """

    total: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def rewards(self) -> dict[str, float]:
        """The values for `Episode.rewards`: the parts and the sum, or none without a total."""
        return {} if self.total is None else {**self.parts, TOTAL: self.total}


class Rewards:
    """The parts of a reward, put together.

    Example:
        >>> def brief(episode: Episode, task: Task) -> float:
        ...     return float(episode.trajectory.sampled_tokens <= 200)
        >>> rewards = Rewards(RewardPart("brief", brief, weight=0.1))
        >>> rewards.score(Episode("a/0", Task("a", "1 + 1?"), "a", 0)).problem
        'there is no trajectory'
    """

    def __init__(self, *parts: RewardPart) -> None:
        names = [part.name for part in parts]
        if not parts or len(set(names)) < len(names):
            raise ValueError(f"a reward has one or more parts with names of their own, not {names}")
        self.parts = parts

    def score(self, episode: Episode) -> Score:
        """The episode's score; nothing is written.

        Raises ValueError where a part is not a finite number, and whatever a part raises of its
        own: both are bugs of the part.
        """
        if why := why_unscored(episode):
            return Score(None, problem=why)
        values: dict[str, float] = {}
        for part in self.parts:
            try:
                value = _within(part, episode)
            except Unscored as error:
                return Score(None, problem=f"{part.name}: {error}")
            if not math.isfinite(value):
                raise ValueError(f"the reward {part.name!r} of {episode.id} is {value!r}")
            values[part.name] = value
        total = math.fsum(part.weight * values[part.name] for part in self.parts)
        return Score(total, values)

    def score_all(self, episodes: Sequence[Episode], *, threads: int = _THREADS) -> list[Score]:
        """Score many episodes and set their `rewards`, to {} where no reward can be given."""
        with ThreadPoolExecutor(threads) as pool:
            scores = list(pool.map(self.score, episodes))
        for episode, score in zip(episodes, scores, strict=True):
            episode.rewards = score.rewards
        return scores


def why_unscored(episode: Episode) -> str | None:
    """Why no reward can be given to an episode; None where one can.

    What failed on our side, or was stopped by us, says nothing about the policy.
    """
    if not episode.trajectories:
        return "there is no trajectory"
    for trajectory in episode.trajectories:
        if trajectory.stop in (None, StopReason.CANCELLED):
            return "it was stopped before its end"
        if trajectory.stop is StopReason.INFRASTRUCTURE or any(
            call.error is ErrorKind.UNAVAILABLE for call in trajectory.calls
        ):
            return episode.error or "something of ours failed"
    return None


def policy_text(trajectory: Trajectory, turn: Turn, tokenizer: Tokenizer) -> str:
    """The text that the policy itself wrote in a turn: the ledger says which tokens are its own.

    A token of a tool or the host is never part of it, whatever range a record claims for the turn.
    """
    ids: list[int] = []
    position = 0
    for span in trajectory.ledgers[turn.ledger]:
        start, stop = max(turn.start - position, 0), turn.stop - position
        position += len(span)
        if span.source is Source.POLICY and stop > start:
            ids += span.ids[start:stop].tolist()
    return tokenizer.decode([id for id in ids if id not in tokenizer.eos_ids])


# -- a time limit --------------------------------------------------------------------------------


class _Overrun(BaseException):
    """Thrown into a part that has used up its time."""


def _within(part: RewardPart, episode: Episode) -> float:
    """The part's value, or `Unscored` after its seconds.

    It runs in a thread of its own (signals would bind it to the main one), which an exception
    stops at its next line of Python.
    """
    results: list[float] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(float(part.function(episode, episode.task)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name=f"reward {part.name}", daemon=True)
    thread.start()
    thread.join(part.seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Overrun)
        )
        raise Unscored(f"not done after {part.seconds:g} s")
    if errors:
        raise errors[0]
    return results[0]

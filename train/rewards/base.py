"""A reward: named parts, each a function of an episode and its task, put together with weights."""

import inspect
import logging
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from ...rollout.ledger import Source
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode, StopReason, Trajectory, Turn
from ...tools import ErrorKind
from ...tools.errors import InterlaceError, UsageError
from ...tools.importing import Found

__all__ = [
    "TOTAL",
    "RewardFunction",
    "RewardPart",
    "Rewards",
    "Score",
    "Unscored",
    "bound",
    "policy_text",
    "user_function",
    "why_unscored",
]

T = TypeVar("T")
RewardFunction: TypeAlias = Callable[[Episode, Task], float]

TOTAL = "total"
"""The name under which `Episode.rewards` holds the weighted sum."""
_THREADS = min(4, os.cpu_count() or 1)
_MOST_ABANDONED = 8
"""Calls of a reward's parts that may run on past their time, before the next one is an error."""
_log = logging.getLogger(__name__)


class Unscored(Exception):
    """No reward can be given, through no fault of the policy: the message says why."""


@dataclass(frozen=True, slots=True)
class RewardPart:
    """One part of a reward. Weight 0 makes it a signal: logged, and no part of the sum.

    `seconds` is the wall time after which the episode goes without a reward; the call itself can't
    be stopped and runs on in its thread. What a policy wrote must not be able to use it up: a part
    that reads expressions or queries has its own limit, below this one, at which they count
    as wrong.
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
        self._abandoned: list[threading.Thread] = []
        self._lock = threading.Lock()

    def score(self, episode: Episode) -> Score:
        """The episode's score; the episode is not changed.

        Raises ValueError if a part returns no finite number, UsageError if too many calls of parts
        that have timed out are still running, and whatever a part raises: all are bugs in the part.
        """
        if why := why_unscored(episode):
            return Score(None, problem=why)
        values: dict[str, float] = {}
        for part in self.parts:
            try:
                value = self._within(part, episode)
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

    def _within(self, part: RewardPart, episode: Episode) -> float:
        """The part's value, or `Unscored` after its seconds.

        A part is arbitrary code of this process: it may hold a model, a lock or a connection, so
        it can neither move to another process nor be stopped safely. It runs in a daemon thread,
        which is abandoned when its time is over; how many may be, is bounded.
        """
        results: list[float] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(float(part.function(episode, episode.task)))
            except BaseException as error:
                errors.append(error)

        with self._lock:
            self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
            if len(self._abandoned) >= _MOST_ABANDONED:
                raise UsageError(
                    f"{len(self._abandoned)} calls of rewards still run past their time, the last "
                    f"of them {self._abandoned[-1].name!r}: bound the work inside that function"
                )
        thread = threading.Thread(target=work, name=part.name, daemon=True)
        thread.start()
        thread.join(part.seconds)
        if thread.is_alive():
            with self._lock:
                self._abandoned.append(thread)
            _log.warning(
                "the reward %r of %s is not done after %g s: it gets none, and its thread runs on",
                part.name,
                episode.id,
                part.seconds,
            )
            raise Unscored(f"not done after {part.seconds:g} s")
        if errors:
            raise errors[0]
        return results[0]


def why_unscored(episode: Episode) -> str | None:
    """Why no reward can be given to an episode; None where one can.

    What failed on our side, or was stopped by us, says nothing about the policy. Leaves that a
    search gave up before it chose another one are part of how it answers.
    """
    if not episode.trajectories:
        return "there is no trajectory"
    last = episode.trajectory
    for trajectory in episode.trajectories:
        given_up = last.strategy is not None and trajectory is not last and trajectory.branch
        if trajectory.stop in (None, StopReason.CANCELLED) and not given_up:
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


def bound(kind: str, found: Found) -> Any:
    """The thing of a name with the parameters that the name has. Raises UsageError if it can't take
    them, or the name says what it is to work on.
    """
    if found.source or (found.configured and not callable(found.value)):
        raise UsageError(
            f"the {kind} {found.name.head}:{found.name.source} takes no "
            + ("parameters" if not found.source else f"{found.source!r} after a colon")
        )
    return found.bind(found.value)


def user_function(kind: str, name: str, function: Callable[..., T], takes: str) -> Callable[..., T]:
    """A user's function as a part of ours: it is seen to take these arguments, and what it raises
    says whose it is.

    `takes` is its signature for a person, such as "(episode, task)". Raises UsageError for what
    can't be called so; the function itself then raises UsageError instead of its own exceptions,
    but for `Unscored`.
    """
    try:
        signature = inspect.signature(function)
        signature.bind(*range(takes.count(",") + 1))
    except TypeError as error:  # it is no function, or one of something else
        raise UsageError(f"the {kind} {name} must be a function of {takes}: {error}") from error
    except ValueError:  # of a function in C nothing is known
        pass
    if inspect.iscoroutinefunction(function):
        raise UsageError(f"the {kind} {name} must be a plain function of {takes}, not an async one")

    def call(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except (InterlaceError, Unscored):
            raise
        except Exception as error:  # boundary: somebody's code
            raise UsageError(
                f"the {kind} {name} failed: {type(error).__name__}: {error}"
            ) from error

    return call

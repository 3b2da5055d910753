"""Credit within a team: its episodes taken apart, for any estimator that compares groups.

An advantage compares what was done with what others did in the same place. A team's episode is many
trajectories, and what counts as the same place is a choice:

    team   the episode is one response: all its tokens have the team's reward, compared with the
           task's other episodes
    role   the trajectories of one role are a response, compared with that role's in the others
    turn   each trajectory is a response, compared with those of its role in its round and turn
           (agent- and turn-wise grouping, AT-GRPO, arXiv 2510.11062)

With `rewards` for a role, its parts are rewarded for themselves instead of with the team's total.
A tree's leaves have credits of their own: `tree_credit.py`.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from ...rollout.trajectory import Episode, Speaker, Trajectory
from ...tools.errors import UsageError
from ...tools.importing import find
from .base import TOTAL, Rewards, bound, user_function
from .tree_credit import TREE_CREDITS

_log = logging.getLogger(__name__)

__all__ = ["CREDITS", "Credit", "Parts", "Place", "find_credit", "find_parts", "find_place"]

Credit: TypeAlias = Callable[[Sequence[Episode]], list[list[Episode]]]
"""From the rewarded episodes of a task to groups of parts, each with its trajectories and reward.
Parts with nothing to be compared with are left out."""

Parts: TypeAlias = Callable[[Episode], list[tuple[str, Episode]]]
"""From a rewarded episode to its parts, each with its place: the same credit, where the other
episodes of the task are not at hand."""


Place: TypeAlias = Callable[[Speaker], str]
"""The place of a trajectory, by who spoke in it and when."""

CREDITS: dict[str, Place] = {
    "team": lambda speaker: "team",
    "role": lambda speaker: speaker.role,
    "turn": lambda speaker: f"{speaker.round}.{speaker.role}.{speaker.turn}",
}


def find_place(given: str | Place, *, trusted: bool = True, folder: Path | None = None) -> Place:
    """The credit of that name, by the grammar of `tools/importing.py`, or the one given.

    `turn`; of your own `my_credit:by_expert` or `my_credit.py:by_expert`, a `Place`: trajectories
    of one place in an episode are a part together. Raises UsageError for any other.
    """
    if not isinstance(given, str):
        return _place(getattr(given, "__name__", "function"), given)
    if given in TREE_CREDITS:
        raise UsageError(f"credit={given} is for trees, and a team's episodes are none")
    found = find("credit", given, CREDITS | TREE_CREDITS, trusted=trusted, folder=folder)
    place = bound("credit", found)
    return place if found.own else _place(given, place)


def _place(name: str, given: Place) -> Place:
    place = user_function("credit", name, given, "(speaker)")
    return lambda speaker: str(place(speaker))


def find_credit(
    given: str | Place,
    *,
    rewards: Mapping[str, Rewards] | None = None,
    learns: Collection[str] | None = None,
) -> Credit:
    """The credit of that name (of trees as well), or by that place. `rewards` are those of roles,
    `learns` the roles that are trained (None: all); the others are frozen. Raises UsageError as
    `find_place` does.

    Example:
        setup.credit = find_credit("role", rewards={"critic": Rewards(RewardPart("vote", right))})
    """
    named = {*(rewards or ()), *(learns or ())}
    if isinstance(given, str) and given in TREE_CREDITS:
        if named:
            raise UsageError(f"credit={given} is for trees: learns and rewards are a team's")
        return TREE_CREDITS[given]
    return partial(_compare, find_parts(given, rewards=rewards, learns=learns), named)


def find_parts(
    given: str | Place,
    *,
    rewards: Mapping[str, Rewards] | None = None,
    learns: Collection[str] | None = None,
) -> Parts:
    """How that credit takes one episode apart. Raises UsageError as `find_place` does, and where
    no role is to learn.
    """
    if learns is not None and not learns:
        raise UsageError(
            "learns names the roles that are trained, such as ['solver'], or is left out"
        )
    place = find_place(given)
    return partial(_split, place, place is CREDITS["turn"], dict(rewards or {}), learns)


def _compare(parts: Parts, named: set[str], group: Sequence[Episode]) -> list[list[Episode]]:
    # A team of one's own has its own roles, so that only an episode shows a name misspelt: the
    # first group is looked at, once.
    roles = {trajectory.speaker.role for episode in group for trajectory in episode.trajectories}
    if absent := sorted(named - roles):
        _log.warning(
            "learns or rewards names %s: nobody in the first task's episodes has this role (%s)",
            ", ".join(map(repr, absent)),
            ", ".join(sorted(roles)),
        )
    named.clear()
    found: defaultdict[str, list[Episode]] = defaultdict(list)
    for episode in group:
        for place, part in parts(episode):
            found[place].append(part)
    return [parts for parts in found.values() if len(parts) > 1]


def _split(
    place: Place,
    apart: bool,
    rewards: Mapping[str, Rewards],
    learns: Collection[str] | None,
    episode: Episode,
) -> list[tuple[str, Episode]]:
    """`apart`: each trajectory is its own part, else those of one place together."""
    places: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in episode.trajectories:
        if learns is None or trajectory.speaker.role in learns:
            places[place(trajectory.speaker)].append(trajectory)
    found = []
    for name, trajectories in places.items():
        # A try that could not be read has no loss, so it is no part by itself.
        lasting = [
            t for t in trajectories if any(ledger.loss_weights.any() for ledger in t.ledgers)
        ]
        for each in [[t] for t in lasting] if apart else [trajectories]:
            part = _part(episode, name, each, rewards)
            if part is not None:
                found.append((name, part))
    return found


def _part(
    episode: Episode, name: str, trajectories: list[Trajectory], rewards: Mapping[str, Rewards]
) -> Episode | None:
    """A part of an episode as one of its own; None where it can't be rewarded."""
    part = replace(
        episode,
        id=f"{episode.id}#{name}",
        group=f"{episode.group}#{name}",
        trajectories=trajectories,
        rewards={TOTAL: episode.rewards[TOTAL]},
    )
    own = rewards.get(trajectories[-1].speaker.role) if name != "team" else None
    if own is not None:
        part.rewards = own.score(part).rewards
    return part if part.rewards else None

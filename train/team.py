"""Parts of a team that a configuration names: what makes its episodes, its roles' own rewards.

A team lives above this floor, so that it is named: `attempt: my_team:attempt`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..rollout.many.runner import Attempt
from ..tools.errors import InterlaceError, UsageError
from ..tools.importing import find
from .rewards import Checker, Rewards
from .rewards.base import bound

__all__ = ["RoleRewards", "find_attempt", "find_role_rewards"]

RoleRewards = Callable[[Checker], Mapping[str, Rewards]]
"""From a run's checker to the rewards of single roles, by role."""


def find_attempt(
    given: str | Attempt, *, trusted: bool = True, folder: Path | None = None
) -> Attempt:
    """The function of that name that makes an episode, or the one given.

    A name is `my_team:attempt`, `my_team.py:attempt`, or that of an installed plug-in. Raises
    UsageError if it is missing.
    """
    made = given
    if isinstance(given, str):
        found = find("attempt", given, {}, trusted=trusted, folder=folder)
        made = bound("attempt", found)
    if not callable(made):
        raise UsageError(
            f"the attempt {given!r} must be a function: see Training a team in docs/team.md"
        )
    return made


def find_role_rewards(
    given: str | RoleRewards | None,
    checker: Checker,
    *,
    trusted: bool = True,
    folder: Path | None = None,
) -> Mapping[str, Rewards]:
    """The rewards of single roles: what the function of that name, or the one given, makes of a
    checker; none if nothing is given. Raises UsageError if it is missing or makes something else.
    """
    if given is None:
        return {}
    make = given
    if isinstance(given, str):
        found = find("rewards", given, {}, trusted=trusted, folder=folder)
        make = bound("rewards", found)
    try:
        made = make(checker)  # type: ignore[operator]  # what can't be called is told below
    except InterlaceError:
        raise
    except Exception as error:  # boundary: somebody's code
        raise UsageError(
            f"rewards={given} must be a function of a checker: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, Mapping) or not all(isinstance(r, Rewards) for r in made.values()):
        raise UsageError(f"rewards={given} must make a dict of roles and their Rewards: {made!r}")
    return made

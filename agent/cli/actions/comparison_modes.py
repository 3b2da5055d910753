"""`interlace eval --compare single,vote@k,team`: the same tasks, answered in several modes."""

import re
from collections.abc import Mapping, Sequence

from ....tools.errors import UsageError

__all__ = ["in_order", "read_modes", "strategy_of"]

_MODE = re.compile(r"single|team|(vote|best|twice)@([1-9][0-9]{0,3}|k)")


def read_modes(text: str | None) -> list[str] | None:
    """Parse `single,vote@k,team`; return None if the text is something else, such as a run's path.

    Raises UsageError for a list that can't be compared.

    Example:
        >>> read_modes("single,vote@k,team"), read_modes("runs/before")
        (['single', 'vote@k', 'team'], None)
    """
    modes = [] if text is None else text.split(",")
    known = [bool(_MODE.fullmatch(mode)) for mode in modes]
    if not any(known) or (len(modes) == 1 and not known[0]):
        return None
    if not all(known) or len(set(modes)) < len(modes) or len(modes) < 2:
        raise UsageError(
            f"{text!r} can't be compared: name two or more of single, vote@8, vote@k "
            "(as many as cost what the team costs), best@4, twice@2 and team"
        )
    if any(mode.endswith("@k") for mode in modes) and not {"single", "team"} <= set(modes):
        raise UsageError("the k of @k follows from single and team: name both")
    return modes


def in_order(modes: Sequence[str]) -> list[str]:
    """The modes in the order in which they can be measured: those last whose k is not known yet.

    Example:
        >>> in_order(["vote@k", "team", "single"])
        ['team', 'single', 'vote@k']
    """
    return sorted(modes, key=lambda mode: mode.endswith("@k"))


def strategy_of(mode: str, tokens: Mapping[str, float]) -> str | None:
    """The strategy of a mode, or None for single and team.

    `tokens` are those sampled for an answer: k is how many single attempts cost what the team does.

    Example:
        >>> strategy_of("vote@k", {"single": 100.0, "team": 730.0})
        'vote@7'
    """
    if "@" not in mode:
        return None
    if not mode.endswith("@k"):
        return mode
    k = round(tokens["team"] / tokens["single"]) if tokens["single"] else 1
    return f"{mode[:-1]}{min(9999, max(1, k))}"

"""`interlace eval --compare single,vote@k,team`: the same tasks, answered in several ways."""

import re
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from ....tools.errors import UsageError
from ....train.evaluation.evaluate import Evaluation

__all__ = ["in_order", "print_arms", "read_arms", "strategy_of"]

_ARM = re.compile(r"single|team|(vote|best|twice)@([1-9][0-9]{0,3}|k)")


def read_arms(text: str | None) -> list[str] | None:
    """The ways that are named; None where it is no list of them (the path of a run, say).

    Raises UsageError for a list that makes no sense.

    Example:
        >>> read_arms("single,vote@k,team"), read_arms("runs/before")
        (['single', 'vote@k', 'team'], None)
    """
    arms = [] if text is None else text.split(",")
    known = [bool(_ARM.fullmatch(arm)) for arm in arms]
    if not any(known) or (len(arms) == 1 and not known[0]):
        return None
    if not all(known) or len(set(arms)) < len(arms) or len(arms) < 2:
        raise UsageError(
            f"{text!r} does not say what to compare: name two or more of single, vote@8, vote@k "
            "(as many as cost what the team costs), best@4, twice@2 and team"
        )
    if any(arm.endswith("@k") for arm in arms) and not {"single", "team"} <= set(arms):
        raise UsageError("how many @k stands for follows from single and team: compare with both")
    return arms


def in_order(arms: Sequence[str]) -> list[str]:
    """The arms in the order in which they can be measured: those last whose k is not known yet.

    Example:
        >>> in_order(["vote@k", "team", "single"])
        ['team', 'single', 'vote@k']
    """
    return sorted(arms, key=lambda arm: arm.endswith("@k"))


def strategy_of(arm: str, tokens: Mapping[str, float]) -> str | None:
    """The strategy that an arm stands for; None for single and team.

    `tokens` are those sampled for an answer: k is how many single attempts cost what the team does.

    Example:
        >>> strategy_of("vote@k", {"single": 100.0, "team": 730.0})
        'vote@7'
    """
    if "@" not in arm:
        return None
    if not arm.endswith("@k"):
        return arm
    k = round(tokens["team"] / tokens["single"]) if tokens["single"] else 1
    return f"{arm[:-1]}{min(9999, max(1, k))}"


def print_arms(console: Console, arms: Mapping[str, Evaluation]) -> None:
    """A row for each arm: accuracy with its interval, and what an answer costs."""
    table = Table(title="side by side", title_justify="left", box=None, header_style="bold")
    table.add_column("")
    for name in ("accuracy", "95 % interval", "tokens", "turns", "calls", "seconds"):
        table.add_column(name, justify="right")
    for arm, evaluation in arms.items():
        right = evaluation.accuracy
        means = (evaluation.mean(name).value for name in ("tokens", "turns", "calls", "seconds"))
        table.add_row(
            arm,
            f"{right.value:.1%}",
            f"{right.low:.1%} to {right.high:.1%}",
            *(f"{mean:.1f}" for mean in means),
        )
    console.print(table)

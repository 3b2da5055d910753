"""Figures of trees: what was sampled, computed and shared, and what the leaves are worth."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from ..task import equal_answers
from ..trajectory import Episode, Trajectory

__all__ = ["design_effect", "tree_figures"]


def tree_figures(leaves: Sequence[Trajectory]) -> dict[str, Any]:
    """Counts of the leaves of one tree.

    `sampled` and `prefilled` are tokens, `calls` those that were run; `shared` and `shared_calls`
    are how many more of them the leaves would have, each alone. `replayed` calls were run again
    because a tool's session could not be copied, `changed` of them with another result.
    """
    branches = [leaf.branch for leaf in leaves if leaf.branch is not None]
    whole = sum(len(ledger) for leaf in leaves for ledger in leaf.ledgers)
    calls = sum(len(turn.calls) for leaf in leaves for turn in leaf.own_turns)
    return {
        "leaves": len(leaves),
        "roots": sum(branch.parent is None for branch in branches),
        "sampled": sum(leaf.sampled_tokens for leaf in leaves),
        "prefilled": sum(turn.prefilled for leaf in leaves for turn in leaf.own_turns),
        "shared": whole - sum(len(span) for leaf in leaves for span in leaf.own_spans),
        "calls": calls,
        "shared_calls": sum(len(leaf.calls) for leaf in leaves) - calls,
        "replayed": sum(branch.replayed for branch in branches),
        "changed": sum(branch.changed for branch in branches),
    }


def design_effect(episodes: Iterable[Episode]) -> float | None:
    """How many leaves of these trees are worth one independent attempt in a vote: the factor by
    which the variance of an answer's share is larger.

    1 + (m - 1) r (Kish 1965). m is the mean number of leaves of a root, each root weighed by that
    number; r is how much more often two leaves of one root give the same answer than two of
    different roots, as a share of what is possible. None where no tree has leaves of several roots,
    and several of one.
    """
    pairs, agree = {True: 0, False: 0}, {True: 0, False: 0}
    sizes: list[int] = []
    for episode in episodes:
        roots = _roots(episode.trajectories)
        if len(set(roots)) < 2:
            continue
        sizes += [roots.count(root) for root in set(roots)]
        answers = [leaf.answer for leaf in episode.trajectories]
        for a, b in combinations(range(len(roots)), 2):
            same = roots[a] == roots[b]
            pairs[same] += 1
            agree[same] += _equal(answers[a], answers[b])
    if not pairs[True] or not pairs[False] or agree[False] == pairs[False]:
        return None
    between = agree[False] / pairs[False]
    correlation = (agree[True] / pairs[True] - between) / (1 - between)
    mean = sum(size * size for size in sizes) / sum(sizes)
    return max(1.0, 1 + (mean - 1) * correlation)


def _equal(a: str | None, b: str | None) -> bool:
    return a == b if a is None or b is None else equal_answers(a, b)


def _roots(leaves: Sequence[Trajectory]) -> list[str]:
    """The name of each leaf's root."""
    parents = {leaf.branch.name: leaf.branch.parent for leaf in leaves if leaf.branch is not None}
    roots = []
    for name in parents:
        while (parent := parents.get(name)) is not None:
            name = parent
        roots.append(name)
    return roots

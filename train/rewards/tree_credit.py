"""Credit on trees: what their leaves have in common, and what is compared with what.

A leaf of a tree (`Branch`) is an attempt with a reward of its own. Leaves share their first tokens,
so that a comparison of whole leaves says little of them; where the tree branched, its continuations
can be compared from there on.

    leaves   a leaf is a response, compared with all leaves of its task and with those of its root;
             both advantages are added (Tree-GRPO, arXiv 2509.21240)
    nodes    a node, the tokens between two branchings, is a response: its value, the weighted mean
             reward of the leaves below it, is compared with those of the continuations beside it
             (AT2PO, arXiv 2601.04767, `child_mean` and `diff_parent`); the first nodes of a task's
             roots are compared with each other

By `nodes` with `rloo` the gradient is unbiased, whatever the tree's shape, as long as where it
branches does not depend on how a continuation went; docs/objectives.md says how far others are off.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from ...rollout.ledger import Ledger
from ...rollout.trajectory import Branch, Episode, Trajectory, Turn
from ...tools.errors import UsageError
from .base import TOTAL, Rewards, Score

__all__ = ["TREE_CREDITS", "Leaf", "Node", "as_leaves", "score_leaves"]


@dataclass(frozen=True, slots=True)
class Node:
    """The tokens of a leaf between two branchings, counted through its ledgers."""

    root: str
    """The leaf with which its tree begins."""
    owner: str
    """The leaf for which they were sampled; others share them."""
    start: int
    stop: int


@dataclass(slots=True)
class Leaf(Episode):
    """A leaf of a tree as an attempt of its own (its trajectory is a branch no longer), or a node
    of it as a response.
    """

    weight: float = 1.0
    """`Branch.weight` of the leaf."""
    path: tuple[Node, ...] = ()
    """The leaf's nodes, in order: together all its tokens."""
    share: float = 1.0
    """The factor of its advantage."""


def as_leaves(tree: Episode) -> list[Leaf]:
    """The leaves of a tree as attempts, without rewards; [] for an episode that is no tree."""
    by_name = {each.branch.name: each for each in tree.trajectories if each.branch}
    branches = {each.branch.name: each.branch for each in tree.trajectories if each.branch}
    sizes = {name: sum(map(len, each.ledgers)) for name, each in by_name.items()}
    starts = {name: _start(by_name[name], branch) for name, branch in branches.items()}
    cuts: defaultdict[str, set[int]] = defaultdict(set)
    for name, branch in branches.items():
        if branch.parent is not None:
            cuts[branch.parent].add(starts[name])

    def path(name: str) -> tuple[Node, ...]:
        parent, start, size = branches[name].parent, starts[name], sizes[name]
        above = () if parent is None else path(parent)
        root = above[0].root if above else name
        places = sorted({start, size} | {cut for cut in cuts[name] if start < cut < size})
        own = tuple(Node(root, name, a, b) for a, b in pairwise(places))
        return tuple(node for node in above if node.start < start) + own

    known = {field.name: getattr(tree, field.name) for field in fields(Episode)}
    leaves = []
    for name, trajectory in by_name.items():
        alone = replace(trajectory, branch=None)
        given = known | {"id": f"{tree.id}#{name}", "trajectories": [alone], "rewards": {}}
        leaves.append(Leaf(**given, weight=branches[name].weight, path=path(name)))
    return leaves


def _start(leaf: Trajectory, branch: Branch) -> int:
    """The place at which a leaf left its parent, counted through its ledgers."""
    return sum(map(len, leaf.ledgers[: branch.ledger])) + branch.tokens


def score_leaves(rewards: Rewards, group: Sequence[Episode]) -> tuple[list[Leaf], list[Score]]:
    """The leaves of the trees of a group, each with its rewards, and their scores; a tree has the
    rewards of its last leaf, the chosen one. Raises UsageError for an episode that is no tree.
    """
    leaves: list[Leaf] = []
    scores: list[Score] = []
    for tree in group:
        own = as_leaves(tree)
        scores += rewards.score_all(own or [tree])
        if not own and tree.rewards:
            raise UsageError(
                f"the strategy made no tree of {tree.id}: to train on one, name tree@... or a "
                "strategy whose trajectories have a Branch"
            )
        tree.rewards = dict(own[-1].rewards) if own else {}
        leaves += own
    return leaves, scores


def _leaves(group: Sequence[Episode]) -> list[list[Episode]]:
    roots: defaultdict[tuple[int, str], list[Leaf]] = defaultdict(list)
    for leaf in _checked(group):
        roots[leaf.sample, leaf.path[0].root].append(leaf)
    # Where all roots are divided evenly, the leaves have a share of 1 each, as published.
    shared = {
        leaf.id: replace(leaf, share=leaf.weight * len(group) / len(roots))
        for leaves in roots.values()
        for leaf in leaves
    }
    groups = [group, *roots.values()]
    return [[shared[leaf.id] for leaf in each] for each in groups if len(each) > 1]


def _nodes(group: Sequence[Episode]) -> list[list[Episode]]:
    below: defaultdict[tuple[int, Node], list[Leaf]] = defaultdict(list)
    above: dict[tuple[int, Node], tuple[int, Node] | None] = {}
    for leaf in _checked(group):
        for before, node in pairwise((None, *leaf.path)):
            assert node is not None  # only the first before is
            below[leaf.sample, node].append(leaf)
            above[leaf.sample, node] = None if before is None else (leaf.sample, before)
    siblings: defaultdict[tuple[int, Node] | None, list[Episode]] = defaultdict(list)
    for (sample, node), leaves in below.items():
        siblings[above[sample, node]].append(_part(node, leaves))
    return [parts for parts in siblings.values() if len(parts) > 1]


def _checked(group: Sequence[Episode]) -> list[Leaf]:
    leaves = [each for each in group if isinstance(each, Leaf)]
    if len(leaves) < len(group):
        raise UsageError(
            f"credit={' and credit='.join(TREE_CREDITS)} are for trees: strategy names one"
        )
    return leaves


def _part(node: Node, leaves: Sequence[Leaf]) -> Leaf:
    """A node as a response: its tokens, after those that lead to it, which have no loss."""
    first, share = leaves[0], math.fsum(leaf.weight for leaf in leaves)
    value = math.fsum(leaf.weight * leaf.rewards[TOTAL] for leaf in leaves) / share
    trajectory = first.trajectory
    ledgers: list[Ledger] = []
    turns: list[Turn] = []
    offset = 0
    for number, ledger in enumerate(trajectory.ledgers):
        start, stop = max(node.start - offset, 0), min(node.stop - offset, len(ledger))
        if start < stop:
            turns += [
                replace(turn, ledger=len(ledgers))
                for turn in trajectory.turns
                if turn.ledger == number and start <= turn.start < stop
            ]
            led = [replace(span, weight=0.0) for span in ledger.head(start)]
            ledgers.append(Ledger([*led, *ledger.head(stop).tail(start)]))
        offset += len(ledger)
    ends = node.stop == offset
    return replace(
        first,
        id=f"{first.id}@{node.start}",
        trajectories=[
            replace(
                trajectory, ledgers=ledgers, turns=turns, stop=trajectory.stop if ends else None
            )
        ],
        rewards={TOTAL: value},
        share=share,
    )


TREE_CREDITS: dict[str, Callable[[Sequence[Episode]], list[list[Episode]]]] = {
    "leaves": _leaves,
    "nodes": _nodes,
}
"""A response that is in several groups is trained once, with the sum of its advantages."""

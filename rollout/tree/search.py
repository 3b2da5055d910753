"""Trees that a score grows: which node continues, and how often, is asked of a `Search`.

    rule = partial(search, method=partial(BestFirst, 2), value=confidence)

A node is a place where the policy is about to speak. It is expanded by as many continuations as
the method says, each up to its next result or its end; their nodes are scored, and the method is
asked again. A*, REBASE or a tree search of another kind is one such class.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from ..loop import Rollout, Until
from ..sessions import describe_error
from .growth import Tree

__all__ = ["BestFirst", "Node", "Search", "Value", "confidence", "search"]


@dataclass(slots=True, eq=False)
class Node:
    """A place in the tree, or the end of a leaf.

    `rollout` came there first; `turns` is how many it had taken, `parent` the node before. `score`
    is what `Value` gave it. `visits` and `value` are for the method.
    """

    rollout: Rollout
    turns: int
    parent: "Node | None" = None
    ended: bool = False
    score: float = 0.0
    visits: int = 0
    value: float = 0.0


Value: TypeAlias = Callable[[Node], Awaitable[float]]
"""How good a node is: a judge, a reward model, the model's own confidence. Higher is better."""


class Search(Protocol):
    """A way to search: a method of its own for each tree."""

    def pick(self, open: Sequence[Node], budget: int) -> Sequence[tuple[Node, int]]:
        """The nodes to expand, and by how many continuations each; nothing ends the search.

        `open` are the nodes that have not ended, `budget` is how many leaves may be added: a node
        that was not expanded yet has one already.
        """
        ...

    def seen(self, node: Node) -> None:
        """Take note of a node that was just scored."""
        ...


class BestFirst:
    """Expands the open node with the highest score, once, by `width` continuations."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._expanded: set[Node] = set()

    def pick(self, open: Sequence[Node], budget: int) -> Sequence[tuple[Node, int]]:
        """The best node that was not expanded; see `Search`."""
        new = [node for node in open if node not in self._expanded]
        if not new:
            return []
        best = max(new, key=lambda node: node.score)
        self._expanded.add(best)
        return [(best, min(self._width, budget + 1))]

    def seen(self, node: Node) -> None:
        """Nothing is backed up."""


async def confidence(node: Node) -> float:
    """The mean log-probability of the policy's tokens up to a node; 0 where it is not known."""
    ledger = node.rollout.trajectory.ledger
    known = ledger.raw_logprobs[ledger.response_mask]
    return float(np.nan_to_num(known.mean())) if len(known) else 0.0


async def search(
    tree: Tree,
    rollout: Rollout,
    budget: int,
    *,
    method: Callable[[], Search],
    value: Value = confidence,
) -> None:
    """Grow a leaf that has not begun, as a method says, into at most `budget` leaves: a rule
    (`growth.Rule`) once it has a method.

    Leaves that the method gave up end as cancelled. A node that can't be scored is the worst.
    """
    choosing, left = method(), budget - 1
    nodes: list[Node] = []
    passed: set[Node] = set()  # those whose own rollout has continued
    going: list[tuple[Rollout, Node | None]] = [(rollout, None)]
    while going:
        new = await asyncio.gather(*(_step(tree, *each, value) for each in going))
        nodes += new
        for node in new:
            choosing.seen(node)
        going = []
        for node, number in choosing.pick([node for node in nodes if not node.ended], left):
            if node not in passed:
                passed.add(node)
                going.append((node.rollout, node))
                number -= 1
            for _ in range(min(number, left)):
                left -= 1
                child = await tree.branch(node.rollout, turns=node.turns)
                if child is not None:
                    going.append((child, node))


async def _step(tree: Tree, rollout: Rollout, parent: Node | None, value: Value) -> Node:
    """Let a leaf continue to its next result, and score the node there."""
    is_open = await tree.advance(rollout, Until.RESULTS)
    node = Node(rollout, max(rollout.places, default=0), parent, not is_open)
    try:
        node.score = await value(node)
    except Exception as error:  # boundary: a judge that fails
        tree.failed.append(describe_error(error))
        node.score = -math.inf
    return node

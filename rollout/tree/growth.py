"""The leaves of one tree while they grow.

A tree is a set of rollouts of one question. Each is a leaf; where it branches, another one is
forked from it and both continue. A rule decides where, and how many leaves there may be; a leaf
that fails ends alone.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol, Self, TypeAlias

from ..loop import Rollout, Until
from ..sessions import describe_error
from ..trajectory import Branch, StopReason, Trajectory

__all__ = ["Attempts", "Rule", "Tree", "grow", "shares", "weigh"]


class Attempts(Protocol):
    """The side of those who run a tree (a `Runner`, say)."""

    def rollout(self, name: str) -> Rollout:
        """A new rollout of that name in the tree, with the seed of the name."""
        ...

    def seed(self, name: str) -> int | None:
        """The seed of a leaf: the same in every run, so that a tree can be made again."""
        ...

    def record(self, trajectory: Trajectory) -> None:
        """Keep the trajectory of a leaf, from its beginning on."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """The time in which a rollout runs, once it may: so many run at once."""
        ...


class Tree:
    """The leaves of one question. `async with` it: the block ends when all leaves have ended.

    Example:
        async with Tree(attempts, "How many bolts are in 296 crates of 4387?") as tree:
            root = tree.root("0")
            await tree.advance(root, Until.RESULTS)
            if (other := await tree.branch(root)) is not None:
                tree.start(tree.advance(other))
            await tree.advance(root)
        print([leaf.answer for leaf in tree.leaves])
    """

    def __init__(self, attempts: Attempts, question: str) -> None:
        self.attempts = attempts
        self._question = question
        self._rollouts: list[Rollout] = []
        self._left: Counter[str] = Counter()  # how many left each leaf
        self._growing = asyncio.TaskGroup()
        self.failed: list[str] = []
        """Why branches could not be made."""

    def name(self, rollout: Rollout) -> str:
        """The name of a leaf in the tree."""
        return _branch(rollout.trajectory).name

    def place(self, rollout: Rollout) -> int:
        """The number of turns at which a leaf left another one, which was there first; -1 for a
        root.
        """
        branch = _branch(rollout.trajectory)
        return -1 if branch.parent is None else branch.turns

    @property
    def leaves(self) -> list[Trajectory]:
        """The trajectories, in the order in which they began."""
        return [rollout.trajectory for rollout in self._rollouts]

    async def __aenter__(self) -> Self:
        await self._growing.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        """Wait for the leaves, weigh them and close their rollouts."""
        try:
            await self._growing.__aexit__(*error)
        except ExceptionGroup as group:  # a rule that fails; one sentence is enough
            raise group.exceptions[0] from group
        finally:
            for leaf in self.leaves:
                leaf.stop = leaf.stop or StopReason.CANCELLED
            weigh(self.leaves)
            for rollout in self._rollouts:
                await _close(rollout)

    def start(self, growing: Coroutine[Any, Any, object]) -> None:
        """Let a part of the tree grow beside the others."""
        self._growing.create_task(growing)

    def root(self, name: str) -> Rollout:
        """A leaf that begins with the question."""
        rollout = self.attempts.rollout(name)
        rollout.trajectory.branch = Branch(name)
        rollout.begin(self._question)
        self._add(rollout)
        return rollout

    async def branch(self, rollout: Rollout, **place: Any) -> Rollout | None:
        """A leaf that leaves another one, at a place as `Rollout.fork` takes it.

        None where that fails on our side: it costs no other leaf.
        """
        left = self.name(rollout)
        self._left[left] += 1
        name = f"{left}.{self._left[left]}"
        try:
            child = await rollout.fork(name, seed=self.attempts.seed(name), **place)
        except Exception as error:  # boundary: for want of memory, say
            self.failed.append(describe_error(error))
            return None
        self._add(child)
        return child

    async def advance(self, rollout: Rollout, until: Until = Until.END) -> bool:
        """Let a leaf continue; returns True as long as its question is open."""
        async with self.attempts.running():
            await rollout.go_on(until)
        return rollout.trajectory.stop is None

    async def close_tools(self, rollout: Rollout) -> None:
        """End the tools' sessions of a leaf that nobody leaves any more, before the tree ends."""
        await _close(rollout, context=False)

    def _add(self, rollout: Rollout) -> None:
        self._rollouts.append(rollout)
        self.attempts.record(rollout.trajectory)


async def _close(rollout: Rollout, *, context: bool = True) -> None:
    """Close a leaf's tools and, unless others may still begin with it, its context."""
    try:
        await (rollout.__aexit__() if context else rollout.close_tools())
    except Exception as error:  # boundary: a tool that can't be closed
        rollout.trajectory.stop = StopReason.INFRASTRUCTURE
        rollout.trajectory.error = describe_error(error)


Rule: TypeAlias = Callable[[Tree, Rollout, int], Coroutine[Any, Any, None]]
"""Grows a leaf that has not begun into at most so many, itself included."""


async def grow(
    attempts: Attempts, question: str, rule: Rule, *, leaves: int, roots: int = 1
) -> Tree:
    """Grow at most `leaves` leaves from `roots` roots; returns the tree, all ended."""
    async with Tree(attempts, question) as tree:
        for number, budget in enumerate(shares(leaves, roots)):
            tree.start(rule(tree, tree.root(str(number)), budget))
    return tree


def shares(whole: int, parts: int) -> list[int]:
    """A number in as many whole parts, at most, that differ by at most one, the larger first.

    Example:
        >>> shares(8, 3), shares(2, 4)
        ([3, 3, 2], [1, 1])
    """
    parts = min(whole, parts)
    return [whole // parts + (part < whole % parts) for part in range(parts)]


def weigh(leaves: Iterable[Trajectory]) -> None:
    """Set each leaf's weight: at every branching its share of the root is divided evenly among
    those that continue there (`Branch.weight`).
    """
    named = {_branch(leaf).name: leaf for leaf in leaves}
    left: defaultdict[str | None, list[Branch]] = defaultdict(list)
    for leaf in named.values():
        left[_branch(leaf).parent].append(_branch(leaf))
    waiting = [(root.name, 1.0) for root in left[None]]
    while waiting:
        name, share = waiting.pop()
        for _, group in groupby(sorted(left[name], key=_place), key=_place):
            children = list(group)
            share /= len(children) + 1
            waiting += [(child.name, share) for child in children]
        named[name].branch = replace(_branch(named[name]), weight=share)


def _place(branch: Branch) -> tuple[int, int]:
    return branch.ledger, branch.tokens


def _branch(leaf: Trajectory) -> Branch:
    assert leaf.branch is not None, "a leaf of a tree has a branch"
    return leaf.branch

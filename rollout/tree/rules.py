"""Rules of growth: trees branch at results, at random nodes, where the model is surprised."""

import asyncio
import random as randomness
from functools import partial
from typing import Literal, TypeAlias

from ..loop import Rollout, Until
from ..trajectory import Trajectory
from .growth import Rule, Tree, shares
from .search import BestFirst, search

__all__ = ["RuleName", "make_rule", "random", "split", "surprise"]

RuleName: TypeAlias = Literal["split", "random", "surprise", "best"]
_OPENING = 20
"""Tokens at the beginning of a turn that say how sure the model is."""


def make_rule(name: RuleName, *, width: int) -> Rule:
    """The rule of that name, with at most as many continuations at a branching."""
    if name == "best":
        return partial(search, method=partial(BestFirst, width))
    return partial({"split": split, "random": random, "surprise": surprise}[name], width=width)


async def split(tree: Tree, rollout: Rollout, budget: int, *, width: int) -> None:
    """Branch at each result, at once: a leaf with a budget of several becomes as many as `width`,
    which share it. What is left of the budget of a leaf that ended early goes to a fresh root.

    Nobody waits for the slowest leaf of a wave.
    """
    rule = partial(split, width=width)
    while budget > 1 and await tree.advance(rollout, Until.RESULTS):
        budget = await _divide(tree, rollout, budget, width, rule)
    await _end(tree, rollout, budget, rule)


async def surprise(tree: Tree, rollout: Rollout, budget: int, *, width: int) -> None:
    """Branch where the model is unsure of what to say to a result: what it says first is less
    likely than what it said first of all. The others say something else in its place.

    ARPO (arXiv 2507.19849) compares entropies there; the surprise of the tokens that were sampled
    estimates them. Without log-probabilities nothing branches.
    """
    rule = partial(surprise, width=width)
    began = max(0, tree.place(rollout))  # the one that it left was looked at there
    while budget > 1:
        is_open = await tree.advance(rollout, Until.SAID)
        trajectory, turn = rollout.trajectory, max(rollout.places, default=0)
        if began < turn < len(trajectory.turns) and _surprise(trajectory, turn) > _surprise(
            trajectory, 0
        ):
            budget = await _divide(tree, rollout, budget, width, rule, turns=turn)
        if not is_open:
            break
    await _end(tree, rollout, budget, rule)


async def random(tree: Tree, rollout: Rollout, budget: int, *, width: int) -> None:
    """Branch at random nodes of leaves that have ended, `width` of them in a round (Tree-GRPO,
    arXiv 2509.21240). All nodes are equally likely, the question among them.

    Which nodes there are depends on how the leaves went on: a weighted mean over leaves is unbiased
    only where all have the same number of turns.
    """
    draw = randomness.Random(tree.attempts.seed(f"{tree.name(rollout)}: nodes"))
    await tree.advance(rollout)
    grown = [rollout]
    while len(grown) < budget:
        nodes = [
            (leaf, turns)
            for leaf in grown
            for turns in leaf.places
            if tree.place(leaf) < turns < len(leaf.trajectory.turns)
        ]
        if not nodes:
            break
        drawn = draw.choices(nodes, k=min(width, budget - len(grown)))
        made = [await tree.branch(leaf, turns=turns) for leaf, turns in drawn]
        new = [child for child in made if child is not None]
        if not new:
            break
        await asyncio.gather(*(tree.advance(child) for child in new))
        grown += new


async def _divide(
    tree: Tree, rollout: Rollout, budget: int, width: int, rule: Rule, turns: int | None = None
) -> int:
    """Let others leave a leaf and grow beside it; returns its own share of the budget."""
    own, *others = shares(budget, width)
    for share in others:
        child = await tree.branch(rollout, turns=turns)
        if child is not None:
            tree.start(rule(tree, child, share))
    return own


async def _end(tree: Tree, rollout: Rollout, budget: int, rule: Rule) -> None:
    """Let a leaf come to its end, and spend what it left of its budget."""
    if rollout.trajectory.stop is None:
        await tree.advance(rollout)
    await tree.close_tools(rollout)
    if budget > 1:
        tree.start(rule(tree, tree.root(f"{tree.name(rollout)}+"), budget - 1))


def _surprise(trajectory: Trajectory, number: int) -> float:
    """The mean of -log p over the first tokens of a turn; NaN where it is not known."""
    turn = trajectory.turns[number]
    logprobs = trajectory.ledgers[turn.ledger].raw_logprobs[turn.start : turn.stop]
    return -float(logprobs[:_OPENING].mean()) if len(logprobs) else 0.0

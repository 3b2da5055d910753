"""Several attempts where one would do: ways to answer better with the same model.

A strategy is a plain function. It asks, as often as it likes, and says which attempt counts:

    async def first(ask, task):
        return Decision(await ask(task.question))

`Runner(policy, strategy=first)` makes each episode so; `find_strategy` takes names, such as
`vote@8` or `mine.py:first`.
"""

import asyncio
import inspect
import math
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias

from pydantic import Field

from ...tools.errors import UsageError
from ...tools.importing import find
from ..task import Task
from ..trajectory import Episode, StopReason
from ..tree.figures import tree_figures
from ..tree.growth import Attempts, grow
from ..tree.rules import RuleName, make_rule
from .votes import Classes, by_text, elect, mean_logprob

__all__ = [
    "STRATEGIES",
    "Ask",
    "Decision",
    "Strategy",
    "best_of",
    "find_strategy",
    "think_twice",
    "tree",
    "vote",
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Which attempt counts, and why, as plain data for the record."""

    episode: Episode
    why: dict[str, Any] = field(default_factory=dict)


class Ask(Attempts, Protocol):
    """One more attempt, at that question, with a seed of its own; or a tree of rollouts."""

    def __call__(self, question: str, /) -> Awaitable[Episode]:
        """An attempt, to its end."""
        ...


Strategy: TypeAlias = Callable[[Ask, Task], Awaitable[Decision]]
Score: TypeAlias = Callable[[Episode], float | Awaitable[float]]
Count: TypeAlias = Annotated[int, Field(ge=1, le=9999)]


async def vote(ask: Ask, task: Task, *, k: Count = 8, classes: Classes = by_text) -> Decision:
    """The answer that most of `k` attempts give (self-consistency, arXiv 2203.11171).

    `classes` says which answers are one, and which attempts have a vote; one without an answer has
    none. Of equally frequent answers the one counts of which the model is surer (`elect`). Without
    any vote the first attempt with an answer counts.
    """
    episodes = await _ask_all(ask, task.question, k)
    votes = await asyncio.to_thread(classes, task, episodes)
    winner = elect(votes, [mean_logprob(episode) for episode in episodes])
    count = Counter(vote for vote in votes if vote is not None)
    told = {str(episodes[votes.index(vote)].answer): number for vote, number in count.items()}
    why = {"name": "vote", "votes": told}
    return Decision(_least_bad(episodes) if winner is None else episodes[winner], why)


async def tree(
    ask: Ask,
    task: Task,
    *,
    leaves: Count = 8,
    roots: Count | None = None,
    width: Count = 2,
    rule: RuleName = "split",
    classes: Classes = by_text,
) -> Decision:
    """The answer that most of the `leaves` of a tree give, by their weights (`Branch.weight`).

    The tree has at least as many `roots` (half as many as leaves, unless said). It branches
    `width`-fold as `rule` says: `split` at each result, `random` at random nodes, `surprise` where
    the model is unsure, `best` where it is surest. Leaves that share a beginning cost less than as
    many attempts, and agree more often: few roots make the vote weaker. The rest is as in `vote`.
    """
    if roots is None:
        roots = max(1, leaves // 2)
    growing = make_rule(rule, width=width)
    grown = await grow(ask, task.question, growing, leaves=leaves, roots=roots)
    episodes = [
        Episode("", task, task.id, at, [leaf], error=leaf.error)
        for at, leaf in enumerate(grown.leaves)
    ]
    votes = await asyncio.to_thread(classes, task, episodes)
    weights = [leaf.branch.weight if leaf.branch else 1.0 for leaf in grown.leaves]
    winner = elect(votes, [mean_logprob(episode) for episode in episodes], weights)
    told: defaultdict[str, float] = defaultdict(float)
    for vote, weight in zip(votes, weights, strict=True):
        if vote is not None:
            told[str(episodes[votes.index(vote)].answer)] += weight
    shares = {answer: round(share, 6) for answer, share in told.items()}
    why = {"name": "tree", "votes": shares, "figures": tree_figures(grown.leaves)}
    if grown.failed:
        why["failed"] = grown.failed
    return Decision(_least_bad(episodes) if winner is None else episodes[winner], why)


async def best_of(ask: Ask, task: Task, *, k: Count = 4, score: Score | None = None) -> Decision:
    """The attempt of `k` that scores highest; of equals, the earliest.

    `score` is any function of an episode, a reward say; without it the model judges each answer
    itself, in an attempt of its own. Attempts without an answer are not scored, nor is one that
    could not be judged because something of ours failed; if that is all of them, the first counts.
    """
    episodes = await _ask_all(ask, task.question, k)
    answered = [episode for episode in episodes if episode.answer is not None]
    if not answered:
        return Decision(_least_bad(episodes), {"name": "best", "scores": {}})
    judge = partial(_judge, ask, task.question) if score is None else partial(_score, score)
    scores = await asyncio.gather(*(judge(episode) for episode in answered))
    known = [-math.inf if score is None else score for score in scores]
    best = known.index(max(known))
    told = {episode.id: value for episode, value in zip(answered, scores, strict=True)}
    return Decision(answered[best], {"name": "best", "scores": told})


async def think_twice(ask: Ask, task: Task, *, k: Count = 2) -> Decision:
    """Ask again with the previous answer, `k` rounds in all (Think Twice, arXiv 2503.19855).

    Only the answer is passed on, not the thoughts. A round without an answer leaves the one before.
    """
    last = await ask(task.question)
    answers = [last.answer]
    for _ in range(k - 1):
        question = task.question
        if last.answer is not None:
            question += (
                f"\nThe assistant's previous answer is: <answer> {last.answer} </answer>, and "
                "please re-answer."
            )
        again = await ask(question)
        answers.append(again.answer)
        if again.answer is not None or last.answer is None:
            last = again
    return Decision(last, {"name": "twice", "answers": answers})


STRATEGIES: dict[str, Callable[..., Awaitable[Decision]]] = {
    "vote": vote,
    "tree": tree,
    "best": best_of,
    "twice": think_twice,
}


def find_strategy(
    name: str, *, classes: Classes = by_text, trusted: bool = True, folder: Path | None = None
) -> Strategy:
    """The strategy of that name, by the grammar of `tools/importing.py`.

    `vote@8`, `tree@8`, `tree@leaves=8,rule=random`, `best@4`, `twice@2`; of your own
    `my_ways:debate` or `my_ways.py:debate@rounds=3`: a function of `ask` and a task, whose further
    parameters the name gives, or a class of such. `classes` says which answers are one; a strategy
    with a parameter of that name gets it. Raises UsageError for any other.
    """
    found = find("strategy", name, STRATEGIES, trusted=trusted, folder=folder)
    if found.source:
        raise UsageError(
            f"the strategy {name!r} works on nothing but the task: write it without :{found.source}"
        )
    strategy = found.make() if isinstance(found.value, type) else found.bind(found.value)
    try:
        signature = inspect.signature(strategy)
        signature.bind(None, None)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the strategy {name!r} can't be asked: {error}; name an async function of `ask` and a "
            "task"
        ) from None
    if classes is not by_text and "classes" in signature.parameters:
        strategy = partial(strategy, classes=classes)
    return strategy


async def _ask_all(ask: Ask, question: str, k: int) -> Sequence[Episode]:
    async with asyncio.TaskGroup() as group:  # a cancel reaches them all
        attempts = [group.create_task(_asked(ask, question)) for _ in range(k)]
    return [attempt.result() for attempt in attempts]


async def _asked(ask: Ask, question: str) -> Episode:
    return await ask(question)


def _least_bad(episodes: Sequence[Episode]) -> Episode:
    """An attempt with an answer, or else one that ended by the model's doing, if there is one."""
    ours = StopReason.INFRASTRUCTURE
    answered = (episode for episode in episodes if episode.answer is not None)
    ended = (episode for episode in episodes if episode.stop is not ours)
    return next(answered, next(ended, episodes[0]))


async def _score(score: Score, episode: Episode) -> float:
    value = score(episode)
    return float(await value) if inspect.isawaitable(value) else float(value)


async def _judge(ask: Ask, question: str, episode: Episode) -> float | None:
    """How sure the model is of an answer, 0 to 10; 0 where it does not say, None where our side
    failed.
    """
    judged = await ask(
        f"Question: {question}\nProposed answer: {episode.answer}\n"
        "Check the proposed answer. How sure are you that it is right, from 0 (wrong) to 10 "
        "(right)? Answer with the number alone."
    )
    if judged.stop is StopReason.INFRASTRUCTURE:
        return None
    found = re.search(r"\d+(\.\d+)?", judged.answer or "")
    return min(10.0, float(found[0])) if found else 0.0

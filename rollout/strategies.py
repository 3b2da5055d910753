"""Several attempts where one would do: ways to answer better with the same model.

A strategy is a plain function. It asks, as often as it likes, and says which attempt counts:

    async def first(ask, task):
        return Decision(await ask(task.question))

`Runner(policy, strategy=first)` makes each episode so; `find_strategy("vote@8")` names those here.
"""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from ..tools.errors import UsageError
from .task import Task, equal_answers
from .trajectory import Episode, StopReason

__all__ = [
    "STRATEGIES",
    "Ask",
    "Decision",
    "Strategy",
    "best_of",
    "find_strategy",
    "think_twice",
    "vote",
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Which attempt counts, and why, as plain data for the record."""

    episode: Episode
    why: dict[str, Any] = field(default_factory=dict)


Ask: TypeAlias = Callable[[str], Awaitable[Episode]]
"""One more attempt, at that question, with a seed of its own."""
Strategy: TypeAlias = Callable[[Ask, Task], Awaitable[Decision]]
Score: TypeAlias = Callable[[Episode], float | Awaitable[float]]


async def vote(
    ask: Ask, task: Task, k: int = 8, *, same: Callable[[str, str], bool] = equal_answers
) -> Decision:
    """The answer that most of `k` attempts give (self-consistency, arXiv 2203.11171).

    `same` says when two answers are one. Of equally frequent answers the one that was given by the
    earliest attempt counts; attempts without an answer have no vote.
    """
    episodes = await _ask_all(ask, task.question, k)
    camps: list[list[Episode]] = []
    for episode in episodes:
        if episode.answer is None:
            continue
        for camp in camps:
            if same(episode.answer, str(camp[0].answer)):
                camp.append(episode)
                break
        else:
            camps.append([episode])
    if not camps:
        return Decision(_least_bad(episodes), {"name": "vote", "votes": {}})
    winner = max(camps, key=len)
    votes = {str(camp[0].answer): len(camp) for camp in camps}
    return Decision(winner[0], {"name": "vote", "votes": votes})


async def best_of(ask: Ask, task: Task, k: int = 4, *, score: Score | None = None) -> Decision:
    """The attempt of `k` that scores highest; of equals, the earliest.

    `score` is any function of an episode, a reward say; without it the model judges each answer
    itself, in an attempt of its own. Attempts without an answer are not scored.
    """
    episodes = await _ask_all(ask, task.question, k)
    answered = [episode for episode in episodes if episode.answer is not None]
    if not answered:
        return Decision(_least_bad(episodes), {"name": "best", "scores": {}})
    judge = partial(_judge, ask, task.question) if score is None else partial(_score, score)
    scores = await asyncio.gather(*(judge(episode) for episode in answered))
    best = max(range(len(answered)), key=lambda at: scores[at])
    told = {episode.id: value for episode, value in zip(answered, scores, strict=True)}
    return Decision(answered[best], {"name": "best", "scores": told})


async def think_twice(ask: Ask, task: Task, k: int = 2) -> Decision:
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
    "best": best_of,
    "twice": think_twice,
}
"""The strategies that can be asked for by name; what stands behind an @ is `k`."""


def find_strategy(name: str) -> Strategy:
    """`vote@8` as a strategy. Raises UsageError for a name that is none."""
    kind, _, count = name.partition("@")
    if kind not in STRATEGIES or (count and not re.fullmatch("[1-9][0-9]{0,3}", count)):
        raise UsageError(
            f"{name!r} is no strategy: write NAME@COUNT, such as vote@8, with a name of "
            f"{', '.join(STRATEGIES)}"
        )
    return partial(STRATEGIES[kind], k=int(count)) if count else STRATEGIES[kind]


async def _ask_all(ask: Ask, question: str, k: int) -> Sequence[Episode]:
    async with asyncio.TaskGroup() as group:  # a cancel reaches them all
        attempts = [group.create_task(_asked(ask, question)) for _ in range(k)]
    return [attempt.result() for attempt in attempts]


async def _asked(ask: Ask, question: str) -> Episode:
    return await ask(question)


def _least_bad(episodes: Sequence[Episode]) -> Episode:
    """An attempt that ended by the model's doing, if there is one."""
    ours = StopReason.INFRASTRUCTURE
    return next((episode for episode in episodes if episode.stop is not ours), episodes[0])


async def _score(score: Score, episode: Episode) -> float:
    value = score(episode)
    return float(await value) if inspect.isawaitable(value) else float(value)


async def _judge(ask: Ask, question: str, episode: Episode) -> float:
    """How sure the model is of an answer, 0 to 10; 0 where it does not say."""
    judged = await ask(
        f"Question: {question}\nProposed answer: {episode.answer}\n"
        "Check the proposed answer. How sure are you that it is right, from 0 (wrong) to 10 "
        "(right)? Answer with the number alone."
    )
    found = re.search(r"\d+(\.\d+)?", judged.answer or "")
    return min(10.0, float(found[0])) if found else 0.0

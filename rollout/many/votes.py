"""Which of several attempts at a task counts: when two answers are one, and who wins the vote.

Self-consistency (arXiv 2203.11171). `vote@k` and the evaluation's maj@k both go by `elect`.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from ...tools import ErrorKind
from ...tools.errors import DataError
from ...tools.sql import COMPARED, Database, QueryFailed, Rows, Rule, SqlTool, equal_results
from ..ledger import Source
from ..policy import Policy
from ..task import Task, equal_answers
from ..trajectory import Episode

__all__ = ["Classes", "by_text", "classes_of", "elect", "mean_logprob", "numbered", "query_classes"]

Classes: TypeAlias = Callable[[Task, Sequence[Episode]], Sequence[int | None]]
"""Tells the answers of attempts at a task apart: for each attempt the number of its answer, in the
order in which they were first given; None where it has no vote. It may take its time: it is called
in a thread. What it raises is a failure on our side."""
Result = TypeVar("Result")
_SECONDS = 10.0


def elect(
    votes: Sequence[int | None],
    logprobs: Sequence[float | None],
    weights: Sequence[float] | None = None,
) -> int | None:
    """The place of the attempt that counts: the first one with the most frequent answer.

    `votes` are numbers of answers as `Classes` gives them, `logprobs` the mean log-probability of
    each attempt's tokens (None where it is not known). With `weights`, as leaves of a tree have
    them, the heaviest answer counts. Of equal answers the one with the higher mean over its
    attempts wins, then the one that was given first. Without any vote there is nothing to elect:
    None.

    Example:
        >>> elect([0, 1, None, 1, 0], [-0.9, -0.2, -0.1, -0.4, -0.8])
        1
    """
    camps: defaultdict[int, list[int]] = defaultdict(list)
    for place, vote in enumerate(votes):
        if vote is not None:
            camps[vote].append(place)
    if not camps:
        return None

    def strength(camp: list[int]) -> tuple[float, float]:
        known = [logprobs[place] for place in camp]
        sure = [value if value is not None else -math.inf for value in known]
        size = len(camp) if weights is None else round(sum(weights[place] for place in camp), 9)
        return size, sum(sure) / len(sure)

    return max(camps.values(), key=strength)[0]  # of equals, max gives the first


def mean_logprob(episode: Episode) -> float | None:
    """The mean log-probability of the tokens that the policy sampled last, under its own weights.

    At temperature 1 without truncation where that is on record. None where a token's is not known.
    """
    if not episode.trajectories:
        return None
    total, count = 0.0, 0
    for ledger in episode.trajectory.ledgers:
        for span in ledger:
            if span.source is Source.POLICY:
                values = span.logprobs if span.raw_logprobs is None else span.raw_logprobs
                if values is None:
                    return None
                total += float(values.sum(dtype=float))
                count += len(span)
    return total / count if count and math.isfinite(total) else None


def numbered(
    answers: Sequence[Result | None], same: Callable[[Result, Result], bool]
) -> list[int | None]:
    """The number of each answer among those that `same` tells apart; None stays None.

    `same` takes an answer and the first one of its kind.

    Example:
        >>> numbered(["7", None, "8", "7.0"], equal_answers)
        [0, None, 1, 0]
    """
    first: list[Result] = []
    votes: list[int | None] = []
    for answer in answers:
        if answer is None:
            votes.append(None)
            continue
        vote = next((i for i, known in enumerate(first) if same(answer, known)), len(first))
        if vote == len(first):
            first.append(answer)
        votes.append(vote)
    return votes


def by_text(task: Task, episodes: Sequence[Episode]) -> list[int | None]:
    """Short answers: the same number, or the same text (`equal_answers`)."""
    return numbered([episode.answer for episode in episodes], equal_answers)


def query_classes(
    database: Database, queries: Sequence[str | None], rule: Rule, seconds: float = _SECONDS
) -> list[int | None]:
    """Queries by what they give, as text-to-SQL votes (ReEx-SQL, arXiv 2505.12768).

    A query that fails, and one whose result is empty, all NULL or too large to compare, has no
    vote: wrong queries meet there. Each may take `seconds`. Raises DataError where the database is
    not available.
    """
    given = _now(_results(database, list(dict.fromkeys(q for q in queries if q)), seconds))

    def same(query: str, known: str) -> bool:
        return equal_results(known, given[query], given[known], rule).equal

    return numbered([query if query in given else None for query in queries], same)


def classes_of(policy: Policy) -> Classes:
    """How the answers of a policy are told apart where its tasks bring no checker.

    What a policy of ReEx-SQL answers with is a query: it is run on the database of its tool.
    """
    tool = policy.tools.get("sql")
    if policy.format.name != "reex_sql" or not isinstance(tool, SqlTool):
        return by_text
    database = tool.database

    def by_query(task: Task, episodes: Sequence[Episode]) -> list[int | None]:
        return query_classes(database, [episode.answer for episode in episodes], "ordered")

    return by_query


async def _results(database: Database, queries: list[str], seconds: float) -> dict[str, Rows]:
    found = {}
    async with database.held():
        for query in queries:
            try:
                rows = await database.query(query, COMPARED, seconds)
            except QueryFailed as error:
                if error.kind is ErrorKind.UNAVAILABLE:
                    raise DataError(error.text) from error
                continue
            if rows.whole and any(value is not None for row in rows.rows for value in row):
                found[query] = rows
    return found


def _now(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, awaited in its own thread: ours may run a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()

"""Rewards for SQL: execution, and ReEx-SQL's five parts (arXiv 2505.12768).

The paper names the parts and their weights; its formulas are not public. These are our own, and
`docs/rewards.md` gives them.
"""

import asyncio
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ...rollout.formats import FORMATS
from ...rollout.formats.scan import scan
from ...rollout.formats.tags import ReexSql
from ...rollout.ledger import Source
from ...rollout.many.votes import query_classes
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode, StopReason
from ...tools import ErrorKind
from ...tools.errors import DataError
from ...tools.sql import (
    COMPARED,
    Comparison,
    GuardedDatabase,
    QueryFailed,
    Rows,
    Rule,
    Schema,
    Workers,
    connect_file,
    equal_results,
)
from ..data.generators.database import open_database
from .base import RewardFunction, Unscored, policy_text
from .efficiency import r_ves, ves
from .sql_look_ups import Named, brings_news, spelt
from .sql_match import Unmatched, set_match

__all__ = ["SqlJudge", "gold_query", "well_formed"]

Result = TypeVar("Result")

_SUITE_SECONDS = 300.0
"""Wall time of a query on all databases of a task: below that of a part of a reward."""
_RUNS = 20
"""Timed runs of each query; BIRD's own program has 100 (R-VES) or 10 (VES)."""
_TIMED_SECONDS = 60.0
"""Wall time of all timed runs of an answer: then those that are done count."""
_OPEN = 32
"""Databases that are kept open: those in memory hold their image."""
_VERDICTS = 4096
"""Comparisons that are kept: parts of a reward ask for the same one, and so do attempts of a group
that answer alike."""


def gold_query(task: Task) -> str:
    """The query that answers the task: `data["gold"]`. Raises Unscored if there is none."""
    gold = task.data.get("gold")
    if not isinstance(gold, str):
        raise Unscored(f"the task {task.id!r} has no gold query in its data")
    return gold


def _suite(task: Task) -> list[Task]:
    """The task on each of its databases: its own, then those of `data["databases"]`."""
    others = task.data.get("databases")
    if others is None:
        return [task]
    if isinstance(others, str):
        others = sorted(str(path) for path in Path(others).glob("*.sqlite"))
    own = task.data.get("database")
    places = [*([] if own is None else [own]), *(each for each in others if each != own)]
    if not others:
        raise Unscored(f"the task {task.id!r} has no databases in {task.data['databases']!r}")
    return [replace(task, data=task.data | {"database": place}) for place in places]


class SqlJudge:
    """Compares queries by what they give on the database of a task.

    `task.data` holds the gold query as `gold` and the database as `database`: a path, or what a
    generator made of it. `rule` says when two results are equal (`tools/sql/compare.py`); a task's
    own `rule` comes before it. A query has `seconds`. `databases`, a list of paths or a folder of
    `.sqlite` files, is a test suite: a right query is right on `database` and on each of
    them. Its methods that take (episode, task) are parts of a reward, each from 0 to 1.

    A query of the policy that fails is wrong. Where the gold query or the database fails, they
    raise Unscored.
    """

    def __init__(
        self, *, rule: Rule = "ordered", seconds: float = 10.0, workers: Workers | None = None
    ) -> None:
        self.rule: Rule = rule
        self.seconds = seconds
        self.workers = Workers() if workers is None else workers
        self._lock = threading.Lock()
        self._open: OrderedDict[str, GuardedDatabase] = OrderedDict()
        self._verdicts: OrderedDict[tuple[str, ...], Comparison] = OrderedDict()

    def database(self, task: Task) -> GuardedDatabase:
        """The database of a task. Raises Unscored where it is not there."""
        place = task.data.get("database")
        key = repr(place)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        try:
            if isinstance(place, str):
                database = connect_file(place, workers=self.workers)
            elif isinstance(place, dict) and place.keys() >= {"world", "seed"}:
                database = open_database(task, workers=self.workers)
            else:
                raise Unscored(f"the task {task.id!r} names no database in its data")
        except DataError as error:
            raise Unscored(str(error)) from error
        with self._lock:
            self._open[key] = database
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return database

    def compare(self, task: Task, query: str, gold: str) -> Comparison:
        """Compare the results of a query and of `gold`, under the rule, on all its databases.

        Raises Unscored if `gold` fails, or if the two can't be compared because the gold
        result is too large.
        """
        places = [task.data.get(key) for key in ("database", "databases", "rule")]
        key = (query, gold, *map(repr, places))
        with self._lock:
            if key in self._verdicts:
                return self._verdicts[key]
        comparison = self._compare_all(task, query, gold)
        with self._lock:
            self._verdicts[key] = comparison
            while len(self._verdicts) > _VERDICTS:
                self._verdicts.popitem(last=False)
        return comparison

    def _compare_all(self, task: Task, query: str, gold: str) -> Comparison:
        end = time.monotonic() + _SUITE_SECONDS
        for each in _suite(task):
            comparison = _now(self._compare(each, query, gold))
            if not comparison.equal:
                return comparison
            if time.monotonic() > end:
                return Comparison(False, f"not done on all databases after {_SUITE_SECONDS:g} s")
        return comparison

    def classes(self, task: Task, queries: Sequence[str | None]) -> list[int | None]:
        """Which queries give the same, under the rule; see `query_classes`.

        Raises Unscored where the database fails.
        """
        database, rule = self.database(task), task.data.get("rule", self.rule)
        try:
            return query_classes(database, queries, rule, self.seconds)
        except DataError as error:
            raise Unscored(str(error)) from error

    def execution(self, episode: Episode, task: Task) -> float:
        """1 where the answer's result is the gold query's."""
        return float(episode.answer is not None and self.correct(task, episode.answer))

    def correct(self, task: Task, query: str) -> bool:
        """True if a query gives what the task's gold query gives."""
        return self.compare(task, query, gold_query(task)).equal

    def r_ves(self, episode: Episode, task: Task) -> float:
        """BIRD's R-VES of the answer, from 0 (wrong) to 1.118 (twice as fast as the gold query)."""
        ratios = self._ratios(episode, task)
        return r_ves(ratios) if ratios else 0.0

    def ves(self, episode: Episode, task: Task) -> float:
        """BIRD's VES of the answer: 0 if it is wrong, 1 if it is as fast as the gold query."""
        ratios = self._ratios(episode, task)
        return ves(ratios) if ratios else 0.0

    def _ratios(self, episode: Episode, task: Task) -> list[float]:
        """The time of the gold query over that of the answer, for each pair of runs; none if the
        answer is wrong.
        """
        if episode.answer is None or not self.correct(task, episode.answer):
            return []
        return _now(self._timed(self.database(task), episode.answer, gold_query(task)))

    async def _timed(self, database: GuardedDatabase, query: str, gold: str) -> list[float]:
        ratios: list[float] = []
        end = time.monotonic() + _TIMED_SECONDS
        async with database.held():
            while len(ratios) < _RUNS and (not ratios or time.monotonic() < end):
                spent = []
                for each in (gold, query):
                    start = time.perf_counter()
                    try:
                        await database.query(each, COMPARED, self.seconds)
                    except QueryFailed as error:
                        if each is gold or error.kind is ErrorKind.UNAVAILABLE:
                            raise Unscored(error.text) from error
                        return []
                    spent.append(time.perf_counter() - start)
                ratios.append(spent[0] / spent[1])
        return ratios

    def match(self, task: Task, query: str, gold: str) -> bool:
        """True if two queries match by the rules of Spider's exact set match (`sql_match.py`).

        Raises Unscored if `gold` is not of Spider's grammar, or the database is not there.
        """
        try:
            return set_match(query, gold, self._schema(task))
        except Unmatched as error:
            raise Unscored(f"the gold query of {task.id!r} can't be compared: {error}") from error

    def exact(self, episode: Episode, task: Task) -> float:
        """1 where the answer is the gold query, word by word (case, blanks, quotes aside) or by
        Spider's set match, and its result is right.

        Values are left out by that match, and SQLite reads a quoted name without a column as text.
        """
        if episode.answer is None:
            return 0.0
        gold = gold_query(task)
        alike = spelt(episode.answer) == spelt(gold)
        if not alike:
            with suppress(Unmatched):  # a gold query outside Spider's grammar
                alike = set_match(episode.answer, gold, self._schema(task))
        return float(alike and self.correct(task, episode.answer))

    def entities(self, episode: Episode, task: Task) -> float:
        """The overlap (Jaccard) of what the answer and the gold query name.

        That is tables and columns of the database, and values written as strings or numbers.
        """
        if episode.answer is None:
            return 0.0
        schema = self._schema(task)
        ours, gold = Named(episode.answer, schema), Named(gold_query(task), schema)
        either = ours.all | gold.all
        return len(ours.all & gold.all) / len(either) if either else 1.0

    def exploration(self, tokenizer: Tokenizer) -> RewardFunction:
        """ReEx-SQL's exploration part: 1 where a look-up brought news (`sql_look_ups.py`).

        The tokenizer reads what the policy was told: its tool's description may show the value.
        """

        def explored(episode: Episode, task: Task) -> float:
            gold, schema = gold_query(task), self._schema(task)
            ledger = episode.trajectory.ledgers[0]
            ids = [id for span in ledger if span.source is Source.PROMPT for id in span.ids]
            prompt = tokenizer.decode(ids)
            return float(brings_news(episode, gold, schema, task.question, prompt))

        return explored

    def less_if_wrong(self, part: RewardFunction, share: float) -> RewardFunction:
        """A part of which a wrong final query earns a share only."""

        def earned(episode: Episode, task: Task) -> float:
            value = part(episode, task)
            return value * share if value and not self.execution(episode, task) else value

        return earned

    async def _compare(self, task: Task, query: str, gold: str) -> Comparison:
        database = self.database(task)
        async with database.held():
            try:
                expected: Rows = await database.query(gold, COMPARED, self.seconds)
            except QueryFailed as error:
                raise Unscored(f"the gold query of {task.id!r} fails: {error.text}") from error
            if not expected.whole:
                raise Unscored(f"the gold query of {task.id!r} gives too much to be compared")
            try:
                given = await database.query(query, COMPARED, self.seconds)
            except QueryFailed as error:
                if error.kind is ErrorKind.UNAVAILABLE:
                    raise Unscored(error.text) from error
                return Comparison(False, error.text)
        return equal_results(gold, given, expected, task.data.get("rule", self.rule))

    def _schema(self, task: Task) -> Schema:
        try:
            return _now(self.database(task).schema())
        except QueryFailed as error:
            raise Unscored(error.text) from error


def well_formed(tokenizer: Tokenizer) -> RewardFunction:
    """ReEx-SQL's format part: 1 where the policy kept to the tags from beginning to end.

    It thought (`<think>`, closed) before it answered; every `<intermediate_sql>` could be read; it
    wrote no `<result>` itself; its last words are the one `<final_sql>`.
    """
    format = FORMATS["reex_sql"]
    assert isinstance(format, ReexSql)

    def check(episode: Episode, task: Task) -> float:
        trajectory = episode.trajectory
        if trajectory.format != format.name or trajectory.stop is not StopReason.ANSWERED:
            return 0.0
        plain = []
        for turn in trajectory.turns:
            text = policy_text(trajectory, turn, tokenizer)
            found = scan(text, format.marks, final=True, in_string=format.in_string)
            if found.unclosed or found.forged or any(c.arguments is None for c in turn.calls):
                return 0.0
            plain.append(found.plain)
        return float(_in_order("\n".join(plain)))

    return check


_TAGS = re.compile(r"</?(?:think|intermediate_sql|result|final_sql)>")
_ORDER = re.compile(r"(?:<think>)?</think>(?:<think></think>)*<final_sql></final_sql>")
"""A template may have opened the first thought."""


def _in_order(plain: str) -> bool:
    tags = "".join(_TAGS.findall(plain))
    return bool(_ORDER.fullmatch(tags)) and plain.rstrip().endswith("</final_sql>")


def _now(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine, awaited in its own thread: ours may run a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()

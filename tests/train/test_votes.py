"""A vote goes by the task's own notion of equality, the same in `vote@k` and in maj@k."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle
from pathlib import Path

import pytest
from support.attempts import TOKENIZER
from support.fakes import Echo, answer

from interlace.agent import Agent
from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.many.strategies import find_strategy
from interlace.rollout.many.votes import query_classes
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import Tool
from interlace.tools.sql import SqlTool
from interlace.train.evaluation.attempts import told_apart
from interlace.train.evaluation.results import measure
from interlace.train.rewards import Checker, why_unscored

SCRIPT = """
create table boat (id integer primary key, harbour text, length real);
insert into boat values (1, 'Oban', 9.5), (2, 'Oban', 12.0), (3, 'Mallaig', null);
create table storm (day text);
"""
COUNTS = [
    "SELECT count(*) FROM boat WHERE harbour = 'Oban'",
    "SELECT sum(harbour = 'Oban') FROM boat",
    "SELECT count(length) FROM boat",
]
"""Three queries that are written differently and all give 2."""
WRONG = "SELECT min(length) FROM boat"
NO_VOTE = [
    "SELECT day FROM storm",
    "SELECT max(day) FROM storm",
    "SELECT nothing FROM boat",
    "not a query",
]


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "boats.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCRIPT)
    return str(path)


def final(query: str) -> str:
    return f"<think>So.</think>\n<final_sql>{query}</final_sql>"


def voted(
    task: Task, replies: Sequence[str], format: str, tools: Sequence[Tool], checker: Checker
) -> tuple[Episode, list[Episode]]:
    """One episode of `vote@k`, as `interlace eval --strategy` makes it, and its k attempts."""
    script = cycle(replies)
    policy = Policy(ScriptedEngine(TOKENIZER, lambda request: next(script)), FORMATS[format], tools)
    made: list[Episode] = []

    def classes(task: Task, episodes: Sequence[Episode]) -> Sequence[int | None]:
        made.extend(episodes)
        return told_apart(checker)(task, episodes)

    runner = Runner(policy, strategy=find_strategy(f"vote@{len(replies)}", classes=classes))

    async def go() -> Episode:
        (episode,) = [episode async for episode in runner.run([task], seed=3)]
        return episode

    return asyncio.run(go()), made


def test_queries_that_give_the_same_are_one_answer_for_an_agent(database: str) -> None:
    said = iter([WRONG, *COUNTS, WRONG])
    engine = ScriptedEngine(TOKENIZER, lambda request: final(next(said)))
    agent = Agent(engine, tools=[f"sql:{database}"], format="reex_sql", strategy="vote@5")
    result = agent.run_sync("How many boats lie in Oban?")
    agent.close()
    assert result.answer in COUNTS


def test_queries_that_fail_or_find_nothing_have_no_vote(database: str) -> None:
    tool = SqlTool(database)
    queries = [NO_VOTE[0], COUNTS[0], NO_VOTE[1], None, COUNTS[1], WRONG, *NO_VOTE[2:]]
    assert query_classes(tool.database, queries, "ordered") == [
        None, 0, None, None, 0, 1, None, None
    ]  # fmt: skip


@pytest.mark.parametrize(
    "queries",
    [
        [WRONG, *COUNTS, WRONG],
        [NO_VOTE[0]] * 3 + NO_VOTE[1:] + [COUNTS[0], WRONG],
        [WRONG, COUNTS[1], NO_VOTE[0], COUNTS[0], WRONG, NO_VOTE[0], NO_VOTE[0], "SELECT 7"],
        [*NO_VOTE, NO_VOTE[3]],
    ],
)
def test_a_vote_on_queries_is_maj_at_k_of_the_same_attempts(
    database: str, queries: list[str]
) -> None:
    data = {"gold": COUNTS[0], "database": database}  # the format says that answers are queries
    task = Task("oban", "How many boats lie in Oban?", "2", data)
    with Checker() as checker:
        replies = [final(query) for query in queries]
        episode, made = voted(task, replies, "reex_sql", [SqlTool(database)], checker)
        chosen = measure([episode], checker)
        attempts = measure(made, checker)
    assert chosen.accuracy.value == attempts.majority_at[len(queries)].value
    assert attempts.accuracy.value < 1


@pytest.mark.parametrize(
    ("gold", "checker_name", "said", "wins"),
    [
        (
            r"\frac{1}{2}",
            "math",
            ["3", "0.5", "3", r"\frac{2}{4}", r"\frac12", "1", "x", "3"],
            None,
        ),
        (r"(1,2)", "math", ["(2,1)", "(1, 2)", r"\{1,2\}", "(1,2)", "7", "8", "9", "10"], "(1, 2)"),
        (
            "The Firth",
            "em",
            ["firth", "loch", "the firth!", "loch", "Firth", "a", "b", "c"],
            "firth",
        ),
    ],
)
def test_a_vote_on_answers_is_maj_at_k_of_the_same_attempts(
    gold: str, checker_name: str, said: list[str], wins: str | None
) -> None:
    task = Task("t", "What?", gold, {"checker": checker_name})
    with Checker() as checker:
        episode, made = voted(task, [answer(each) for each in said], "retool", [Echo()], checker)
        chosen = measure([episode], checker)
        attempts = measure(made, checker)
    assert wins is None or episode.answer == wins
    assert chosen.accuracy.value == attempts.majority_at[8].value


def test_a_database_that_is_gone_is_our_failure_and_decides_no_vote(database: str) -> None:
    data = {"checker": "sql", "gold": COUNTS[0], "database": database + ".gone"}
    task, tools = Task("t", "?", None, data), [SqlTool(database)]
    with Checker() as checker:
        episode, _ = voted(task, [final(WRONG)] * 2, "reex_sql", tools, checker)
    assert (episode.stop, episode.answer) == (StopReason.INFRASTRUCTURE, None)
    assert episode.error is not None and "gone" in episode.error
    assert why_unscored(episode) is not None

"""BIRD's efficiency scores: the formulas, and real queries on a real database."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.attempts import TOKENIZER, attempt

from interlace.rollout.task import Task
from interlace.tools.sql import SqlTool
from interlace.train.rewards import REWARDS, Checker
from interlace.train.rewards.efficiency import r_ves, ves

GOLD = "select count(*) from ship"
SLOW = (
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 400000) "
    "select (select count(*) from ship) where (select max(i) from n) > 0"
)


def test_the_formulas() -> None:
    steps = [r_ves([ratio]) ** 2 for ratio in (3.0, 2.0, 1.9, 1.0, 0.99, 0.5, 0.3, 0.25, 0.1)]
    assert steps == pytest.approx([1.25, 1.25, 1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25])
    assert ves([4.0]) == 2.0 and ves([1.0] * 10) == r_ves([1.0] * 10) == 1.0  # none is dropped
    assert ves([1.0] * 30 + [1_000.0]) == 1.0  # an outlier
    assert ves([1.0, 2.0]) == pytest.approx(math.sqrt(1.5))


def test_a_wrong_query_has_0_and_a_right_one_its_speed(tmp_path: Path) -> None:
    path = tmp_path / "port.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("create table ship (name); insert into ship values ('Ida'), ('Bo');")
    task = Task("v", "?", None, {"checker": "sql", "rule": "bird", "gold": GOLD,
                                 "database": str(path)})  # fmt: skip
    totals: dict[str, float] = {}
    with Checker() as checker:
        for query in (GOLD, SLOW, "select 3", "no query", "select 2"):
            told = attempt(
                task,
                f"<final_sql>{query}</final_sql>",
                format="reex_sql",
                tools=[SqlTool(str(path))],
            )
            score = REWARDS["bird"](checker, TOKENIZER).score(told)
            assert score.problem is None and score.total is not None
            totals[query] = score.total
    assert totals["select 3"] == totals["no query"] == 0.0
    assert totals[GOLD] in map(math.sqrt, (1.25, 1.0, 0.75, 0.5, 0.25))
    assert totals["select 2"] and totals[SLOW] < 1.0  # some hundred times slower

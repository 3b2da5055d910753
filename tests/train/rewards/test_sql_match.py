"""Spider's exact set match: what is the same component by component, and what is not."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from interlace.rollout.task import Task
from interlace.train.data.sources import find_tasks
from interlace.train.rewards import Checker, Unscored

SCRIPT = """
create table ship (id integer primary key, name text, tons integer, flag text);
create table crew (ship integer references ship(id), name text, age integer);
"""
SAME = [
    ("select name, tons from ship where tons > 9 and flag = 'red'",
     "SELECT T1.tons, T1.name FROM ship AS T1 WHERE T1.flag = \"blue\" AND T1.tons > 7;"),
    ("select distinct name from ship", "select name from ship"),
    ("select count(*) from ship where tons <> 3", "select COUNT( * ) from ship where tons != 4"),
    ("select a.name from ship a join crew b on a.id = b.ship group by a.id",
     "select ship.name from crew join ship on crew.ship = ship.id group by crew.ship"),
    ("select name from ship order by tons desc limit 1",
     "select name from ship order by ship.tons desc limit 3"),
    ("select name from ship where tons between 1 and 2 or flag like 'r%'",
     "select name from ship where flag like '%b' or tons between 3 and 4"),
    ("select name from ship where id not in (select ship from crew where age > 1 and name = 'x')",
     "select name from ship where id not in"
     " (select c.ship from crew c where c.name = 'y' and c.age > 2)"),
    ("select name from ship union select name from crew",
     "SELECT name FROM ship UNION SELECT T.name FROM crew AS T"),
    ("select flag from ship group by flag having count(*) > 2",
     "select flag from ship group by flag having count(*) > 9"),
]  # fmt: skip
OTHER = [
    ("select name, tons from ship", "select name from ship"),
    ("select name from ship", "select name from crew"),
    ("select max(tons) from ship", "select min(tons) from ship"),
    ("select name from ship where tons > 9", "select name from ship where tons >= 9"),
    ("select name from ship where tons > 9 and id > 1",
     "select name from ship where tons > 9 or id > 1"),
    ("select name from ship where tons > 9", "select name from ship"),
    ("select name from ship where flag like 'r'", "select name from ship where flag not like 'r'"),
    ("select name from ship order by tons", "select name from ship order by tons desc"),
    ("select name from ship order by tons limit 1", "select name from ship order by tons"),
    ("select name from ship union select name from crew",
     "select name from ship intersect select name from crew"),
    ("select name from ship where id in (select ship from crew)",
     "select name from ship where id in (select age from crew)"),
    ("select flag from ship group by flag having count(*) > 2",
     "select flag from ship group by flag"),
    ("select a.name from ship a join crew b on a.id = b.ship", "select name from ship"),
    ("select a.name from ship a join crew b on a.id = b.ship",
     "select b.name from ship a join crew b on a.id = b.ship"),
]  # fmt: skip
HOSTILE = [
    "", ";", "select", "(", "select name", "select name from", "from ship select name",
    "select ship.", "select name from ship group name, tons",
    "select name from ship where", "select name, from ship where (",
    "with x as (select 1) select 1",
    "name ship", "select name from ship -- where tons > 9", "select name from ship group",
    "(" * 5_000, "select name from ship where id in " + "(select id from ship where id in " * 600,
    "select name from ship where tons > 9 and tons > 9", "select name from ship order", "union",
]  # fmt: skip


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "port" / "port.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCRIPT)
    rows = tmp_path / "dev.json"
    rows.write_text(json.dumps([{"db_id": "port", "question": "?", "query": "select 1"}]))
    (task,) = find_tasks(f"spider:{rows}:{tmp_path}@checker=set_match")
    return task


def with_gold(task: Task, gold: str) -> Task:
    return Task("m", "?", None, task.data | {"gold": gold})


def test_components_are_compared_as_sets(task: Task) -> None:
    with Checker() as checker:
        for a, b in SAME:
            assert checker.right(with_gold(task, a), b), (a, b)
            assert checker.right(with_gold(task, b), a), (b, a)
        for a, b in OTHER:
            assert not checker.right(with_gold(task, a), b), (a, b)
            assert not checker.right(with_gold(task, b), a), (b, a)


def test_what_is_no_query_of_the_grammar_is_wrong_or_has_no_score(task: Task) -> None:
    with Checker() as checker:
        gold = with_gold(task, "select name from ship where tons > 9")
        for query in HOSTILE:
            assert not checker.right(gold, query), query[:60]
        for query in ("select case when 1 then 2 end from ship", "select 1", "("):
            with pytest.raises(Unscored):
                checker.right(with_gold(task, query), "select name from ship")

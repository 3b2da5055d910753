"""SQL rewards on real databases: execution, and ReEx-SQL's five parts."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.attempts import TOKENIZER, attempt
from support.entered import entered

from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.sql import SqliteDatabase, SqlTool, Workers
from interlace.train.rewards import REWARDS, Checker, SqlJudge, Unscored

SCRIPT = """
create table parcel (id integer primary key, town text, status text, weight integer);
insert into parcel values (1, 'NEW_HAVEN', 'B42', 900), (2, 'NEW_HAVEN', 'B17', 3100),
    (3, 'OSLO', 'B42', 5000), (4, 'OSLO', 'B42', 100),
    (5, 'AARHUS', 'B03', 70), (6, 'BERGEN', 'B08', 80), (7, 'CORK', 'B11', 90);
create table status_code (code text primary key, meaning text);
insert into status_code values
    ('B42', 'LOST'), ('B17', 'SENT'), ('B03', 'BACK'), ('B08', 'HELD'), ('B11', 'HERE');
create table unit (column_name text primary key, unit text);
insert into unit values ('weight', 'g'), ('id', 'counts'), ('size', 'cm'), ('town', 'dm');
create table employee (id integer primary key, name text);
insert into employee values (1, 'Ann');
"""
GOLD = "SELECT count(*) FROM parcel WHERE status = 'B42' AND town = 'OSLO' AND weight > 1000"
LOOK = "select distinct town from parcel"
THINK = "<think>Let me see.</think>\n"
WORKERS = Workers(2)


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    """The processes of all tests are started once."""
    with entered(WORKERS.held()):
        yield


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCRIPT)
    data = {"checker": "sql", "gold": GOLD, "database": str(path)}
    return Task("parcels", "How many lost parcels in Oslo weigh more than 1 kg?", None, data)


def look(query: str) -> str:
    return f"<intermediate_sql>{query}</intermediate_sql>"


def final(query: str) -> str:
    return f"<final_sql>{query}</final_sql>"


def roll(task: Task, *script: str) -> Episode:
    tool = SqlTool(SqliteDatabase(task.data["database"], workers=WORKERS))
    return attempt(task, *script, format="reex_sql", tools=[tool])


def parts(task: Task, *script: str) -> dict[str, float]:
    with Checker() as checker:
        score = REWARDS["reex_sql"](checker, TOKENIZER).score(roll(task, *script))
    assert score.problem is None
    return score.rewards


def exploration(task: Task, queries: Sequence[str], answer: str = GOLD) -> float:
    script = [THINK + look(queries[0]), *map(look, queries[1:]), THINK + final(answer)]
    return SqlJudge(workers=WORKERS).exploration(TOKENIZER)(roll(task, *script), task)


def test_an_exemplary_episode_earns_all_nine_points(task: Task) -> None:
    rewards = parts(task, THINK + look(LOOK), THINK + final(GOLD.lower().replace("b42", "B42")
                    .replace("oslo", "OSLO") + ";"))  # fmt: skip
    assert rewards["total"] == 9.0
    five = ("format", "execution", "exact_match", "entity", "exploration")
    assert [rewards[name] for name in five] == [1.0] * 5


def test_another_query_with_the_same_result_is_right_but_no_exact_match(task: Task) -> None:
    other = "select sum(status = 'B42') from parcel where town = 'OSLO' and weight > 1000"
    rewards = parts(task, THINK + final(other))
    assert (rewards["execution"], rewards["exact_match"]) == (1.0, 0.0)
    assert rewards["entity"] == 1.0 and rewards["exploration"] == 0.0


def test_a_quoted_word_that_sqlite_reads_as_text_keeps_its_case(task: Task) -> None:
    gold = 'select count(*) from parcel where town = "OSLO"'
    quoted = replace(task, data=task.data | {"gold": gold})
    rewards = parts(quoted, THINK + final(gold.replace("OSLO", "oslo")))
    assert (rewards["execution"], rewards["exact_match"]) == (0.0, 0.0)
    assert parts(quoted, THINK + final(gold.replace("town", "Town")))["exact_match"] == 1.0


def test_conditions_in_another_order_are_an_exact_match_and_other_values_are_none(
    task: Task,
) -> None:
    turned = "SELECT count(*) FROM parcel WHERE weight > 1000 AND town = 'OSLO' AND status = 'B42'"
    assert parts(task, THINK + final(turned))["exact_match"] == 1.0
    assert parts(task, THINK + final(GOLD.replace("OSLO", "CORK")))["exact_match"] == 0.0


def test_a_query_that_names_half_of_it_earns_part_of_the_entity_point(task: Task) -> None:
    rewards = parts(task, THINK + final("select count(*) from parcel where town = 'OSLO'"))
    # parcel, town, 'OSLO' of parcel, status, town, weight, 'B42', 'OSLO', 1000
    assert rewards["entity"] == pytest.approx(3 / 7 / 2)  # and half of it, as it is wrong
    assert rewards["execution"] == 0.0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT 'B42'",
        "SELECT 'B42' AS status",
        "SELECT 1 FROM parcel",
        "SELECT count(*) FROM parcel",
        "SELECT 'B42' FROM employee",
        "SELECT * FROM employee",
        "SELECT name, 'weight' FROM employee",
        "SELECT 'weight' = 'weight' FROM employee",
        "SELECT status FROM parcel WHERE 1 = 0",
        "SELECT nothing FROM parcel",
        "SELECT weight FROM",
        GOLD,
        f"{GOLD.lower().replace('b42', 'B42').replace('oslo', 'OSLO')} ;",
        # Dumps, though the rows hold B42 and OSLO.
        "SELECT * FROM parcel",
        "SELECT * FROM parcel LIMIT 3",
        "SELECT * FROM parcel WHERE town != 'CORK' ORDER BY id DESC",
        "SELECT * FROM parcel WHERE NOT town = 'lost'",
        "SELECT id, town, status, weight FROM parcel",
        "SELECT * FROM status_code",
        # The prompt says it.
        "SELECT unit FROM unit WHERE column_name = 'id'",
        "SELECT DISTINCT town FROM parcel ORDER BY town LIMIT 3",
        # It is in the look-up.
        "SELECT status FROM parcel WHERE status = 'B42' LIMIT 1",
    ],
)
def test_a_look_up_without_news_earns_nothing(task: Task, query: str) -> None:
    assert exploration(task, [query]) == 0.0


@pytest.mark.parametrize(
    "query",
    [
        LOOK,
        "select town, status from parcel",
        "select * from parcel where town like '%slo' limit 1",
        "select code from status_code where meaning = 'LOST'",
        "select unit from unit where column_name = 'weight'",
        "select unit from unit where column_name in ('weight', 'status')",
    ],
)
def test_a_look_up_that_finds_what_the_gold_query_rests_on_earns_the_part(
    task: Task, query: str
) -> None:
    assert exploration(task, ["SELECT 1", query]) == 1.0


def test_a_code_among_the_samples_is_news_only_with_its_meaning(task: Task) -> None:
    gold = GOLD.replace("B42", "B03").replace("OSLO", "AARHUS")  # both are among the samples
    task = replace(
        task, question="How many in AARHUS that are back ...?", data={**task.data, "gold": gold}
    )
    assert exploration(task, [LOOK], gold) == 0.0
    assert exploration(task, ["select distinct status from parcel"], gold) == 0.0
    assert exploration(task, ["select status, town from parcel"], gold) == 0.0
    assert exploration(task, ["select code from status_code"], gold) == 0.0
    assert exploration(task, ["select code, meaning from status_code"], gold) == 1.0
    assert exploration(task, ["select code from status_code where meaning = 'BACK'"], gold) == 1.0


def test_a_copy_of_the_final_query_is_no_look_up(task: Task) -> None:
    wrong = "select count(*) from parcel where status = 'lost'"
    assert exploration(task, [wrong.upper().replace("LOST", "lost")], wrong) == 0.0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([final(GOLD)], id="no thought"),
        pytest.param([f"{THINK}<final_sql>SELECT 1 or {final(GOLD)}"], id="two answers"),
        pytest.param([f"{THINK}<result>\nB42\n</result>{final(GOLD)}"], id="forged result"),
        pytest.param([THINK + look(" "), THINK + final(GOLD)], id="empty look-up"),
        pytest.param([f"<think>{final(GOLD)}</think>"], id="answer inside the thought"),
        pytest.param([f"{THINK}<think>and{final(GOLD)}"], id="thought left open"),
        pytest.param([THINK + "I do not know."], id="no answer"),
    ],
)
def test_broken_tags_earn_no_format_part(task: Task, script: list[str]) -> None:
    assert parts(task, *script)["format"] == 0.0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([f"Look.</think>\n{final(GOLD)}"], id="the template opened the thought"),
        pytest.param(
            [f"<think>a {look(LOOK)}", f"b</think>{final(GOLD)}"], id="a look-up within a thought"
        ),
        pytest.param(
            [THINK + look("select '<final_sql></think>' from parcel"), THINK + final(GOLD)],
            id="tags in a string of a query",
        ),
    ],
)
def test_tags_in_order_earn_it(task: Task, script: list[str]) -> None:
    assert parts(task, *script)["format"] == 1.0


def test_an_answer_in_what_the_database_returns_is_not_the_policys(task: Task) -> None:
    with closing(sqlite3.connect(task.data["database"])) as db, db:
        db.execute("insert into employee values (2, ?)", [final(GOLD)])
    rewards = parts(task, THINK + look("select name from employee"), THINK + "There it stands.")
    assert {name: rewards[name] for name in ("format", "execution", "exact_match", "entity")} == {
        "format": 0.0,
        "execution": 0.0,
        "exact_match": 0.0,
        "entity": 0.0,
    }


def test_the_rule_of_comparison_can_be_chosen(task: Task) -> None:
    names = Task("names", "?", None, task.data | {"gold": "select town from parcel"})
    once = "select distinct town from parcel"
    assert not SqlJudge().correct(names, once)
    assert SqlJudge(rule="bird").correct(names, once)
    by_task = Task("names", "?", None, names.data | {"rule": "bird"})
    assert SqlJudge().correct(by_task, once)


def test_what_fails_on_our_side_is_no_reward_of_zero(task: Task, tmp_path: Path) -> None:
    judge = SqlJudge()
    cases: list[tuple[dict[str, str | None], str]] = [
        ({"gold": "select nothing from parcel"}, "the gold query"),
        ({"database": str(tmp_path / "none.sqlite")}, "can't be read"),
        ({"database": None}, "names no database"),
        ({"gold": None}, "no gold query"),
    ]
    for change, message in cases:
        with pytest.raises(Unscored, match=message):
            judge.correct(Task("a", "?", None, task.data | change), GOLD)
    judge = SqlJudge(seconds=1.0)
    assert not judge.correct(task, "drop table parcel")
    assert not judge.correct(task, "with recursive n(i) as (select 1 union all select i + 1 from n)"
                             " select count(*) from n")  # fmt: skip


def test_it_can_be_asked_while_a_loop_runs(task: Task) -> None:
    async def go() -> bool:
        return SqlJudge().correct(task, GOLD)

    assert asyncio.run(go())

"""Questions over small databases: the gold queries are right, and right only after looking."""

import asyncio
import itertools
import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, replace

import pytest

from interlace.rollout.task import Task
from interlace.tools.errors import DataError, UsageError
from interlace.tools.sql import COMPARED, SqliteDatabase, SqlTool, Workers
from interlace.train.data.generators.database import (
    LEVELS,
    Databases,
    check,
    check_query,
    open_database,
    twin,
)
from interlace.train.data.generators.endless import SPLITS
from interlace.train.data.generators.table_domains import PLACES, STYLES, TABLE_DOMAINS
from interlace.train.data.task_tools import TaskTools
from interlace.train.rewards import SqlJudge, Unscored

WORKERS = Workers(1)


def draw(number: int, **settings: object) -> list[Task]:
    source = Databases(**({"seed": 7} | settings))  # type: ignore[arg-type]
    return list(itertools.islice(source, number))


def databases(tasks: list[Task]) -> list[tuple[Task, SqliteDatabase]]:
    return [(task, open_database(task, workers=WORKERS)) for task in tasks]


@pytest.mark.parametrize("split", SPLITS)
def test_every_gold_query_gives_the_answer(split: str) -> None:
    """The answer is counted in Python, from the rows as they were drawn."""

    async def go() -> None:
        async with WORKERS.held():
            for task, database in databases(draw(150, split=split)):
                rows = await database.query(task.data["gold"], COMPARED, 60.0)
                assert rows.whole and rows.rows == ((int(str(task.answer)),),)
                assert check(task, str(rows.rows[0][0]))
                assert not check(task, str(int(str(task.answer)) + 1))
                assert await check_query(task, task.data["gold"], workers=WORKERS)

    asyncio.run(go())


def test_a_query_with_the_words_of_the_question_is_wrong() -> None:
    """Every lookup is needed: its value as the question has it gives another result."""

    async def go() -> None:
        async with WORKERS.held():
            for task in draw(100, levels=(2, 3, 4, 5, 6)):
                asked = task.question
                conditions = task.data["gold"].split(" where ")[1].split(" and ")
                assert len(conditions) == len(task.data["lookups"])
                for condition in conditions:
                    value = condition.split(" ", 2)[2].strip("'")
                    naive = task.data["gold"].replace(value, _as_asked(value, asked))
                    assert naive != task.data["gold"]
                    assert not await check_query(task, naive, workers=WORKERS), naive

    asyncio.run(go())


def _as_asked(value: str, asked: str) -> str:
    """The value as the question has it: a number, a place, or a kind."""
    if value.isdecimal():
        return next(word for word in asked.split() if word.isdecimal())
    places = [place for place in PLACES if place in asked]
    kinds = [kind for world in TABLE_DOMAINS for kind in world.kinds if f" {kind}" in asked]
    is_code = len(value) == 3 and value[1:].isdecimal()
    return kinds[0] if is_code else places[0]


def test_a_code_can_be_had_without_looking_where_its_meaning_is_spelt_as_asked() -> None:
    """What level 3 asks for: a query that finds the code by the question's own word is right where
    the database spells that word as the question does, and finds nothing where it does not. So a
    policy that looks is always right, and one that never looks is right in some databases only.
    """

    async def go() -> None:
        right = {True: 0, False: 0}
        async with WORKERS.held():
            for task in draw(120, levels=(3,)):
                made = task.data["database"]
                world = TABLE_DOMAINS[made["world"]]
                gold = task.data["gold"]
                code = gold.split("'")[1]
                [kind] = [kind for kind in world.kinds if f" {kind}" in task.question]
                codes = f"{world.kind}_code"
                blind = f"(select code from {codes} where meaning = '{kind}')"
                database = open_database(task, workers=WORKERS)
                meaning = f"select meaning from {codes} where code = '{code}'"
                [[spelt]] = (await database.query(meaning, COMPARED, 60.0)).rows
                result = await check_query(
                    task, gold.replace(f"'{code}'", blind), workers=WORKERS, seconds=60.0
                )
                assert result.equal is (spelt == kind), (gold, spelt, kind)
                right[result.equal] += 1
        assert right[True] > 20 and right[False] > 20

    asyncio.run(go())


def test_mutated_gold_queries_are_unequal() -> None:
    """Unless the change changes nothing: a bare SQLite tells which."""
    mutations = (
        (" and ", " or "),
        (" > ", " <= "),
        (" = ", " <> "),
        ("count(*)", "count(*) + 1"),
        ("sum(", "count("),
        ("max(", "min("),
        ("select ", "select 1, "),
        ("select ", "select -"),
        (" from ", " || '' from "),
    )

    async def go() -> None:
        unequal, tried = 0, 0
        async with WORKERS.held():
            for task, database in databases(draw(40, levels=(5, 6))):
                gold = task.data["gold"]
                with closing(sqlite3.connect(":memory:")) as bare:
                    bare.deserialize(database._source.image)
                    for old, new in mutations:
                        if old in gold:
                            mutated = gold.replace(old, new)
                            same = bare.execute(mutated).fetchall() == bare.execute(gold).fetchall()
                            result = await check_query(task, mutated, workers=WORKERS)
                            assert result.equal is same, mutated
                            tried, unequal = tried + 1, unequal + (not result)
                for broken in ("", "select", "drop table unit", "select nothing from unit"):
                    assert not await check_query(task, broken, workers=WORKERS)
        assert tried > 200 and unequal / tried > 0.9

    asyncio.run(go())


def test_the_tool_for_a_tasks_own_database_takes_settings() -> None:
    (task,) = draw(1)
    tool = TaskTools(sql="sql@rows=2,schema_budget=0").tool(task)
    assert "column_name" in TaskTools().tool(task).description
    assert "column_name" not in tool.description
    table = task.data["gold"].split(" from ")[1].split()[0]
    assert "(the first 2 of " in tool.ask(f"select id from {table}").text  # type: ignore[attr-defined]
    server = replace(task, data={"database": "postgresql://elsewhere/x"})
    with pytest.raises(DataError, match="not a server"):
        TaskTools().tool(server)
    with pytest.raises(Unscored, match="not a server"):
        SqlJudge().correct(replace(server, data=server.data | {"gold": "select 1"}), "select 1")
    with pytest.raises(UsageError, match="unknown parameter of sql 'row'"):
        TaskTools(sql="sql@row=2")


def test_the_steps_look_up_what_the_gold_query_needs() -> None:
    """What a model reads on the way holds every value of the gold query."""

    async def go() -> None:
        async with WORKERS.held():
            tool = SqlTool(SqliteDatabase.memory("select 1", workers=WORKERS), schema_budget=0)
            for task, database in databases(draw(80, levels=(2, 3, 5))):
                *lookups, gold = task.data["steps"]
                assert gold == task.data["gold"] and len(lookups) == len(task.data["lookups"])
                read = ""
                for query in lookups:
                    result = await tool.on(database).call(query, 60.0)
                    assert result.ok and result.details["whole"]
                    read += result.text
                for condition in gold.split(" where ")[1].split(" and "):
                    value = condition.split(" ", 2)[2].strip("'")
                    assert value in read or value.isdecimal()

    asyncio.run(go())


def test_a_twin_asks_the_same_of_another_database() -> None:
    """Whoever knows the first database's values, and not the twin's, answers wrongly there."""

    async def go() -> None:
        same = tried = 0
        async with WORKERS.held():
            for task in draw(60):
                other = twin(task)
                assert other.question == task.question and other.answer != task.answer
                rows = await open_database(other, workers=WORKERS).query(
                    other.data["gold"], COMPARED, 60.0
                )
                assert rows.rows == ((int(str(other.answer)),),)
                if task.data["lookups"]:
                    assert other.data["gold"] != task.data["gold"]
                    tried += 1
                    same += bool(await check_query(other, task.data["gold"], workers=WORKERS))
        assert same / tried < 0.1  # the largest number of some rows may be that of others, too

    asyncio.run(go())


def test_further_questions_are_about_the_same_database() -> None:
    first = draw(1)[0]
    more = draw(20, database=first.data["database"], seed=8)
    assert {str(task.data["database"]) for task in more} == {str(first.data["database"])}
    assert len({task.question for task in more}) > 10


def test_tasks_follow_from_their_seed_alone() -> None:
    for split in SPLITS:
        first, again = draw(30, split=split), draw(30, split=split)
        assert [asdict(task) for task in first] == [asdict(task) for task in again]
        assert first[17] == Databases(seed=7, split=split)[17]
        assert len({task.question for task in first}) > 25
        assert first[0] != draw(1, split=split, seed=8)[0]
        for task in first:
            stored = Task(**json.loads(json.dumps(asdict(task))))
            assert open_database(stored)._source == open_database(task)._source


def test_no_test_question_can_have_been_trained_on() -> None:
    def questions(split: str, seed: int) -> set[tuple[str, str]]:
        tasks = draw(600, split=split, seed=seed)
        return {(t.data["template"], t.question) for t in tasks}

    trained, tested = questions("train", 1), questions("test", 2)
    assert not trained & tested
    assert {template for template, _ in trained} == {template for template, _ in tested}
    held_out = {template for template, _ in questions("held_out", 3)}
    assert held_out and not held_out & {template for template, _ in trained}


def test_levels_say_what_must_be_looked_up() -> None:
    for level, combinations in LEVELS.items():
        tasks = draw(40, levels=(level,))
        assert {task.data["level"] for task in tasks} == {level}
        assert {tuple(task.data["lookups"]) for task in tasks} == set(combinations)
        assert {task.data["needs_tool"] for task in tasks} == {level > 1}
    with pytest.raises(ValueError, match="levels"):
        Databases(seed=1, levels=(9,))
    with pytest.raises(ValueError, match="split"):
        Databases(seed=1, split="dev")


def test_spellings_never_collide() -> None:
    for style in STYLES.values():
        assert len({style(place) for place in PLACES}) == len(PLACES)
        assert not {style(place) for place in PLACES} & set(PLACES)
        for world in TABLE_DOMAINS:
            assert len({style(kind) for kind in world.kinds}) == len(world.kinds)

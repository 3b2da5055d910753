"""Tricks with results: what counts as the same answer, on SQLite and DuckDB, as the reward sees it.

The rule is in docs/sql.md, "When two results are equal".
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.entered import entered

from interlace.rollout.task import Task
from interlace.tools.sql import Workers
from interlace.train.rewards import SqlJudge, Unscored

SCRIPT = """
create table t (id integer, n integer, s text, price double);
insert into t values (1, 10, 'Ann', 0.1), (2, 10, 'Bob', 0.2), (3, 20, 'Bob', 0.7),
    (4, null, '', null);
create table empty (id integer);
"""

# name: (gold query, answer, equal or not)
TRICKS: dict[str, tuple[str, str, bool]] = {
    # NULL
    "NULL is NULL": ("select n from t where id = 4", "select null", True),
    "NULL is not the empty text": (
        "select n from t where id = 4",
        "select s from t where id = 4",
        False,
    ),
    "NULL is not 0": ("select n from t where id = 4", "select 0", False),
    "NULL is not the text NULL": ("select null", "select 'NULL'", False),
    # duplicates
    "duplicates count": ("select s from t", "select distinct s from t", False),
    "duplicates count, each": (
        "select 1 union all select 1 union all select 2",
        "select 1 union all select 2 union all select 2",
        False,
    ),
    # order
    "no order without ORDER BY": ("select id from t", "select id from t order by id desc", True),
    "order with ORDER BY": (
        "select id from t order by id",
        "select id from t order by id desc",
        False,
    ),
    "order in a subquery is none": (
        "select id from (select * from t order by id) as u",
        "select id from t order by id desc",
        True,
    ),
    "ties change places": (
        "select n, id from t where n is not null order by n",
        "select n, id from t where n is not null order by n, id desc",
        True,
    ),
    "LIMIT decides between ties": (
        "select n, id from t where n = 10 order by n, id limit 1",
        "select n, id from t where n = 10 order by n, id desc limit 1",
        False,
    ),
    # columns
    "names of columns don't count": ("select n as a from t", "select n as b from t", True),
    "order of columns counts": ("select id, n from t", "select n, id from t", False),
    "a column more": ("select id from t", "select id, n from t", False),
    "a column twice": ("select id from t", "select id, id from t", False),
    # numbers
    "1 and 1.0": ("select 1", "select 1.0e0", True),
    "-0.0 and 0.0": ("select 0.0e0", "select -0.0e0", True),
    "0.1 + 0.2": ("select 0.3e0", "select sum(price) from t where id < 3", True),
    "0.3 and 0.3001": ("select 0.3e0", "select 0.3001e0", False),
    "large integers are exact": ("select 9007199254740993", "select 9007199254740992", False),
    "text 1 and 1": ("select 1", "select '1'", False),
    "text 1.0 and 1.0": ("select 1.0e0", "select '1.0'", False),
    "text 01 and 1": ("select '1'", "select '01'", False),
    "infinity": ("select 1e999", "select 1e308 * 10e0", True),
    "signs of infinities": ("select 1e999", "select -1e999", False),
    "infinity and a large number": ("select 1e999", "select 1.7976931348623157e308", False),
    # text
    "case counts": ("select 'Ann'", "select 'ann'", False),
    "collations of the query don't count": (
        "select s from t where id = 1",
        "select 'ann' collate nocase",
        False,
    ),
    "trailing blanks count": ("select 'Ann'", "select 'Ann '", False),
    "a line feed counts": ("select 'Ann'", "select 'Ann' || chr(10)", False),
    "Unicode forms are different texts": ("select 'é'", "select 'e' || chr(769)", False),
    "look-alikes are different texts": ("select 'A'", "select '\u0410'", False),
    "dates as text are texts": ("select '2024-01-02'", "select '2024-1-2'", False),
    "the same date as text": ("select '2024-01-02'", "select date('2024-01-02') || ''", True),
    "a blob is not its text": ("select 'Ann'", "select cast('Ann' as blob)", False),
    "the same blob": ("select cast('Ann' as blob)", "select cast('An' || 'n' as blob)", True),
    "another blob": ("select cast('Ann' as blob)", "select cast('Anna' as blob)", False),
    # no rows
    "no rows": ("select id from empty", "select n from t where id = 99", True),
    "no rows and a NULL": ("select id from empty", "select max(id) from empty", False),
    "no rows of other columns": (
        "select id from empty",
        "select id, n from t where id = 99",
        False,
    ),
    # ways to the answer that are none
    "a constant that is right": ("select count(*) from t", "select 4", True),
    "an error": ("select count(*) from t", "select count(*) from nowhere", False),
    "two statements": ("select count(*) from t", "select count(*) from t; select 4", False),
    "a statement and its end": ("select count(*) from t", "select count(*) from t;", True),
    "a statement and a remark": (
        "select count(*) from t",
        "select count(*) from t -- all of them",
        True,
    ),
    "a change": ("select count(*) from t", "delete from t returning 4", False),
    "ATTACH": ("select count(*) from t", "attach ':memory:' as m", False),
    "PRAGMA": ("select count(*) from t", "pragma foreign_keys = 4", False),
    "nothing": ("select count(*) from t", "", False),
    "a remark only": ("select count(*) from t", "-- 4", False),
    "a CTE with a table's name": (
        "select n from t",
        "with t as (select 10 as n union all select 10 union all select 20 union all select null)"
        " select n from t",
        True,
    ),
    "a CTE of the gold query": (
        "with u as (select * from t) select id from u order by id desc",
        "select id from t order by id",
        False,
    ),
    "a huge result": (
        "select count(*) from t",
        "with recursive r(n) as (select 1 union all select n + 1 from r where n < 99999)"
        " select n from r",
        False,
    ),
}

ON_SQLITE = {
    "NaN is NULL there": ("select 1e999 - 1e999", "select null", True),
    "a boolean is a number there": ("select true", "select 1", True),
    "a number made of text": ("select 1", "select '1' + 0", True),
    "text that begins alike": ("select 'a'", "select 'a' || char(0) || 'b'", False),
    "texts that are not UTF-8": (
        "select cast(x'636166e9' as text)",  # "café" and "cafè" in Latin-1
        "select cast(x'636166e8' as text)",
        False,
    ),
    "the same text that is not UTF-8": (
        "select cast(x'636166e9' as text)",
        "select cast(x'636166' as text) || cast(x'e9' as text)",
        True,
    ),
    "random numbers": ("select random()", "select random()", False),
    "ORDER BY in a remark": (
        "select id from t -- order by id",
        "select id from t order by -id",
        True,
    ),
    "ORDER BY of a compound": (
        "select 1 union select 2 order by 1 desc",
        "select 1 union select 2",
        False,
    ),
    "nothing by LIMIT": ("select id from t order by id limit 0", "select 1 where 0", True),
}
ON_DUCKDB = {
    "NaN is NaN": ("select 'nan'::double", "select 0.0e0 / 0.0e0 + 'nan'::double", True),
    "NaN is not NULL": ("select 'nan'::double", "select null", False),
    "NaN is not a text": ("select 'nan'::double", "select 'nan'", False),
    "decimals of two scales": ("select 1.10::decimal(9,2)", "select 1.1::decimal(9,1)", True),
    "a decimal and a double": ("select 1.1::decimal(9,1)", "select 1.1::double", True),
    "a decimal and a text": ("select 1.1::decimal(9,1)", "select '1.1'", False),
    "decimals of twenty digits": (
        "select 12345678901234567890.12::decimal(38,2)",
        "select 12345678901234567890.13::decimal(38,2)",
        False,
    ),
    "integers of 128 bits": (
        "select 170141183460469231731687303715884105727",
        "select 170141183460469231731687303715884105726",
        False,
    ),
    "a boolean is no number": ("select true", "select 1", False),
    "booleans": ("select true", "select 1 = 1", True),
    "a date and its text": ("select date '2024-01-02'", "select '2024-01-02'", True),
    "a date and midnight": ("select date '2024-01-02'", "select timestamp '2024-01-02'", False),
    "one moment in two zones": (
        "select timestamptz '2024-01-02 00:00:00+00'",
        "select timestamptz '2024-01-02 01:00:00+01'",
        True,
    ),
    "a microsecond": (
        "select timestamp '2024-01-02'",
        "select timestamp '2024-01-02 00:00:00.000001'",
        False,
    ),
    "lists": ("select [1, 2]", "select [2, 1]", False),
    "names in a struct": ("select {'a': 1}", "select {'b': 1}", False),
    "ORDER BY ALL": ("select id from t order by all", "select id from t order by id desc", False),
    "FROM first": ("from t select id order by id", "from t select id order by id desc", False),
    "a setting": ("select count(*) from t", "set threads = 4", False),
}


@pytest.fixture(scope="module")
def judge() -> Iterator[SqlJudge]:
    workers = Workers(1)
    with entered(workers.held()):
        yield SqlJudge(seconds=60.0, workers=workers)


def test_tricks_on_sqlite(judge: SqlJudge, tmp_path: Path) -> None:
    file = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(SCRIPT)
    sqlite = {
        name: (gold.replace("chr(", "char("), query.replace("chr(", "char("), equal)
        for name, (gold, query, equal) in TRICKS.items()
    }
    assert wrong(judge, file, sqlite | ON_SQLITE) == {}


def test_tricks_on_duckdb(judge: SqlJudge, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(str(tmp_path / "t.duckdb")) as db:
        db.execute(SCRIPT)
    assert wrong(judge, tmp_path / "t.duckdb", TRICKS | ON_DUCKDB) == {}


def wrong(judge: SqlJudge, file: Path, tricks: dict[str, tuple[str, str, bool]]) -> dict[str, str]:
    """The tricks with another verdict than they should have, each with its reason."""
    found = {}
    for name, (gold, query, equal) in tricks.items():
        task = Task(name, "?", None, {"database": str(file), "gold": gold})
        comparison = judge.compare(task, query, gold)
        if comparison.equal is not equal:
            found[name] = comparison.why or "equal"
    return found


def test_a_constant_is_right_on_one_database_and_wrong_on_a_suite(
    judge: SqlJudge, tmp_path: Path
) -> None:
    """A result alone can't tell a query from a copy of its answer; other databases can."""
    for number in range(2):
        with closing(sqlite3.connect(tmp_path / f"{number}.sqlite")) as db:
            db.executescript(SCRIPT + "insert into t values (5, 5, 'Eve', 5);" * number)
    one = {"database": str(tmp_path / "0.sqlite"), "gold": "select count(*) from t"}
    for constant in ("select 4", "select 4 from t limit 1", "select count(*) * 0 + 4 from t"):
        assert judge.correct(Task("a", "?", None, one), constant)
        assert not judge.correct(Task("a", "?", None, one | {"databases": str(tmp_path)}), constant)
    suite = Task("a", "?", None, one | {"databases": str(tmp_path)})
    assert judge.correct(suite, "select sum(1) from t")


def test_a_query_that_never_ends_is_wrong_and_such_a_gold_query_no_ones_fault(
    judge: SqlJudge, tmp_path: Path
) -> None:
    file = tmp_path / "t.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(SCRIPT)
    hasty = SqlJudge(seconds=2.0, workers=judge.workers)
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r"
    task = Task("a", "?", None, {"database": str(file)})
    assert "stopped after" in hasty.compare(task, endless, "select 4").why
    for gold in (endless, "select n from nowhere"):
        with pytest.raises(Unscored, match="the gold query of 'a' fails"):
            hasty.compare(task, gold, gold)

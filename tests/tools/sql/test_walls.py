"""What a query must not do, tried on the real backend: nothing is written, the deadline and the
memory limit hold, the text says why, and the tool answers the next query.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import JsonValue
from support.entered import entered

from interlace.tools import ErrorKind, ToolResult
from interlace.tools.sql import SqliteDatabase, SqlTool, Workers, guarded

CITIES = """
create table city (name text, people int);
insert into city values ('Oslo', 717710), ('Bergen', 291940), ('Narvik', NULL);
"""
ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n)"


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """One process for all tests that do not end it."""
    workers = Workers(1, memory=64 << 20)
    with entered(workers.held()):
        yield workers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "cities.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"pragma synchronous = off; {CITIES}")
    return path


@pytest.fixture
def tool(path: Path, workers: Workers) -> Iterator[SqlTool]:
    """The tool on a file; after each test the file and its folder must be as they were."""
    before = path.read_bytes()
    workers.counters.clear()
    yield SqlTool(SqliteDatabase(path, workers=workers))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def ask(tool: SqlTool, *queries: str, seconds: float = 60.0) -> ToolResult:
    """The result of the last query. One more shows that the tool still answers."""

    async def go() -> ToolResult:
        async with tool.session() as session:
            for query in queries:
                result = await session.call({"query": query}, seconds)
            after = await session.call({"query": "select count(*) from city"}, 60.0)
            assert after.text == "count(*)\n3\n(1 row)"
            return result

    return asyncio.run(go())


@pytest.mark.parametrize(
    "query",
    [
        "insert into city values ('Moss', 1)",
        "update city set people = 0",
        "delete from city",
        "replace into city values ('Moss', 1)",
        "drop table city",
        "alter table city add column x",
        "create table x (a)",
        "create temp table x (a)",
        "create view x as select 1",
        "create index x on city (name)",
        "create trigger x after insert on city begin select 1; end",
        "create virtual table x using fts5(a)",
        "attach '{folder}/evil.db' as evil",
        "attach ':memory:' as evil",
        "detach main",
        "vacuum",
        "vacuum into '{folder}/copy.db'",
        "begin",
        "begin immediate",
        "commit",
        "rollback",
        "savepoint a",
        "analyze",
        "reindex",
        "with x as (select 1) delete from city",
        "explain delete from city",
        "pragma query_only = 0",
        "pragma writable_schema = 1",
        "pragma journal_mode = wal",
        "pragma user_version = 3",
        "pragma temp_store_directory = '/tmp'",
        "pragma hard_heap_limit = 0",
        "pragma database_list",
        "pragma optimize",
        "select * from pragma_query_only",
        "select * from pragma_database_list",
        "select * from sqlite_dbpage",
        "select * from dbstat",
        "select load_extension('x.so')",
        "select zeroblob(900000000)",
        "select randomblob(900000000)",
        "select fts3_tokenizer('simple')",
        "select readfile('/etc/passwd')",
        "select writefile('/tmp/x', 'y')",
        "select edit('x')",
        "select 1; drop table city",
        "select 1; select 2",
        "select printf('%.*c', 900000000, 'x')",
        "select printf('%900000000d', 1)",
        "select format('%.99999f', 1.0)",
    ],
)
def test_what_does_not_only_read_is_refused(tool: SqlTool, path: Path, query: str) -> None:
    result = ask(tool, query.format(folder=path.parent))
    assert result.error in (ErrorKind.FORBIDDEN, ErrorKind.NOT_FOUND), result
    if result.error is ErrorKind.NOT_FOUND:  # a function or table that this SQLite does not have
        assert result.text.startswith(("no such function", "no such table: sqlite_dbpage"))
    assert not (path.parent / "evil.db").exists()
    assert str(path) not in result.text


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select name from city;", 3),
        (" /* why */ select 1 -- what\n;  ", 1),
        ("values (1), (2)", 2),
        ("with x as (select 1) select * from x", 1),
        ("select * from pragma_table_info('city')", 2),
        ("pragma table_info(city)", 2),
        ("select m.name, c.name from sqlite_schema m, pragma_table_xinfo(m.name) c", 2),
        ("explain query plan select * from city", 1),
        ("pragma user_version", 1),
        ("select name from sqlite_schema", 1),
        ("select value from json_each('[1, 2, 3]')", 3),
        ("select row_number() over (order by people), name from city", 3),
        ("select upper(name), date('2024-02-30'), iif(people > 1, 2, 3) from city", 3),
        ("select name from city order by random()", 3),
        ("select printf('%5.2f|%s|%d', 2.5, 'a', 3), format('%%'), printf(NULL)", 1),
        ("select name from city where name like '%s%' and people between 1 and 1e9", 1),
    ],
)
def test_what_only_reads_is_allowed(tool: SqlTool, query: str, rows: int) -> None:
    result = ask(tool, query)
    assert result.ok, result.text
    assert result.details["rows"] == rows


def test_printf_is_sqlites_own() -> None:
    formats = ["%5.2f", "%-5d|", "%05d", "%x", "%e", "%g", "%s", "%10s", "%q", "%Q", "%w", "%c"]
    calls = [
        f"printf('{f}', {v})" for f in formats for v in ("3", "2.5", "'it''s'", "NULL", "x'41'")
    ]
    query = f"select {', '.join(calls)}"
    bare = sqlite3.connect(":memory:")
    expected = bare.execute(query).fetchone()
    bare.close()
    rows = asyncio.run(SqliteDatabase.memory(CITIES).query(query))
    assert rows.rows == (expected,)


@pytest.mark.parametrize(
    "query",
    [
        f"{ENDLESS} select count(*) from n",
        f"{ENDLESS} select * from n limit 5 offset 1000000000000",
        "select count(*) from " + ", ".join(f"city c{i}" for i in range(60)),
        "select group_concat(c1.name) from " + ", ".join(f"city c{i}" for i in range(60)),
        f"{ENDLESS}, m as (select * from n limit 100000) select max(a.x + b.x) from m a, m b",
    ],
)
def test_endless_work_is_interrupted(tool: SqlTool, workers: Workers, query: str) -> None:
    result = ask(tool, query, seconds=0.3)
    assert (result.error, result.text) == (
        ErrorKind.TIMEOUT,
        "The query was stopped after 0.3 s. Make it do less.",
    )
    assert workers.counters["overrun"] == 0


def test_what_can_not_be_interrupted_is_killed(tool: SqlTool, workers: Workers) -> None:
    # instr() looks for five million characters at five million places in one step of SQLite.
    many = f"replace(replace(printf('%.1000d', 0), '0', '{'a' * 100}'), 'a', '{'a' * 50}')"
    result = ask(
        tool, f"with t(x) as (select {many}) select instr(x || x, x || 'b') from t", seconds=0.3
    )
    assert result.error is ErrorKind.TIMEOUT
    assert workers.counters["overrun"] == 1


def test_endless_rows_end_when_they_are_counted(tool: SqlTool) -> None:
    result = ask(tool, f"{ENDLESS} select x from n")
    assert result.ok
    assert result.text.endswith("\n19\n20\n(the first 20 of more than 1,020 rows)")


@pytest.mark.parametrize(
    "query",
    [
        f"{ENDLESS}, m as (select x, hex(printf('%.900d', x)) h from n limit 1000000) "
        "select * from m order by h desc",
        f"{ENDLESS}, m as (select hex(printf('%.900d', x)) h from n limit 100000) "
        "select group_concat(h) from m",
        "select " + "replace(" * 7 + "'aaaaaaaaaa'" + ", 'a', 'aaaaaaaaaa')" * 7,
        f"{ENDLESS}, m as (select printf('%.900d', x) h from n limit 1000000) "
        "select count(distinct h) from m",
    ],
)
def test_memory_is_bounded(tool: SqlTool, query: str) -> None:
    result = ask(tool, query, seconds=300)
    assert (result.error, result.text) == (
        ErrorKind.MEMORY,
        "The query needs more memory than is allowed. Make it do less.",
    )


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("select " + "(" * 5000 + "1" + ")" * 5000, ErrorKind.SYNTAX),
        ("select " + "+".join("1" * 5000), ErrorKind.SYNTAX),
        (" union all ".join(["select 1"] * 1000), ErrorKind.SYNTAX),
        ("select " + ",".join("1" * 3000), ErrorKind.SYNTAX),
        ("select * from " + ",".join(f"city c{i}" for i in range(70)), ErrorKind.SYNTAX),
        ("select '" + "a" * 200_000 + "'", ErrorKind.ARGUMENTS),
        ("select 1\0; drop table city", ErrorKind.ARGUMENTS),
        ("\0", ErrorKind.ARGUMENTS),
        ("select '\ud800'", ErrorKind.ARGUMENTS),
        ("", ErrorKind.ARGUMENTS),
        (" ;; \n", ErrorKind.ARGUMENTS),
        ("-- nothing", ErrorKind.ARGUMENTS),
        ("/* nothing", ErrorKind.ARGUMENTS),
        ("select ?", ErrorKind.ARGUMENTS),
        ("select :name", ErrorKind.ARGUMENTS),
    ],
)
def test_queries_that_are_none(tool: SqlTool, query: str, kind: ErrorKind) -> None:
    result = ask(tool, query)
    assert result.error is kind, result.text
    assert len(result.text) < 400


def test_arguments_that_do_not_fit_are_named() -> None:
    async def go() -> list[ToolResult]:
        async with SqlTool.memory(CITIES).session() as session:
            wrong: list[dict[str, JsonValue]] = [
                {},
                {"query": 3},
                {"query": "select 1", "limit": 5},
            ]
            return [await session.call(arguments, 60.0) for arguments in wrong]

    for result, name in zip(asyncio.run(go()), ("query", "query", "limit"), strict=True):
        assert result.error is ErrorKind.ARGUMENTS
        assert f"{name}:" in result.text


def test_the_process_itself_can_hardly_do_anything(path: Path) -> None:
    """Should a query break out of SQLite: no environment, no files, no children, little memory."""

    async def go() -> None:
        os.environ["SECRET_FOR_THE_TEST"] = "1"
        workers = Workers(1)
        tool = SqlTool(SqliteDatabase(path, workers=workers))
        async with tool.session() as session:
            await session.call({"query": "select 1"}, 60.0)
            (worker,) = workers.pools["sqlite"].idle
            process = Path(f"/proc/{worker.pid}")
            limits = {
                line[:26].strip(): line[26:].split()[0]
                for line in (process / "limits").read_text().splitlines()
            }
            assert (process / "environ").read_bytes().count(b"SECRET") == 0
            assert limits["Max processes"] == limits["Max core file size"] == "0"
            assert int(limits["Max address space"]) <= 1 << 30
            assert int(limits["Max file size"]) <= 16 << 20

    if not Path("/proc/self/limits").exists():
        pytest.skip("there is no /proc here")
    try:
        asyncio.run(go())
    finally:
        del os.environ["SECRET_FOR_THE_TEST"]


def test_views_without_end_cost_no_time_before_the_first_prompt(workers: Workers) -> None:
    views = "".join(f"create view v{i} as {ENDLESS} select x from n;" for i in range(40))
    tool = SqlTool(SqliteDatabase.memory(f"create table t (n); {views}", workers=workers))
    asked = workers.counters["queries"]
    lines = asyncio.run(tool.describe()).splitlines()
    assert lines[:4] == ["t (0 rows)", "  n", "v0 (view)", "  x"]
    # Two for the list, two for each of 41 descriptions, two for the samples of the one table.
    assert workers.counters["queries"] - asked == 2 + 2 * 41 + 2


def test_one_time_budget_holds_for_the_whole_schema(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each value of `slow` is computed when it is read, from ever longer texts.
    longer = "hex(" * 16 + "a" + ")" * 16
    tables = f"""
        create table wide (a text);
        insert into wide with recursive n(x) as (select 1 union all select x + 1 from n
            where x < 5000) select 'Oslo' from n;
        alter table wide add column slow as (length({longer}));
        create table city (name text);
        insert into city values ('Oslo');
    """
    monkeypatch.setattr(guarded, "_SCHEMA_SECONDS", 0.5)
    tool = SqlTool(SqliteDatabase.memory(tables, workers=workers))
    assert asyncio.run(tool.describe()) == "wide\n  a TEXT: Oslo\n  slow\ncity\n  name TEXT"

"""DuckDB behind the same walls as SQLite, in a real process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from support.entered import entered

from interlace.tools import ErrorKind, ToolResult
from interlace.tools.errors import DataError
from interlace.tools.named import find_tool
from interlace.tools.sql import Bounds, DuckdbDatabase, SqlTool, Workers

SCRIPT = """
create table country (code varchar primary key, name varchar);
insert into country values ('NO', 'Norway'), ('DK', 'Denmark');
create table city (id integer primary key, name varchar, country_code varchar references
    country(code), area decimal(8, 2), founded date, twins varchar[], flag blob);
insert into city values
    (1, 'Oslo', 'NO', 454.12, '1048-01-01', ['Madison', 'Nantes'], '\\xAA\\x00'),
    (2, 'Aarhus', 'DK', 91.00, null, null, null);
create view endless as with recursive n as (select 1 as x union all select x + 1 from n)
    select x from n;
"""


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlTool]:
    """The tool on a file, which is the same when all tests are over."""
    # The content says what it is, not the name.
    path = tmp_path_factory.mktemp("duckdb") / "shop.db"
    with duckdb.connect(str(path)) as db:
        db.execute(SCRIPT)
    before = path.read_bytes()
    workers = Workers(1, memory=64 << 20)
    with entered(workers.held()):
        yield SqlTool(DuckdbDatabase(path, workers=workers))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def ask(tool: SqlTool, query: str, seconds: float = 60.0) -> ToolResult:
    """The query's result. One more shows that the tool still answers."""
    result = tool.ask(query, seconds)
    assert tool.ask("select count(*) as n from city", 60.0).text == "n\n2\n(1 row)"
    return result


def test_the_model_reads_the_schema_and_rows(tool: SqlTool) -> None:
    assert tool.description == (
        "Runs one DuckDB query on a database and returns its rows. It can only read.\nThe tables:\n"
        "city (2 rows)\n"
        "  id INTEGER primary key: 1, 2\n"
        "  name VARCHAR: Aarhus, Oslo\n"
        "  country_code VARCHAR -> country.code: DK, NO\n"
        "  area DECIMAL(8,2): 91.0, 454.12\n"
        "  founded DATE: 1048-01-01\n"
        '  twins VARCHAR[]: ["Madison", "Nantes"]\n'
        "  flag BLOB: x'aa00'\n"
        "country (2 rows)\n"
        "  code VARCHAR primary key: DK, NO\n"
        "  name VARCHAR: Denmark, Norway\n"
        "endless (view)\n"
        "  x INTEGER"
    )
    assert ask(tool, "select id, area > 100 as large, founded from city order by id").text == (
        "id | large | founded\n1 | true | 1048-01-01\n2 | false | NULL\n(2 rows)"
    )
    assert "(the first 20 of more than 1,020 rows)" in ask(tool, "from range(10_000_000_000)").text


TYPES = {
    "true": "true",
    "(-128)::tinyint": -128,
    "18446744073709551615::ubigint": 2**64 - 1,
    "170141183460469231731687303715884105727::hugeint": 2**127 - 1,
    "340282366920938463463374607431768211455::uhugeint": 2**128 - 1,
    "repeat('9', 400)::bignum": "9" * 400,
    "1.5::decimal(3, 1)": 1.5,
    "'1.2345678901234567890123456789012345678'::decimal(38, 37)": (
        "1.2345678901234567890123456789012345678"
    ),
    "'12345678901234567890123456789012345678'::decimal(38, 0)": (
        12345678901234567890123456789012345678
    ),
    "'0.0000000000000000000000000000000000001'::decimal(38, 37)": 1e-37,
    "'-inf'::double": float("-inf"),
    "'é'": "é",
    "'\\x00\\xAA'::blob": b"\x00\xaa",
    "'101'::bit": "101",
    "'b'::enum('a', 'b')": "b",
    "'00000000-0000-0000-0000-00000000000f'::uuid": "00000000-0000-0000-0000-00000000000f",
    "'[1]'::json": "[1]",
    "date '2020-02-29'": "2020-02-29",
    "date '9999-12-31'": "9999-12-31",
    "date 'infinity'": "infinity",
    "date '0044-03-15 (BC)'": "0044-03-15 (BC)",
    "timestamp '-infinity'": "-infinity",
    "timestamp '2020-01-01 12:00:00'": "2020-01-01 12:00:00",
    "timestamp_ns '2020-01-01 00:00:00.123456789'": "2020-01-01 00:00:00.123456789",
    "timestamptz 'infinity'": "infinity",
    "time '24:00:00'": "24:00:00",
    "timetz '12:00:00+05'": "12:00:00+05",
    "interval '1000000000 days'": "1000000000 days",
    "interval '1 month'": "1 month",
    "interval '30 days'": "30 days",
    "[1, null]": "[1, null]",
    "[true]::boolean[1]": "[true]",
    "['é']": '["é"]',
    "{'a': 1, 'b': [date 'infinity']}": "{'a': 1, 'b': [infinity]}",
    "{'size': date 'infinity'}": "{'size': infinity}",
    "row(1, 'x')": '[1, "x"]',
    "map(['a'], [1])": '{"a": 1}',
    "map([1.5::decimal(3, 1)], [1])": '{"1.5": 1}',
    "map([date '2020-01-01'], [1])": "{2020-01-01=1}",
    "map([[1]], [interval '1000000000 days'])": "{[1]=1000000000 days}",
    "map(['00000000-0000-0000-0000-00000000000f'::uuid], [[1]])": (
        '{"00000000-0000-0000-0000-00000000000f": [1]}'
    ),
    "union_value(a := 7)": 7,
    "union_value(a := date 'infinity')": "infinity",
    "[blob 'a']": "[a]",
    "null": None,
}


def test_every_type_is_told_in_full(tool: SqlTool) -> None:
    bounds = Bounds(rows=3, columns=99, cell=1000, bytes=10**6, counted=0)
    query = f"select {', '.join(TYPES)} from range(2) order by range -- the end;"
    rows = asyncio.run(tool.database.query(query, bounds, 60.0)).rows
    assert rows == (tuple(TYPES.values()),) * 2
    pivot = "pivot (select 1 as a, date 'infinity' as b) on a in (1) using max(b)"
    assert ask(tool, pivot).text == "1\n'infinity'\n(1 row)"
    assert ask(tool, "select date 'infinity' as d;").text == "d\n'infinity'\n(1 row)"


def test_an_unknown_schema_can_be_asked_for(tool: SqlTool) -> None:
    blind = SqlTool(tool.database, schema_budget=0)
    assert blind.description == tool.description.split("\n")[0]
    assert "name\ncity\ncountry\nendless\n" in ask(blind, "show tables").text
    assert "founded | DATE" in ask(blind, "describe city").text


@pytest.mark.parametrize(
    ("query", "kind", "text"),
    [
        ("select nmae from city", ErrorKind.NOT_FOUND, "no such column: nmae. Did you mean name? "
         "With it the query runs."),
        ("select c.nmae from city c", ErrorKind.NOT_FOUND, "Did you mean name?"),
        ("select name from ctiy", ErrorKind.NOT_FOUND, "no such table: ctiy. Did you mean city? "
         "With it the query runs."),
        # `name` is close to `nmae`, but the query does not run with it: it is not suggested.
        ("select sum(nmae) from city", ErrorKind.NOT_FOUND, "no such column: nmae. The columns: "
         "city (id, name, country_code, area, founded, twins, flag)."),
        ("select country_code from country", ErrorKind.NOT_FOUND, "The column country_code is in: "
         "city."),
        ("select getenv('HOME')", ErrorKind.NOT_FOUND, "getenv"),
        ("selec 1", ErrorKind.SYNTAX, 'at or near "selec"'),
        ("select ?", ErrorKind.ARGUMENTS, "parameters"),
        ("select error('x')", ErrorKind.EXCEPTION, "x"),
        ("", ErrorKind.ARGUMENTS, "empty"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(tool: SqlTool, query: str, kind: ErrorKind, text: str) -> None:
    result = ask(tool, query)
    assert result.error is kind
    assert text in result.text


@pytest.mark.parametrize(
    "query",
    [
        "insert into country values ('SE', 'Sweden')",
        "drop table city",
        "create temp table x as select 1",
        "create macro two() as 2",
        "select 1; drop table city",
        "begin",
        "copy city to '{folder}/out.csv'",
        "export database '{folder}/out'",
        "attach '{folder}/other.db'",
        "select * from read_csv('/etc/passwd')",
        "select * from read_text('{folder}/*')",
        "select * from glob('/*')",
        "select * from read_parquet('https://localhost:1/x')",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '100GB'",
        "reset lock_configuration",
        "pragma enable_profiling = 'json'",
        "pragma database_list",
        "checkpoint",
        "prepare p as select 1",
        "call pragma_version()",
    ],
)
def test_what_does_not_only_read_is_refused(tool: SqlTool, query: str) -> None:
    folder = Path(tool.database._source.path).parent  # type: ignore[attr-defined]
    assert ask(tool, query.format(folder=folder)).error is ErrorKind.FORBIDDEN


def test_no_query_sees_the_process_that_runs_it(tool: SqlTool) -> None:
    assert ask(tool, "select * from request").error is ErrorKind.NOT_FOUND
    assert ask(tool, "select * from '/etc/passwd'").error is ErrorKind.NOT_FOUND


def test_local_time_is_not_the_machines(tool: SqlTool) -> None:
    assert ask(tool, "select current_setting('TimeZone') as zone").text == "zone\nUTC\n(1 row)"


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from range(10_000_000_000) a, range(10_000_000_000) b",
        "select max(x) from endless",
        "select sum(a.range * b.range) from range(10_000_000) a join range(10_000_000) b "
        "on a.range < b.range",
    ],
)
def test_endless_queries_are_stopped(tool: SqlTool, query: str) -> None:
    assert ask(tool, query, 0.5).error in (ErrorKind.TIMEOUT, ErrorKind.MEMORY)


@pytest.mark.parametrize(
    "query",
    [
        "select repeat('x', 900_000_000)",
        "select list(range) from range(5_000_000_000)",
        "select string_agg(range, ',') from range(5_000_000_000)",
    ],
)
def test_memory_is_bounded(tool: SqlTool, query: str) -> None:
    assert ask(tool, query, 20.0).error in (ErrorKind.MEMORY, ErrorKind.DIED)


def test_a_replaced_file_is_opened_again_and_a_locked_one_is_not_the_models_fault(
    tmp_path: Path,
) -> None:
    path, new, locked = (tmp_path / name for name in ("a.duckdb", "b.duckdb", "c.duckdb"))
    for place, value in ((path, 1), (new, 2), (locked, 3)):
        with duckdb.connect(str(place)) as db:
            db.execute(f"create table t as select {value} as n")

    async def go() -> list[ToolResult]:
        async with find_tool(f"sql:{path}@rows=3") as tool:  # type: ignore[attr-defined]
            results = [await tool.call("select n from t", 60.0)]
            new.replace(path)
            return [*results, await tool.call("select n from t", 60.0)]

    assert [result.text.split("\n")[1] for result in asyncio.run(go())] == ["1", "2"]
    writes = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-c", writes, str(locked)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert SqlTool(locked).ask("select n from t", 60.0).error is ErrorKind.UNAVAILABLE
    with pytest.raises(DataError, match="not a DuckDB database"):
        DuckdbDatabase(tmp_path / "none")

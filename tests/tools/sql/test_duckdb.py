"""DuckDB behind the same walls as SQLite, in a real process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from interlace.tools import ErrorKind, ToolResult
from interlace.tools.errors import DataError
from interlace.tools.named import find_tool
from interlace.tools.sql import DuckdbDatabase, SqlTool, Workers

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
    path = (
        tmp_path_factory.mktemp("duckdb") / "shop.db"
    )  # the content says what it is, not the name
    with duckdb.connect(str(path)) as db:
        db.execute(SCRIPT)
    before = path.read_bytes()
    workers = Workers(1, memory=64 << 20)
    with asyncio.Runner() as runner:
        held = workers.held()
        runner.run(held.__aenter__())
        yield SqlTool(DuckdbDatabase(path, workers=workers))
        runner.run(held.__aexit__(None, None, None))
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

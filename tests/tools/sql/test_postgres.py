"""PostgreSQL behind the same walls, on a real server (`make test-postgres`)."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from support.entered import entered
from support.postgres import NoServer, asked_for, server

from interlace.tools import ErrorKind, ToolResult
from interlace.tools.errors import DataError, UsageError
from interlace.tools.named import find_tool
from interlace.tools.sql import Bounds, PostgresDatabase, SqlTool, Workers

pytestmark = asked_for

SECRET = "s3cret'%/word"
SCRIPT = f"""
create table country (code text primary key, name text);
insert into country values ('NO', 'Norway'), ('DK', 'Denmark');
create table city (id int primary key, name text, country_code text references country(code),
    area numeric(8, 2), founded date, twins text[], flag bytea, "Mayor" text);
insert into city values
    (1, 'Oslo', 'NO', 454.12, '1048-01-01', '{{Madison,Nantes}}', '\\xaa00', 'Ann'),
    (2, 'Aarhus', 'DK', 91.00, null, null, null, null);
create view endless as with recursive n as (select 1 as x union all select x + 1 from n)
    select x from n;
create sequence counter;
create function writes() returns int language sql security definer
    as $$ insert into country values ('SE', 'Sweden'); select 1 $$;
create role reader login password '{SECRET.replace("'", "''")}';
grant select, insert, update, delete on all tables in schema public to reader;
grant all on all sequences in schema public to reader;
"""


class Place:
    """A server with a database: its superuser's address, and the tool of a role that may write."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        with psycopg.connect(owner, autocommit=True) as db:
            db.execute(SCRIPT)
        self.before = self.content()
        self.host = owner.rpartition("@")[2]
        self.workers = Workers(1)
        self.address = f"postgresql://reader:s3cret'%25%2Fword@{self.host}"
        self.tool = SqlTool(PostgresDatabase(self.address, workers=self.workers))

    def content(self) -> list[object]:
        with psycopg.connect(self.owner) as db:
            return [
                db.execute(query).fetchall()
                for query in (
                    "select * from city order by id",
                    "select * from country order by code",
                    "select relname from pg_class order by 1",
                    "select rolname from pg_roles order by 1",
                    "select count(*) from pg_largeobject_metadata",
                    "select last_value, is_called from counter",
                )
            ]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """One server for all tests, whose databases are the same when they are over."""
    with ExitStack() as stack:
        try:
            place = Place(stack.enter_context(server()))
        except NoServer as error:
            pytest.fail(str(error), pytrace=False)
        with entered(place.workers.held()):
            yield place
        assert place.content() == place.before


def ask(place: Place, query: str, seconds: float = 60.0) -> ToolResult:
    """The query's result. One more shows that the tool still answers."""
    result = place.tool.ask(query, seconds)
    assert place.tool.ask("select count(*) as n from city", 60.0).text == "n\n2\n(1 row)"
    return result


def test_the_model_reads_the_schema_and_rows(place: Place) -> None:
    assert place.tool.description == (
        "Runs one PostgreSQL query on a database and returns its rows. It can only read.\n"
        "The tables:\n"
        "city (2 rows)\n"
        "  id integer primary key: 1, 2\n"
        "  name text: Aarhus, Oslo\n"
        "  country_code text -> country.code: DK, NO\n"
        "  area numeric(8,2): 91.0, 454.12\n"
        "  founded date: 1048-01-01\n"
        "  twins text[]: {Madison,Nantes}\n"
        "  flag bytea: x'aa00'\n"
        "  Mayor text: Ann\n"
        "country (2 rows)\n"
        "  code text primary key: DK, NO\n"
        "  name text: Denmark, Norway\n"
        "endless (view)\n"
        "  x integer"
    )
    query = "select id, area > 100 as large, founded, 'nan'::float8 as f from city order by id;"
    assert ask(place, query).text == (
        "id | large | founded | f\n1 | true | 1048-01-01 | nan\n2 | false | NULL | nan\n(2 rows)"
    )
    flood = ask(place, "select generate_series(1, 10000000000)")
    assert "(the first 20 of more than 1,020 rows)" in flood.text
    assert "x" * 100 + "… (5,000,000 char" in ask(place, "select repeat('x', 5000000)").text


TYPES = {
    "true": "true",
    "1::smallint": 1,
    "9223372036854775807": 2**63 - 1,
    "repeat('9', 300)::numeric": int("9" * 300),
    "repeat('9', 5000)::numeric": "9" * 5000,
    "1e-400::numeric": "0." + "0" * 399 + "1",
    "-2e-400::numeric": "-0." + "0" * 399 + "2",
    "'1.23456789012345678901234567890123450'::numeric": "1.2345678901234567890123456789012345",
    "12345678901234567890.00::numeric": 12345678901234567890,
    "91.00::numeric": 91.0,
    "0.00::numeric": 0.0,
    "avg(2) over ()": 2.0,
    "'-infinity'::numeric": float("-inf"),
    "'infinity'::float4": float("inf"),
    "0.1::float4": 0.1,
    "'\\xaa00'::bytea": b"\xaa\x00",
    "b'101'": "101",
    "12.5::money": "$12.50",
    "date 'infinity'": "infinity",
    "date '0044-03-15 BC'": "0044-03-15 BC",
    "timestamp '-infinity'": "-infinity",
    "time '24:00'": "24:00:00",
    "interval '1000000000 days'": "1000000000 days",
    "interval '1 month'": "1 mon",
    "array[1, null]": "{1,NULL}",
    "array[date 'infinity']": "{infinity}",
    "int4range(1, 5)": "[1,5)",
    "'{[1,5)}'::int4multirange": "{[1,5)}",
    "'{\"a\": 1e400}'::json": '{"a": 1e400}',
    "row(1, 'x y')": '(1,"x y")',
    "inet '10.0.0.1/8'": "10.0.0.1/8",
    "'<a>1</a>'::xml": "<a>1</a>",
    "'00000000-0000-0000-0000-00000000000f'::uuid": "00000000-0000-0000-0000-00000000000f",
    "point(1, 2)": "(1,2)",
    "'a b'::tsvector": "'a' 'b'",
    "4294967295::oid": 2**32 - 1,
    "null": None,
}


def test_every_type_is_told_in_full(place: Place) -> None:
    bounds = Bounds(rows=3, columns=99, cell=6000, bytes=10**6, counted=0)
    query = f"select {', '.join(TYPES)}"
    (row,) = asyncio.run(place.tool.database.query(query, bounds, 60.0)).rows
    assert row == tuple(TYPES.values())
    escaped = "select set_config('bytea_output', 'escape', true), '\\xaa00'::bytea as b"
    assert "x'aa00'" in ask(place, escaped).text
    assert ask(place, "select 'nan'::numeric as n").text == "n\nnan\n(1 row)"


def test_an_unknown_schema_can_be_asked_for(place: Place) -> None:
    blind = SqlTool(place.tool.database, schema_budget=0)
    assert blind.description == place.tool.description.split("\n")[0]
    columns = "select table_name, column_name, data_type from information_schema.columns"
    assert "city | founded | date" in blind.ask(f"{columns} where table_name = 'city'", 60.0).text


@pytest.mark.parametrize(
    ("query", "kind", "text"),
    [
        ("select nmae from city", ErrorKind.NOT_FOUND, "no such column: nmae. Did you mean name? "
         "With it the query runs."),
        ("select mayor from city", ErrorKind.NOT_FOUND, 'Did you mean "Mayor"? With it'),
        ("select c.nmae from city c", ErrorKind.NOT_FOUND, "Did you mean name?"),
        ("select name from ctiy", ErrorKind.NOT_FOUND, "no such table: ctiy. Did you mean city?"),
        # `name` is close to `nmae`, but the query does not run with it: it is not suggested.
        ("select sum(nmae) from city", ErrorKind.NOT_FOUND, "no such column: nmae. The columns: "
         "city (id, name, country_code,"),
        ("select nosuch(1)", ErrorKind.NOT_FOUND, "function nosuch(integer) does not exist."),
        ("selec 1", ErrorKind.SYNTAX, '(line 1, character 1): >>>selec<<< 1.'),
        ("select a from\n where", ErrorKind.SYNTAX, "(line 2, character 2): >>>where<<<."),
        ("select $1::int", ErrorKind.ARGUMENTS, "parameters"),
        ("select 1 / 0", ErrorKind.EXCEPTION, "division by zero."),
        ("select sum(name) from city", ErrorKind.NOT_FOUND, "sum(text)"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(place: Place, query: str, kind: ErrorKind, text: str) -> None:
    result = ask(place, query)
    assert result.error is kind
    assert text in result.text


@pytest.mark.parametrize(
    "query",
    [
        "insert into country values ('SE', 'Sweden')",
        "with d as (delete from city returning *) select * from d",
        "explain analyze delete from city",
        "select writes()",
        "select nextval('counter')",
        "select setval('counter', 99)",
        "select 1 as a into temp x from city",
        "select * from city for update",
        "create temp table x (a int)",
        "drop table city cascade",
        "select 1; drop table city",
        "commit",
        "do $$ begin delete from city; end $$",
        "copy city to program 'touch {folder}/out'",
        "copy city to '{folder}/out'",
        "select pg_read_file('/etc/passwd')",
        "select lo_import('/etc/passwd')",
        "select lo_export(1, '{folder}/out')",
        "select set_config('transaction_read_only', 'off', false)",
        "select set_config('role', 'owner', false)",
        "set session authorization owner",
        "lock table city",
        "load '{folder}/out.so'",
        "create extension dblink",
    ],
)
def test_what_does_not_only_read_is_refused(place: Place, query: str, tmp_path: Path) -> None:
    result = ask(place, query.format(folder=tmp_path))
    assert result.error is ErrorKind.FORBIDDEN, result.text
    assert not os.listdir(tmp_path)


def test_a_comment_hides_no_statement(place: Place) -> None:
    # Comments nest in PostgreSQL, and not in other systems.
    assert ask(place, "/* /* */ explain */ commit").error is ErrorKind.SYNTAX
    assert ask(place, "explain /* */ select 1").ok
    assert ask(place, "/* a */ select 1 -- ; drop table city").ok


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from generate_series(1, 1000000000000)",
        "select max(x) from endless",
        "select pg_sleep(1000)",
        "select set_config('statement_timeout', '0', false), pg_sleep(1000)",
    ],
)
def test_endless_queries_are_stopped(place: Place, query: str) -> None:
    assert ask(place, query, 0.5).error is ErrorKind.TIMEOUT


def test_nothing_of_a_query_reaches_the_next(place: Place) -> None:
    assert ask(place, "select pg_advisory_lock(7)").ok
    ask(place, "select lo_create(0)")  # refused from version 16 on, rolled back before
    assert ask(place, "select set_config('search_path', 'nowhere', false)").ok
    assert "city" in place.tool.ask("select count(*) as city from city").text
    locks = "select count(*) as n from pg_locks where locktype = 'advisory'"
    assert ask(place, locks).text == "n\n0\n(1 row)"


def test_a_query_that_ends_its_own_connection_is_to_blame_itself(place: Place) -> None:
    result = ask(place, "select pg_terminate_backend(pg_backend_pid())")
    assert result.error is ErrorKind.DIED
    assert "ended its connection" in result.text


@pytest.mark.slow
def test_a_result_too_large_for_the_client_does_not_take_its_memory(place: Place) -> None:
    result = ask(place, "select repeat('x', 300000000)")
    assert result.error is ErrorKind.MEMORY, result.text


def test_the_server_ends_the_query_of_a_client_that_is_gone(place: Place) -> None:
    async def go() -> None:
        async with place.tool.session() as session:
            call = asyncio.create_task(session.call({"query": "select pg_sleep(1000)"}, 900.0))
            with psycopg.connect(place.owner, autocommit=True) as db:
                running = (
                    "select count(*) from pg_stat_activity "
                    "where usename = 'reader' and state = 'active'"
                )
                while db.execute(running).fetchone() != (1,):
                    await asyncio.sleep(0.02)
                call.cancel()
                while db.execute(running).fetchone() != (0,):  # a second later
                    await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(go(), 60))


def test_a_role_that_reaches_the_servers_files_is_refused(place: Place) -> None:
    result = SqlTool(place.owner, schema_budget=0).ask("select 1")
    assert result.error is ErrorKind.UNAVAILABLE
    assert "the role owner may reach the server's files" in result.text
    half = SqlTool(f"postgresql://half:half@{place.host}", schema_budget=0)
    with psycopg.connect(place.owner, autocommit=True) as db:
        db.execute("create role half login password 'half' noinherit")
        assert half.ask("select 1 as n", 60.0).ok
        for other in ("pg_read_server_files", "owner"):
            db.execute(f"grant {other} to half")
            refused = half.ask("select 1 as n")
            assert refused.error is ErrorKind.UNAVAILABLE, other
            db.execute(f"revoke {other} from half")
        db.execute("drop role half")


def test_a_password_is_never_shown(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = place.tool
    said = [repr(tool.database), str(tool.path), repr(vars(tool)), tool.description]
    said += [repr(tool.database._source), place.tool.database.address]  # type: ignore[attr-defined]
    for wrong in (
        place.address.replace("25%2F", "25%2F%2F"),  # another password
        place.address.replace("reader", "nobody"),
        place.address.replace("127.0.0.1", "127.0.0.2"),
        place.address.replace("/postgres", "/none"),
        place.address.replace("%25%2F", "%zz"),
        place.address + "?port=none",
    ):
        result = SqlTool(wrong, schema_budget=0).ask("select 1")
        assert result.error is ErrorKind.UNAVAILABLE
        said.append(result.text)
        with pytest.raises(UsageError) as refused:
            find_tool(f"sql:{wrong}")
        said.append(str(refused.value))
    for text in said:
        assert not any(part in text for part in ("s3cret", "%25", SECRET)), text
    monkeypatch.setenv("PGPASSWORD", SECRET)
    named = find_tool(f"sql:postgresql://reader@{place.host}@rows=1")
    assert "(the first 1 of 2 rows)" in named.ask("select name from city").text  # type: ignore[attr-defined]
    for wrong in ("postgresql://a:b@h:port/c", "postgresql://["):
        with pytest.raises(DataError, match="no address of a PostgreSQL database"):
            PostgresDatabase(wrong)

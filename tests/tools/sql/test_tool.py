"""What a model is shown: tables, errors that help, the schema; and sessions over shared workers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.entered import entered

from interlace.tools import ErrorKind, Tool
from interlace.tools.errors import DataError, UsageError
from interlace.tools.sql import (
    SHOWN,
    Bounds,
    Rows,
    SqlArguments,
    SqliteDatabase,
    SqlTool,
    Workers,
    describe,
    find_database,
    render,
)

WORLD = """
create table country (code text primary key, name text not null, population int);
create table city (
  id integer primary key,
  name text,
  country_code text references country (code),
  "area in km²" real
);
insert into country values ('NO', 'Norway', 5550203), ('DK', 'Denmark', 5977412);
insert into city values (1, 'Oslo', 'NO', 454.12),
  (2, 'Aarhus', 'DK', 91), (3, 'Bergen', 'NO', NULL);
create view norwegian as select name from city where country_code = 'NO';
create view broken as select * from gone;
"""


@pytest.fixture(scope="module")
def world() -> Iterator[SqlTool]:
    with entered(SqlTool.memory(WORLD)) as tool:  # one process for all tests
        yield tool


def test_it_is_a_tool(world: SqlTool) -> None:
    tool: Tool = world
    assert tool.name == "sql"
    assert list(tool.arguments.model_fields) == ["query"]
    assert tool.arguments is SqlArguments


# -- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("NULL", "NULL"),
        ("'NULL'", "'NULL'"),
        ("'nan'", "'nan'"),
        ("0.1", "0.1"),
        ("1.0", "1.0"),
        ("1e300 * 10", "1e+301"),
        ("9e999", "Infinity"),
        ("-9e999", "-Infinity"),
        ("9e999 - 9e999", "NULL"),  # SQLite stores NaN as NULL
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("'007'", "'007'"),
        ("'1e5'", "'1e5'"),
        ("'1.5.2'", "1.5.2"),
        ("''", "''"),
        ("' a'", "' a'"),
        ("'it''s'", "it's"),
        ("x''", "x''"),
        ("x'00ff'", "x'00ff'"),
        ("'x''00ff'''", "'x''00ff'''"),
        ("replace(hex(x'00'), '0', 'ab')", "abab"),
        ("cast(replace(printf('%.100d', 0), '0', 'abc') as blob)", None),
        ("'a' || char(10) || 'b|c' || char(9) || char(27) || '[0m'", r"a\nb\|c\t\x1b[0m"),
        ("'\u202eabc\u200b'", r"\u202eabc\u200b"),
        ("'back\\slash'", r"back\\slash"),
        ("'Zürich 東京 🚲'", "Zürich 東京 🚲"),
        ("cast(x'61ff62' as text)", "a\ufffdb"),  # not valid UTF-8
        ("cast(x'610062' as text)", r"a\x00b"),
    ],
)
def test_values_show_what_they_are(world: SqlTool, sql: str, shown: str | None) -> None:
    result = world.ask(f"select {sql} as v")
    if shown is None:
        shown = f"x'{'616263' * 5}61…' (300 bytes)"
        assert result.text == f"v\n{shown}\n(1 row; 1 value cut at …)"
    else:
        assert result.text == f"v\n{shown}\n(1 row)"


def test_what_is_cut_is_said() -> None:
    numbers = [{"n": i, "t": "x" * 5000} for i in range(50)]
    tool = SqlTool.memory({"numbers": numbers}, rows=3)
    assert tool.ask("select n from numbers").text == "n\n0\n1\n2\n(the first 3 of 50 rows)"
    result = tool.ask("select n, t from numbers limit 1")
    assert result.text == f"n | t\n0 | {'x' * 100}… (5,000 characters)\n(1 row; 1 value cut at …)"
    assert result.details == {"columns": ["n", "t"], "rows": 1, "shown": 1, "whole": False}
    wide = tool.ask("select " + ", ".join(f"{i} as c{i % 2}" for i in range(200)))
    assert wide.text.splitlines()[0].startswith("c0 | c1 | c0 | ")
    assert wide.text.endswith("(1 row; the first 30 of 200 columns)")
    assert tool.ask("select n from numbers where n > 99").text == "n\n(no rows)"


def test_a_result_keeps_to_its_budget() -> None:
    tool = SqlTool.memory({"t": [{"word": "word " * 5 + "."} for _ in range(15)]}, budget=200)
    result = tool.ask("select word from t")
    assert len(result.text) <= 200
    assert result.text.endswith("\n(the first 6 of 15 rows)")
    assert (result.details["shown"], result.details["rows"]) == (6, 15)
    words = render(Rows.of(["a"], [["b c d"]] * 9), budget=20, count=lambda t: len(t.split()))
    assert words == ("a\nb c d\nb c d\nb c d\nb c d\n(the first 4 of 9 rows)", 4)


def test_without_a_budget_of_its_own_it_takes_what_it_is_told() -> None:
    many = [{"word": "word " * 5 + "."} for _ in range(15)]
    tool = SqlTool.memory({"t": many}).within(60, lambda text: len(text.split()))
    result = tool.ask("select word from t")
    assert len(result.text.split()) <= 60
    assert result.text.endswith("\n(the first 8 of 15 rows)")
    own = SqlTool.memory({"t": many}, budget=200)
    assert own.within(60, len) is own


def test_a_huge_value_costs_neither_side_its_memory(world: SqlTool) -> None:
    huge = "select replace(replace(printf('%.1000d', 0), '0', printf('%.1000d', 0)), '0', 'ab')"
    result = world.ask(huge)
    assert "… (2,000,000 characters)" in result.text and len(result.text) < 400
    bounds = Bounds(rows=10**6, columns=5, cell=1000, bytes=20_000, counted=10**6)
    rows = asyncio.run(
        world.database.query(
            "with n(x) as (select 1 union all select x + 1 from n limit 5000) "
            "select printf('%.900d', x) from n",
            bounds,
            5.0,
        )
    )
    assert (len(rows.rows), rows.total, rows.whole) == (23, 5000, False)


def test_the_name_of_a_column_without_an_alias_is_cut(world: SqlTool) -> None:
    result = world.ask("select " + " + ".join(["1"] * 200))
    assert result.text == "1 + " * 14 + "1 +…\n200\n(1 row)"


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "kind", "text"),
    [
        (
            "select nmae from city",
            ErrorKind.NOT_FOUND,
            "no such column: nmae. Did you mean city.name?",
        ),
        (
            "select c.nam from country as c join city t on t.country_code = c.code",
            ErrorKind.NOT_FOUND,
            "no such column: c.nam. Did you mean country.name?",
        ),
        (
            "select population from city",
            ErrorKind.NOT_FOUND,
            "no such column: population. The column population is in: country.",
        ),
        (
            "select xyzzy from country",
            ErrorKind.NOT_FOUND,
            "no such column: xyzzy. The columns: country (code, name, population).",
        ),
        (
            "select * from citys",
            ErrorKind.NOT_FOUND,
            "no such table: citys. Did you mean city? Tables: country, city, norwegian, broken.",
        ),
        (
            "pragma table_info(towns)",
            ErrorKind.NOT_FOUND,
            "no such table: towns. Tables: country, city, norwegian, broken.",
        ),
        (
            "select * from pragma_table_info('citi')",
            ErrorKind.NOT_FOUND,
            "no such table: citi. Did you mean city? Tables: country, city, norwegian, broken.",
        ),
        ("select lenght(name) from city", ErrorKind.NOT_FOUND, "no such function: lenght. "
         "Did you mean length?"),
        (
            "select name from city, country",
            ErrorKind.EXCEPTION,
            "ambiguous column name: name. It is in: country, city. Write table.name.",
        ),
        (
            "select name\nfrom city whre id = 1",
            ErrorKind.SYNTAX,
            'Syntax error near "id" (line 2, character 16): from city whre >>>id<<< = 1.',
        ),
        (
            "select name form city; ",
            ErrorKind.SYNTAX,
            'Syntax error near "city" (line 1, character 18): select name form >>>city<<<;.',
        ),
        (
            "select 'select', selected select from city",
            ErrorKind.SYNTAX,
            'Syntax error near "select" (line 1, character 27): '
            "select 'select', selected >>>select<<< from city.",
        ),
        (
            "select name from city where (id = 1",
            ErrorKind.SYNTAX,
            "Syntax error: the query ends too early; something is missing at its end.",
        ),
        (
            "select name from city where name = 'Oslo",
            ErrorKind.SYNTAX,
            "Syntax error: a quote is not closed (line 1, character 36): "
            "select name from city where name = >>>'<<<Oslo.",
        ),
        (
            "select 1 union select 1, 2",
            ErrorKind.EXCEPTION,
            "SELECTs to the left and right of UNION do not have the same number of result columns.",
        ),
        ("select json('{')", ErrorKind.EXCEPTION, "malformed JSON."),
        ("select abs(-9223372036854775808)", ErrorKind.EXCEPTION, "integer overflow."),
        ("select * from broken", ErrorKind.NOT_FOUND, "no such table: main.gone. "
         "Tables: country, city, norwegian, broken."),
        (
            "drop table city",
            ErrorKind.FORBIDDEN,
            "DROP is not allowed. Only reading is allowed: "
            "SELECT, WITH, VALUES, EXPLAIN, PRAGMA table_info(...).",
        ),
        ("select 1; select 2", ErrorKind.FORBIDDEN, "Only one statement at a time is allowed."),
        ("", ErrorKind.ARGUMENTS, "The query is empty."),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(world: SqlTool, query: str, kind: ErrorKind, text: str) -> None:
    result = world.ask(query)
    assert (result.error, result.text) == (kind, text)


def test_a_misspelt_name_in_double_quotes_is_pointed_out(world: SqlTool) -> None:
    # SQLite reads it as a text, and the query seems to work.
    assert world.ask('select "nmae" from city limit 1').text == (
        '"nmae"\nnmae\n(1 row)\n("nmae": no such column, read as text)'
    )
    assert world.ask('select "name" from city limit 1').text == "name\nOslo\n(1 row)"


def test_identifiers_with_quotes_and_other_alphabets() -> None:
    odd = {"we\"ird [t]`able'": [{'a "b"': 1, "größe": "x", "select": 2, "数": 3}]}
    tool = SqlTool.memory(odd)
    assert tool.ask('select "a ""b""", größe, [select], 数 from "we""ird [t]`able\'"').text == (
        'a "b" | größe | select | 数\n1 | x | 2 | 3\n(1 row)'
    )
    assert 'we"ird [t]`able\' (1 row)\n  a "b" INTEGER: 1' in tool.description
    assert (
        "Did you mean we\"ird [t]`able'.größe?"
        in tool.ask('select grösse from "we""ird [t]`able\'"').text
    )


# -- the schema ----------------------------------------------------------------------------------

FULL = """\
country (2 rows)
  code TEXT primary key: DK, NO
  name TEXT: Denmark, Norway
  population INT: 5550203, 5977412
city (3 rows)
  id INTEGER primary key: 1, 2, 3
  name TEXT: Aarhus, Bergen, Oslo
  country_code TEXT -> country.code: DK, NO
  area in km² REAL: 91.0, 454.12
norwegian (view)
  name TEXT
broken (view)"""
NO_SAMPLES = """\
country (2 rows)
  code TEXT primary key
  name TEXT
  population INT
city (3 rows)
  id INTEGER primary key
  name TEXT
  country_code TEXT -> country.code
  area in km² REAL
norwegian (view)
  name TEXT
broken (view)
(left out: all sample values)"""


def test_the_schema_is_described_within_a_budget(world: SqlTool) -> None:
    schema = asyncio.run(world.schema())

    def text(budget: int | None) -> str:
        return describe(schema, budget=budget)

    assert text(None) == text(10_000) == FULL
    assert text(len(FULL) - 1).endswith("(left out: some sample values)")
    assert text(len(NO_SAMPLES)) == NO_SAMPLES
    names = "country(code, name, population)\ncity(id, name, country_code, area in km²)"
    assert text(len(NO_SAMPLES) - 1) == (
        f"{names}\nnorwegian(name)\nbroken()\n(left out: types, keys, all sample values)"
    )
    assert text(120) == (
        "country(code, name, population)\n"
        "(left out: the columns of the tables city, norwegian, broken)"
    )
    assert text(55) == "(left out: the tables country, city and 2 more)"
    assert text(25) == "(left out: all tables)"
    with pytest.raises(ValueError, match="too small"):
        text(5)
    for budget in range(25, 400, 5):
        assert len(text(budget)) <= budget
        words = describe(schema, budget=budget, count=lambda t: 2 * len(t.split()))
        assert 2 * len(words.split()) <= budget


def test_the_description_holds_the_schema(world: SqlTool) -> None:
    assert world.description == (
        "Runs one SQLite query on a database and returns its rows. It can only read.\n"
        f"The tables:\n{FULL}"
    )
    short = SqlTool(world.database, schema_budget=55)
    assert short.description.endswith("\n(left out: the tables country, city and 2 more)")
    none = SqlTool(world.database, schema_budget=0)
    assert none.description.endswith("It can only read.")
    assert SqlTool.memory("select 1").description.endswith("(no tables)")


# -- what can't be


def test_a_database_is_found_by_its_plain_name_only(tmp_path: Path) -> None:
    (tmp_path / "school").mkdir()
    for name in ("school/school.sqlite", "toys.db", "secret.db"):
        (tmp_path / name).write_bytes(b"")
    assert find_database(tmp_path, "school") == tmp_path / "school" / "school.sqlite"
    assert find_database(tmp_path, "toys") == tmp_path / "toys.db"
    folder = tmp_path / "school"
    for name in (
        "../secret",
        "../../etc",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a/b",
        "x\0",
        "..\\secret",
    ):
        with pytest.raises(DataError, match="is no name"):
            find_database(folder, name)
    with pytest.raises(DataError, match="no database 'zoo'"):
        find_database(tmp_path, "zoo")


def test_what_can_not_be_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="makes no database"):
        SqlTool.memory("create tabel x")
    with pytest.raises(UsageError, match="no rows"):
        SqlTool.memory({"empty": []})
    with pytest.raises(UsageError, match="too large"):
        SqliteDatabase.memory({"t": [{"b": b"x" * 2_000_000}]}, workers=Workers(memory=8 << 20))
    with pytest.raises(UsageError, match="at least one worker"):
        Workers(0)
    with pytest.raises(UsageError, match="budget"):
        SqlTool.memory(WORLD, budget=0)
    with pytest.raises(ValueError, match="rows must be"):
        SqlTool.memory(WORLD, rows=0)
    assert SHOWN.rows == 20

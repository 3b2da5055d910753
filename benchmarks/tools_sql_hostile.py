"""Twenty hostile queries to SQL tools: the database stays intact, the next query is answered.

Ours answers all of them in one session, on SQLite, on DuckDB and, where a server is installed, on
PostgreSQL. Other tools get a process and a database of their own for each query, with 4 GB of
memory, and are ended 10 s after the time limit of 2 s that they are given. Prints a table.

    python benchmarks/tools_sql_hostile.py
    python benchmarks/tools_sql_hostile.py --peer skyrl-gym=PYTHON --peer nemo-gym=PYTHON

PYTHON is the interpreter of an environment with skyrl-gym 0.4.0 or nemo-gym 0.4.0 (which may be
installed without what it requires: its executor needs none of it).
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 2.0
PATIENCE = 10.0
NEXT = "select count(*) as n from city"
ROWS = 2000

_ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n)"
_DEEP = "select " + "(" * 5000 + "1" + ")" * 5000


@dataclass(frozen=True)
class Hostile:
    """A hostile wish, and how it is written for each system. `{out}` is a path to write to."""

    wish: str
    sqlite: str
    duckdb: str = ""
    postgres: str = ""

    def query(self, system: str, out: Path) -> str:
        """The query for a system; SQLite's where it has none of its own."""
        return (getattr(self, system, "") or self.sqlite).replace("{out}", str(out))


QUERIES = (
    Hostile("drop a table", "drop table city"),
    Hostile("delete rows, and return them", "delete from city returning *"),
    Hostile("insert a row", "insert into city values (-1, 'X')"),
    Hostile("end the transaction", "commit"),
    Hostile("a second statement", "select 1; drop table city"),
    Hostile("create a table", "create table evil (x int)"),
    Hostile("create a temporary table", "create temp table evil as select * from city"),
    Hostile(
        "open or write a file", "attach '{out}' as evil", "copy city to '{out}'",
        "copy city to '{out}'",
    ),
    Hostile(
        "copy the database out", "vacuum into '{out}'", "export database '{out}'",
        "copy city to program 'cat > {out}'",
    ),
    Hostile(
        "read a file of the host", "select readfile('/etc/passwd')",
        "select * from read_text('/etc/passwd')", "select pg_read_file('/etc/passwd')",
    ),
    Hostile("load code", "select load_extension('{out}')", "install httpfs", "load '{out}'"),
    Hostile(
        "switch a wall off", "pragma writable_schema = 1", "set enable_external_access = true",
        "select set_config('transaction_read_only', 'off', false)",
    ),
    Hostile(
        "a setting that stays", "pragma user_version = 7", "create macro two() as 2",
        "alter role reader set default_transaction_read_only = off",
    ),
    Hostile("take a lock", "begin exclusive", "begin", "select pg_advisory_lock(1)"),
    Hostile("recursion without end", f"{_ENDLESS} select max(x) from n"),
    Hostile(
        "a join of 16 billion rows",
        "select sum(a.id * b.id + c.id) from city a, city b, city c where a.name < b.name || c.id",
    ),
    Hostile(
        "one huge value", "select printf('%.*c', 900000000, 'x')", "select repeat('x', 900000000)",
        "select repeat('x', 300000000)",
    ),
    Hostile(
        "all memory", f"{_ENDLESS} select group_concat(printf('%900d', x)) from n",
        "select list(range) from range(5000000000)",
        "select array_agg(x) from generate_series(1, 10000000000) x",
    ),
    Hostile(
        "a billion rows", f"{_ENDLESS} select x from n limit 1000000000",
        "from range(1000000000)", "select generate_series(1, 1000000000)",
    ),
    Hostile("5,000 parentheses", _DEEP),
)  # fmt: skip


@dataclass
class Outcome:
    """The outcome of a query: what the tool did, and how long the next query took, in seconds."""

    did: str
    seconds: float
    next_seconds: float | None
    damage: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """True if nothing was changed and the next query was answered."""
        return not self.damage and self.next_seconds is not None

    def __str__(self) -> str:
        parts = [f"{self.did} ({self.seconds:.1f} s)", *(f"**{each}**" for each in self.damage)]
        if self.next_seconds is None:
            parts.append("**next query not answered**")
        elif self.next_seconds > 1:
            parts.append(f"next query after {self.next_seconds:.1f} s")
        return ", ".join(parts)


# -- databases -------------------------------------------------------------------------------------

CITY = "create table city (id integer primary key, name varchar(40))"


def make_sqlite(path: Path) -> list[Any]:
    """A database of one table; returns its content."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(CITY)
        db.executemany("insert into city values (?, ?)", ((i, f"c{i}") for i in range(ROWS)))
    return content_sqlite(path)


def content_sqlite(path: Path) -> list[Any]:
    """The whole content, and the settings that a query could change."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as db:
        return [*db.iterdump(), db.execute("pragma user_version").fetchone()]


def make_duckdb(path: Path) -> bytes:
    """The same for DuckDB; returns the file's bytes."""
    import duckdb

    with duckdb.connect(str(path)) as db:
        db.execute(f"{CITY}; insert into city select range, 'c' || range from range({ROWS})")
    return path.read_bytes()


def make_postgres(owner: str) -> str:
    """The same for PostgreSQL; returns the address of a role that may write."""
    import psycopg

    with psycopg.connect(owner, autocommit=True) as db:
        db.execute(CITY)
        db.execute(f"insert into city select i, 'c' || i from generate_series(0, {ROWS - 1}) i")
        db.execute("create role reader login password 'reader'; grant all on city to reader")
    return f"postgresql://reader:reader@{owner.rpartition('@')[2]}"


def content_postgres(owner: str) -> list[Any]:
    """The content, the names of tables, and the settings that a query could change."""
    import psycopg

    with psycopg.connect(owner) as db:
        return [
            db.execute("select * from city order by id").fetchall(),
            db.execute("select relname from pg_class order by 1").fetchall(),
            db.execute("select setconfig from pg_db_role_setting").fetchall(),
            db.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchall(),
        ]


@contextlib.contextmanager
def postgres_server() -> Iterator[str | None]:
    """A throwaway server's address, or None where none is installed."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.postgres import NoServer, server

    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(server())
        except NoServer:
            yield None


# -- ours ------------------------------------------------------------------------------------------

_DID = {
    "forbidden": "refused", "syntax": "refused", "not_found": "refused", "timeout": "stopped",
    "memory": "stopped, memory", "died": "ended",
}  # fmt: skip


async def ours(
    system: str, place: str, folder: Path, seconds: float, read: Callable[[], Any]
) -> list[Outcome]:
    """All queries in one session of our tool. `read` gives the content, which must stay."""
    from interlace.tools.sql import SqlTool

    outcomes = []
    before, content = os.listdir(folder), read()
    async with SqlTool(place, schema_budget=0).session() as session:
        for hostile in QUERIES:
            query = hostile.query(system, folder / "out")
            start = time.perf_counter()
            result = await session.call({"query": query}, seconds)
            took = time.perf_counter() - start
            start = time.perf_counter()
            after = await session.call({"query": NEXT}, 30.0)
            next_took = time.perf_counter() - start
            answered = after.text == f"n\n{ROWS}\n(1 row)"
            damage = ["wrote a file" for _ in set(os.listdir(folder)) - set(before)]
            if await asyncio.to_thread(read) != content:
                damage.append("database changed")
            did = "answered" if result.ok else _DID.get(str(result.error), "refused")
            outcomes.append(Outcome(did, took, next_took if answered else None, tuple(damage)))
    return outcomes


def all_ours(systems: Sequence[str], seconds: float) -> dict[str, list[Outcome]]:
    """Our outcomes by system; without PostgreSQL where no server is installed."""
    found = {}
    files: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
        "sqlite": (make_sqlite, content_sqlite),
        "duckdb": (make_duckdb, Path.read_bytes),
    }
    for system in systems:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if system in files:
                path = folder / "city.db"
                make, read = files[system]
                make(path)
                run = ours(system, str(path), folder, seconds, partial(read, path))
                found[system] = asyncio.run(run)
                continue
            folder.chmod(0o777)  # the server's user could write here
            with postgres_server() as owner:
                if owner is not None:
                    address = make_postgres(owner)
                    run = ours(system, address, folder, seconds, partial(content_postgres, owner))
                    found[system] = asyncio.run(run)
    return found


# -- others ----------------------------------------------------------------------------------------


def peer_call(system: str, folder: Path, query: str) -> str:
    """One query by another project's executor, in this process; the text or rows that it gives."""
    if system == "skyrl-gym":
        from skyrl_gym.tools import (  # type: ignore[import-not-found]
            SQLCodeExecutorToolGroup,
        )

        return str(SQLCodeExecutorToolGroup(str(folder)).sql("city", query, 3, SECONDS))
    from resources_servers.bird_sql.eval_utils import (  # type: ignore[import-not-found]
        execute_sqlite_async,
    )

    path = folder / "city" / "city.sqlite"
    # Not asyncio.run, which would wait for the thread of a query that was given up.
    loop = asyncio.new_event_loop()
    call = execute_sqlite_async(path, query, asyncio.Semaphore(1), SECONDS)
    rows = loop.run_until_complete(call)
    return "error or time" if rows is None else f"{len(rows)} rows"


def one_of_peer(system: str, folder: Path, query: str) -> None:
    """A query and the next one; a line of JSON after each."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    os.chdir(folder)
    for each in (query, NEXT):
        start = time.perf_counter()
        try:
            said = peer_call(system, folder, each)
        except BaseException as error:
            said = f"raised {type(error).__name__}"
        print(json.dumps([said[-2000:], time.perf_counter() - start]), flush=True)
    os._exit(0)  # its threads may still run


def peer(system: str, python: str) -> list[Outcome]:
    """All queries, each on a database and in a process of its own."""
    outcomes = []
    for hostile in QUERIES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            path = folder / "city" / "city.sqlite"
            path.parent.mkdir()
            content = make_sqlite(path)
            copy = folder / "was.sqlite"
            shutil.copy(path, copy)
            query = hostile.query("sqlite", folder / "out")
            command = [python, __file__, "--one", system, str(folder), query]
            start = time.perf_counter()
            lines = []
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                try:
                    out, _ = done.communicate(timeout=SECONDS + PATIENCE)
                except subprocess.TimeoutExpired:
                    done.kill()
                    out, _ = done.communicate()
                lines = [json.loads(line) for line in out.splitlines()]
            took = lines[0][1] if lines else time.perf_counter() - start
            said = lines[0][0] if lines else ""
            if not lines:
                did = "never came back" if took >= SECONDS + PATIENCE else "its process ended"
            elif "Timeout" in said or ("error or time" in said and took > SECONDS / 2):
                did = "stopped"
            elif "rror" in said or "raised" in said:
                did = "error"
            else:
                did = "ran"
            damage = []
            try:
                if content_sqlite(path) != content:
                    damage.append("database changed")
            except sqlite3.Error as error:
                damage.append(f"database: {error}")
            files = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
            damage += [
                "wrote a file" for each in files - {"city/city.sqlite", "was.sqlite"}
                if not each.endswith("-journal")
            ]  # fmt: skip
            good = len(lines) > 1 and (str(ROWS) in lines[1][0] or lines[1][0] == "1 rows")
            outcomes.append(Outcome(did, took, lines[1][1] if good else None, tuple(damage)))
    return outcomes


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", action="append", choices=["sqlite", "duckdb", "postgres"])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of ours")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        system, folder, query = args.one
        one_of_peer(system, Path(folder), query)
    columns = all_ours(args.system or ["sqlite", "duckdb", "postgres"], args.seconds)
    for each in args.peer:
        system, _, python = each.partition("=")
        columns[system] = peer(system, python)
    print(f"| query | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for i, hostile in enumerate(QUERIES):
        print(f"| {hostile.wish} | {' | '.join(str(rows[i]) for rows in columns.values())} |")
    sums = [f"{sum(row.good for row in rows)} of {len(rows)}" for rows in columns.values()]
    print(f"| **intact, and the next query answered** | {' | '.join(sums)} |")


if __name__ == "__main__":
    main()

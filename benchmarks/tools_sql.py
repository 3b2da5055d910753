"""Guarded SQL queries per second, against bare sqlite3 in the same process and the same run.

Bare sqlite3 has no walls: it runs in our process, can write, has no deadline that holds and no
bound on rows or memory. What the walls cost is the difference. Prints medians over `--runs`.

    python benchmarks/tools_sql.py
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interlace.tools.sql import SqliteDatabase, SqlTool, Workers
from interlace.tools.sql.worker import Connection

QUERIES = {
    "select 1": "select 1",
    "one row by its key": "select name, people from city where id = 4711",
    "20 rows of a scan": "select name, people from city where people > 500000 limit 20",
    "scan of 100,000 rows": "select count(*), sum(people) from city where name like '%77%'",
}
BOUNDS = {"rows": 20, "columns": 30, "cell": 100, "bytes": 100_000, "counted": 1000}


def make(path: Path) -> None:
    """A table of 100,000 rows."""
    with sqlite3.connect(path) as db:
        db.execute("create table city (id integer primary key, name text, people int)")
        rows = ((i, f"city {i}", i * 7919 % 1_000_000) for i in range(100_000))
        db.executemany("insert into city values (?, ?, ?)", rows)
    db.close()


def per_second(work: Callable[[], object], seconds: float) -> float:
    """How often a second `work` runs."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        work()
        count += 1
    return count / (time.perf_counter() - start)


async def tool_per_second(tool: SqlTool, query: str, seconds: float, at_once: int) -> float:
    """How many calls a second `at_once` sessions make."""
    end = time.perf_counter() + seconds

    async def one() -> int:
        count = 0
        async with tool.session() as session:
            while time.perf_counter() < end:
                result = await session.call({"query": query}, 5.0)
                assert result.ok, result.text
                count += 1
        return count

    async with tool:
        await tool.call(query, 5.0)
        start = time.perf_counter()
        end = start + seconds
        counts = await asyncio.gather(*(one() for _ in range(at_once)))
        return sum(counts) / (time.perf_counter() - start)


async def first_result(path: Path) -> float:
    """Seconds from a tool without a process to its first result."""
    tool = SqlTool(SqliteDatabase(path, workers=Workers(1)))
    start = time.perf_counter()
    await tool.call("select 1", 5.0)
    return time.perf_counter() - start


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cities.db"
        make(path)
        bare = sqlite3.connect(path)
        guarded = Connection(str(path), b"")
        tool = SqlTool(path)
        print(f"{'queries per second':<24}{'bare':>9}{'walls':>9}{'tool':>9}{'tool x 16':>11}")

        def once(query: str) -> list[float]:
            request = BOUNDS | {"sql": query, "seconds": 5.0}
            return [
                per_second(lambda: bare.execute(query).fetchall(), args.seconds),
                per_second(lambda: guarded.query(request), args.seconds),
                asyncio.run(tool_per_second(tool, query, args.seconds, 1)),
                asyncio.run(tool_per_second(tool, query, args.seconds, 16)),
            ]

        for name, query in QUERIES.items():
            runs = [once(query) for _ in range(args.runs)]
            medians = [statistics.median(column) for column in zip(*runs, strict=True)]
            print(
                f"{name:<24}{medians[0]:9.0f}{medians[1]:9.0f}{medians[2]:9.0f}{medians[3]:11.0f}"
            )
        starts = [asyncio.run(first_result(path)) for _ in range(4 * args.runs)]
        print(f"a process started and a query answered: {statistics.median(starts) * 1e3:.0f} ms")
        guarded.close()
        bare.close()
    print("bare: sqlite3, no walls. walls: the same in this process, guarded. tool: a session's")
    print("call, in a killable process, as text for a model; x 16: sixteen sessions at once.")


if __name__ == "__main__":
    main()

"""Database files in every state: whose fault it is, and that the next query is answered."""

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from interlace.tools import ErrorKind, ToolResult
from interlace.tools.errors import DataError
from interlace.tools.sql import SqliteDatabase, SqlTool, Workers

ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"


def make(path: Path, rows: int = 3, *, wal: bool = False) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if wal:
            db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = off")
        db.execute("begin")
        db.execute("create table t (n, s)")
        db.executemany("insert into t values (?, ?)", [(i, "x" * 500) for i in range(rows)])
        db.execute("commit")
    return path


def ask(tool: SqlTool, query: str = "select count(*) from t") -> ToolResult:
    return tool.ask(query, 60.0)


def worker_of(tool: SqlTool) -> int:
    """The process of an idle worker."""
    (worker,) = tool.database.workers.pools["sqlite"].idle  # type: ignore[attr-defined]
    pid: int = worker.pid
    return pid


def ticks(pid: int) -> int:
    """Hundredths of a second that a process has computed."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11])


def runs(pid: int) -> bool:
    """Whether it is more than a dead process that nobody has asked after yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def beside(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def test_what_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.db"
    encrypted.write_bytes(os.urandom(4096))
    for path, why in (
        (tmp_path / "missing.db", "No such file"),
        (tmp_path, "Is a directory"),
        (encrypted, "not an SQLite database, or an encrypted one"),
    ):
        with pytest.raises(DataError, match=why):
            SqlTool(path)


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    tool = SqlTool(tmp_path / "empty.db")
    assert tool.description.endswith("(no tables)")
    assert ask(tool).text == "no such table: t. Tables: none."


def test_a_corrupt_database_is_our_fault_and_not_the_models(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=200)
    data = bytearray(path.read_bytes())
    data[4096 * 3 :] = os.urandom(len(data) - 4096 * 3)
    path.write_bytes(data)
    result = ask(SqlTool(path), "select sum(length(s)) from t")
    assert result.error is ErrorKind.UNAVAILABLE
    assert "malformed" in result.text
    path.write_bytes(data[:4096] + os.urandom(10))  # cut short
    assert ask(SqlTool(path), "select * from t").error is ErrorKind.UNAVAILABLE
    path.write_bytes(data[:16] + os.urandom(4080))
    with pytest.raises(DataError, match=r"not a database|malformed|can't be"):
        _ = SqlTool(path).description


def test_a_database_that_disappears_or_is_replaced(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    tool = SqlTool(path)

    async def go() -> None:
        async with tool.session() as session:

            async def count() -> ToolResult:
                return await session.call({"query": "select count(*) from t"}, 60.0)

            assert (await count()).text == "count(*)\n3\n(1 row)"
            path.unlink()
            gone = await count()
            assert gone.error is ErrorKind.UNAVAILABLE and "No such file" in gone.text
            make(path, rows=5)
            assert (await count()).text == "count(*)\n5\n(1 row)"
            os.replace(make(tmp_path / "b.db", rows=7), path)
            assert (await count()).text == "count(*)\n7\n(1 row)"

    asyncio.run(go())


def test_a_database_deleted_during_a_query_is_read_to_its_end(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=3000)
    tool = SqlTool(SqliteDatabase(path, workers=Workers(1)))

    async def go() -> ToolResult:
        async with tool.session() as session:
            query = "select count(*) from t a, t b where a.n + b.n >= 0"
            assert (await session.call({"query": "select 1"}, 60.0)).ok
            before = ticks(pid := worker_of(tool))
            running = asyncio.create_task(session.call({"query": query}, 60.0))
            while ticks(pid) < before + 5:  # it is at work
                await asyncio.sleep(0.01)
            path.unlink()
            return await running

    assert asyncio.run(go()).text == "count(*)\n9000000\n(1 row)"


def test_a_locked_database_is_our_fault(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    tool = SqlTool(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("begin exclusive")
        result = ask(tool)
        assert result.error is ErrorKind.UNAVAILABLE and "locked" in result.text
        writer.execute("rollback")
    assert ask(tool).ok


def test_a_wal_database_nobody_writes_to_is_read_without_a_trace(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", wal=True)
    assert beside(path) == ["a.db"]
    assert ask(SqlTool(path)).text == "count(*)\n3\n(1 row)"
    assert beside(path) == ["a.db"]


def test_a_wal_database_in_a_folder_that_can_not_be_written_to(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", wal=True)
    tmp_path.chmod(0o555)
    try:
        assert ask(SqlTool(path)).text == "count(*)\n3\n(1 row)"
    finally:
        tmp_path.chmod(0o755)


def test_a_wal_database_that_is_being_written_to_is_read_as_it_grows(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", wal=True)
    tool = SqlTool(path)

    async def go() -> None:
        async with tool.session() as session:

            async def count() -> str:
                result = await session.call({"query": "select count(*) from t"}, 60.0)
                return result.text.splitlines()[1]

            assert await count() == "3"
            with closing(sqlite3.connect(path, isolation_level=None)) as writer:
                writer.execute("insert into t values (3, 'x')")
                assert await count() == "4"
                writer.execute("begin immediate")
                writer.execute("insert into t values (4, 'x')")
                assert await count() == "4"
                writer.execute("commit")
                assert await count() == "5"
            assert await count() == "5"

    asyncio.run(go())


def test_a_wal_database_whose_writer_was_killed(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", wal=True)
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute(\"insert into t values (3, 'x')\"); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert "a.db-wal" in beside(path)
    assert ask(SqlTool(path)).text == "count(*)\n4\n(1 row)"


def test_paths_with_signs_that_mean_something_in_a_uri(tmp_path: Path) -> None:
    folder = tmp_path / "a?mode=rwc&b#c %41 ü"
    folder.mkdir()
    path = make(folder / "x y.db")
    assert ask(SqlTool(str(path))).ok
    assert beside(path) == ["x y.db"]


def test_a_full_text_index_can_be_searched(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        try:
            db.execute("create virtual table notes using fts5 (body)")
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no FTS5")
        db.execute("insert into notes values ('a red fox'), ('a dog')")
    tool = SqlTool(path)
    result = ask(tool, "select highlight(notes, 0, '[', ']') h from notes where notes match 'fox'")
    assert result.text == "h\na red [fox]\n(1 row)"
    assert ask(tool, "insert into notes values ('x')").error is ErrorKind.FORBIDDEN
    assert ask(tool, "insert into notes(notes) values ('optimize')").error is ErrorKind.FORBIDDEN
    # the tables in which the index keeps itself are not the model's business
    assert tool.description.endswith("notes (2 rows)\n  body: a dog, a red fox")


# -- processes -----------------------------------------------------------------------------------


@pytest.fixture
def tool() -> Iterator[SqlTool]:
    database = SqliteDatabase.memory("create table t (n)", workers=Workers(1))
    yield SqlTool(database)


def test_a_worker_that_is_killed_while_idle_is_replaced(tool: SqlTool) -> None:
    async def go() -> None:
        async with tool.session() as session:
            for _ in range(3):
                assert (await session.call({"query": "select 1"}, 60.0)).ok
                os.kill(pid := worker_of(tool), signal.SIGKILL)
                while runs(pid):
                    await asyncio.sleep(0.01)
            assert (await session.call({"query": "select 1"}, 60.0)).ok

    asyncio.run(go())


def test_a_worker_that_is_killed_at_work_is_reported_and_replaced(tool: SqlTool) -> None:
    async def go() -> None:
        async with tool.session() as session:
            assert (await session.call({"query": "select 1"}, 60.0)).ok
            pid = worker_of(tool)
            before = ticks(pid)
            running = asyncio.create_task(session.call({"query": ENDLESS}, 3600.0))
            while ticks(pid) < before + 5:  # it is at work
                await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            result = await running
            assert result.error is ErrorKind.DIED and "SIGKILL" in result.text
            assert (await session.call({"query": "select 1"}, 60.0)).ok

    asyncio.run(go())


def test_a_worker_that_is_stopped_at_work_is_killed_at_the_deadline(tool: SqlTool) -> None:
    async def go() -> None:
        async with tool.session() as session:
            assert (await session.call({"query": "select 1"}, 60.0)).ok
            os.kill(worker_of(tool), signal.SIGSTOP)  # so its own alarm can't ring
            assert (await session.call({"query": "select 1"}, 0.2)).error is ErrorKind.TIMEOUT
            assert (await session.call({"query": "select 1"}, 60.0)).ok

    asyncio.run(go())


def test_no_worker_outlives_a_host_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import asyncio, os
from interlace.tools.sql import SqliteDatabase, SqlTool, Workers

async def go():
    tool = SqlTool(SqliteDatabase.memory("create table t (n)", workers=Workers(2)))
    async with tool.session() as one:
        await asyncio.gather(*(one.call({{"query": "select 1"}}, 60.0) for _ in range(2)))
        pids = [worker.pid for worker in tool.database.workers.pools["sqlite"].idle]
        call = asyncio.create_task(one.call({{"query": {ENDLESS!r}}}, 1.0))
        await asyncio.sleep(0.1)
        print(*pids, flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(go())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    for _ in range(600):
        if not any(map(runs, pids)):
            break
        time.sleep(0.05)
    assert not any(map(runs, pids))


def test_workers_end_with_a_tool_that_is_simply_dropped() -> None:
    """As when an event loop is closed in the middle of a session."""

    async def go() -> int:
        database = SqliteDatabase.memory("create table t (n)", workers=Workers(1))
        held = database.held()
        await held.__aenter__()
        await database.query("select 1")
        (worker,) = database.workers.pools["sqlite"].idle
        assert worker.alive
        return int(worker.pid)

    process = Path(f"/proc/{asyncio.run(go())}")
    gc.collect()
    for _ in range(100):
        if not process.exists():
            break
        time.sleep(0.02)
    assert not process.exists()

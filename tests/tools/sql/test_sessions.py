"""Sessions over shared workers: at once, from threads, cancelled, waiting, on many databases."""

import asyncio
import os
import threading
import time
from pathlib import Path

from interlace.tools import ErrorKind
from interlace.tools.sql import SqliteDatabase, SqlTool, Workers

WORLD = "create table city (name text); insert into city values ('Oslo'), ('Aarhus'), ('Bergen')"


def children() -> set[int | str]:
    """The processes that this one has started, the dead that nobody has waited for included."""
    own = f"/proc/self/task/{threading.main_thread().native_id}/children"
    return {int(pid) for pid in Path(own).read_text().split()} if Path(own).exists() else set()


def descriptors() -> set[int | str]:
    return {f"fd {number}" for number in os.listdir("/proc/self/fd")}


def left_over(before: set[int | str]) -> set[int | str]:
    return (children() | descriptors()) - before


def test_sessions_share_the_workers_and_leave_nothing() -> None:
    tool = SqlTool(SqliteDatabase.memory(WORLD, workers=Workers(2)))
    before = children() | descriptors()

    async def one(number: int) -> str:
        async with tool.session() as session:
            fork = await session.fork()
            texts = {
                (await each.call({"query": f"select {number}, count(*) from city"}, 60.0)).text
                for each in (session, fork)
                for _ in range(2)
            }
        assert (await session.call({"query": "select 1"}, 60.0)).error is ErrorKind.UNAVAILABLE
        return texts.pop()

    async def many() -> list[str]:
        async with tool:
            return await asyncio.gather(*(one(i) for i in range(100)))

    assert asyncio.run(many()) == [f"{i} | count(*)\n{i} | 3\n(1 row)" for i in range(100)]
    counters = tool.database.workers.counters  # type: ignore[attr-defined]
    assert (counters["queries"], counters["starts"]) == (400, 2)
    for _ in range(200):
        if not left_over(before):
            break
        time.sleep(0.05)
    assert not left_over(before)


def test_threads_with_loops_of_their_own_share_the_workers() -> None:
    tool = SqlTool(SqliteDatabase.memory(WORLD, workers=Workers(2)))
    found: list[str] = []

    def work() -> None:
        found.extend(tool.ask("select count(*) from city").text for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["count(*)\n3\n(1 row)"] * 80


def test_a_cancelled_call_frees_its_worker() -> None:
    tool = SqlTool(SqliteDatabase.memory(WORLD, workers=Workers(1)))
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"

    async def go() -> None:
        async with tool.session() as session:
            assert (await session.call({"query": "select 1"}, 60.0)).ok
            workers = tool.database.workers  # type: ignore[attr-defined]
            running = asyncio.create_task(session.call({"query": endless}, 3600.0))
            while workers.pools["sqlite"].idle:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(session.call({"query": endless}, 60.0))
            next_one = asyncio.create_task(session.call({"query": "select 1"}, 60.0))
            await asyncio.sleep(0.1)
            waiting.cancel()
            running.cancel()
            assert (await next_one).ok
            assert all(task.cancelled() for task in (running, waiting))

    asyncio.run(go())
    assert tool.database.workers.counters["cancelled"] == 1  # type: ignore[attr-defined]


def test_where_no_worker_becomes_free_it_is_our_fault() -> None:
    workers = Workers(1, patience=0.2)
    tool = SqlTool(SqliteDatabase.memory(WORLD, workers=workers))
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"

    async def go() -> None:
        async with tool.session() as session:
            assert (await session.call({"query": "select 1"}, 60.0)).ok
            running = asyncio.create_task(session.call({"query": endless}, 3600.0))
            while workers.pools["sqlite"].idle:
                await asyncio.sleep(0.01)
            late = await session.call({"query": "select 1"}, 60.0)
            assert late.error is ErrorKind.UNAVAILABLE and "no worker" in late.text
            running.cancel()
            await asyncio.wait({running})
            assert (await session.call({"query": "select 1"}, 60.0)).ok

    asyncio.run(go())


def test_one_tool_can_serve_many_databases() -> None:
    workers = Workers(1)
    tool = SqlTool(SqliteDatabase.memory(WORLD, workers=workers), rows=2, schema_budget=0)
    others = [tool.on(SqliteDatabase.memory({"t": [{"n": i}]}, workers=workers)) for i in range(30)]

    async def go() -> None:
        async with tool:
            for _ in range(2):  # more than a worker keeps open, twice round
                for i, other in enumerate(others):
                    async with other.session() as session:
                        result = await session.call({"query": "select n from t"}, 60.0)
                        assert result.text == f"n\n{i}\n(1 row)"

    asyncio.run(go())
    assert workers.counters["starts"] == 1
    assert others[0].bounds.rows == 2

"""A pool of processes: one that hangs, dies or says nonsense is ended, and the next one answers."""

import asyncio
import gc
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from interlace.tools.process_pool import (
    CannotStart,
    Overrun,
    PooledProcess,
    ProcessDied,
    ProcessPool,
)

PROGRAM = """
import json, os, sys, time
requests, replies = os.fdopen(0, "rb"), os.fdopen(os.dup(0), "wb")
if sys.argv[1:] == ["broken"]:
    sys.exit(3)
replies.write(b"ready\\n"); replies.flush()
for line in requests:
    what = json.loads(line)
    if what == "hang":
        while True: time.sleep(1)
    if what == "die":
        os.kill(os.getpid(), 11)
    if what == "leave":
        sys.exit(4)
    if what == "flood":
        with __import__("contextlib").suppress(OSError):
            while True: replies.write(b"x" * (1 << 20))
    replies.write(json.dumps([what, os.getpid()]).encode() + b"\\n"); replies.flush()
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ProcessPool[PooledProcess]]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    pool = ProcessPool(lambda: start(script))
    yield pool
    pool.close()


def start(script: Path, *arguments: str) -> PooledProcess:
    return PooledProcess(script, *arguments, flags="-IS", environment={}, start_seconds=60.0)


Ask = Callable[[ProcessPool[PooledProcess], str, float], Any]


def ask(pool: ProcessPool[PooledProcess], what: str, seconds: float = 60.0) -> Any:
    with pool.one() as process:
        return json.loads(process.ask(json.dumps(what).encode() + b"\n", seconds))


def ask_async(pool: ProcessPool[PooledProcess], what: str, seconds: float = 60.0) -> Any:
    async def go() -> Any:
        with pool.one() as process:
            return json.loads(await process.ask_async(json.dumps(what).encode() + b"\n", seconds))

    return asyncio.run(go())


@pytest.mark.parametrize("ask", [ask, ask_async])
def test_what_goes_wrong_in_one_process_is_told_and_another_takes_its_place(
    pool: ProcessPool[PooledProcess], ask: Ask
) -> None:
    said, first = ask(pool, "a long word " * 100_000, 60.0)
    assert said == "a long word " * 100_000 and ask(pool, "again", 60.0) == ["again", first]
    seen = {first}
    for what, error, told, code in (
        ("hang", Overrun, "in time", None),
        ("die", ProcessDied, "SIGSEGV", -signal.SIGSEGV),
        ("leave", ProcessDied, "exit code 4", 4),
        ("flood", ProcessDied, "more than 67108864 bytes", None),
    ):
        (process,) = pool.idle
        with pytest.raises(error, match=told) as caught:
            ask(pool, what, 0.2 if what == "hang" else 60.0)
        assert getattr(caught.value, "code", None) == code
        assert not pool.idle
        while process.alive:
            time.sleep(0.01)
        _, next_one = ask(pool, "ok", 60.0)
        assert next_one not in seen
        seen.add(next_one)


def test_a_process_that_was_killed_while_idle_is_not_asked(
    pool: ProcessPool[PooledProcess],
) -> None:
    _, first = ask(pool, "one")
    (process,) = pool.idle
    process._process.kill()
    process._process.wait()
    assert ask(pool, "two")[1] != first and len(pool.idle) == 1


def test_threads_that_ask_at_once_have_a_process_each(pool: ProcessPool[PooledProcess]) -> None:
    meet, pids = threading.Barrier(3), set[int]()

    def work() -> None:
        with pool.one() as process:
            meet.wait(60)
            pids.add(json.loads(process.ask(b'"x"\n', 60.0))[1])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == len(pool.idle) == 3


def test_a_cancelled_request_ends_its_process(pool: ProcessPool[PooledProcess]) -> None:
    ask(pool, "here")
    (process,) = pool.idle

    async def go() -> None:
        async def hang() -> None:
            with pool.one() as process:
                await process.ask_async(b'"hang"\n', 3600.0)

        task = asyncio.create_task(hang())
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(go())
    while process.alive:
        time.sleep(0.01)
    assert not pool.idle


def test_a_program_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: ProcessPool[PooledProcess]
) -> None:
    broken = ProcessPool(lambda: start(tmp_path / "program.py", "broken"))
    for way in (ask, ask_async):
        with pytest.raises(CannotStart, match="exit code 3"):
            way(broken, "x")
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/nothing-is-here")
    with pytest.raises(CannotStart, match="No such file"):
        ask(broken, "x")


def test_processes_end_with_a_pool_that_is_dropped(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    pool = ProcessPool(lambda: start(script))
    ask(pool, "x")
    (process,) = pool.idle
    del pool
    gc.collect()
    while process.alive:
        time.sleep(0.01)

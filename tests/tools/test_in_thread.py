"""Work in a thread, where the machine has no thread left to start."""

import asyncio
import threading
import time

import pytest

from interlace.tools.background import in_thread


def test_work_runs_once_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor keeps work for which it found no thread, and its busy one comes to it later."""
    runs: list[int] = []
    begun, freed = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        freed.wait()

    def work(number: int) -> int:
        runs.append(number)
        return -number

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        busy = asyncio.create_task(in_thread(wait))
        while not begun.is_set():  # another test's threads have the same names
            await asyncio.sleep(0)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert await asyncio.gather(*(in_thread(work, n) for n in range(3))) == [0, -1, -2]
        freed.set()
        await busy
        monkeypatch.undo()
        await in_thread(time.sleep, 0)  # the thread that was busy has gone through the rest

    asyncio.run(main())
    assert sorted(runs) == [0, 1, 2]


def test_what_it_raises_is_raised_where_it_is_awaited() -> None:
    def work() -> None:
        raise RuntimeError("can't start new thread: said by the work itself")

    with pytest.raises(RuntimeError, match="by the work itself"):
        asyncio.run(in_thread(work))

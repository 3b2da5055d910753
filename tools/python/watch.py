"""Limits that the kernel does not hold for a whole session: memory, and where need be the rest."""

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ..base import ErrorKind
from .launch import descendants
from .remote import Worker
from .sandbox import Session

__all__ = ["watch"]

POLL_SECONDS = 0.05
IDLE_POLL_SECONDS = 5.0
DISK_POLL_SECONDS = 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE")


async def watch(sessions: Callable[[], Iterable[Session]], memory: int) -> None:
    """End every worker that passes a limit, with all that it started. Runs until cancelled.

    `memory` is in bytes, of the worker and all that it started together. Memory that processes
    share is counted once. A worker that runs a cell is looked at 20 times a second.
    """
    next_idle = next_disk = 0.0
    exact_again: dict[int, float] = {}
    while True:
        now = time.monotonic()
        everything = now >= next_idle
        if everything:
            next_idle = now + IDLE_POLL_SECONDS
            exact_again = {pid: at for pid, at in exact_again.items() if at > now}
        for session in list(sessions()):
            for worker in list(session.workers):
                if worker.alive and worker.pid and (everything or worker.busy):
                    if exact_again.get(worker.pid, 0.0) <= now:
                        exact_again[worker.pid] = _check(worker, memory)
                    if now >= next_disk and session.place is not None and worker.alive:
                        await _check_disk(session, worker)
        if now >= next_disk:
            next_disk = time.monotonic() + DISK_POLL_SECONDS
        await asyncio.sleep(POLL_SECONDS)


def _check(worker: Worker, memory: int) -> float:
    """End the worker if it passes a limit; else, when it is worth while to look again."""
    start = time.monotonic()
    pids = [worker.pid, *descendants(worker.pid)]
    walls = worker.session.walls
    # Where the kernel counts processes it counts threads as well, and stops at the limit.
    if not walls.counts_processes and _threads(pids) > walls.processes:
        worker.end(f"was ended for running more than {walls.processes} processes and threads")
    elif sum(_resident(pid) for pid in pids) > memory:  # shared memory counted in each
        if sum(_proportional(pid) for pid in pids) > memory:
            how = f"was ended for using more than {memory // 1_000_000:,} MB of memory"
            worker.end(how, ErrorKind.MEMORY)
        now = time.monotonic()
        return now + 5 * (now - start)
    return 0.0


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)


def _threads(pids: Iterable[int]) -> int:
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/task"))
    return count


async def _check_disk(session: Session, worker: Worker) -> None:
    walls, place = session.walls, session.place
    assert place is not None
    size, files = await asyncio.to_thread(_used, place)
    if size > walls.disk or files > walls.files:
        worker.end(
            f"was ended for writing more than {walls.disk // 1_000_000:,} MB "
            f"or {walls.files:,} files"
        )


def _used(place: Path) -> tuple[int, int]:
    size = files = 0
    for folder, folders, names in os.walk(place):
        for name in (*folders, *names):
            files += 1
            with suppress(OSError):
                found = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(found.st_mode):
                    size += found.st_blocks * 512
    return size, files

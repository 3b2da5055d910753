"""Trees of processes: found and ended, whatever they do."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["children", "descendants", "end_process", "end_trees", "threads"]

_STOP_ROUNDS = 20


def end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a kernel's process with all that it started, and reap it.

    Of a kernel that ended by itself, a program that left the kernel's process group lives on.
    """
    if process.returncode is not None or os.getpid() != owner:
        return
    stopped = stop_trees([process.pid])
    _send(os.killpg, process.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
    for pid in stopped:
        _send(os.kill, pid, signal.SIGKILL)
    process.wait()


def end_trees(roots: Iterable[int]) -> None:
    """Kill these processes with all that they started."""
    for pid in stop_trees(roots):
        _send(os.kill, pid, signal.SIGKILL)


def stop_trees(roots: Iterable[int]) -> set[int]:
    """Stop these processes with all that they started, before any of them can start another."""
    roots, stopped = set(roots), set[int]()
    for _ in range(_STOP_ROUNDS):
        running = {pid for root in roots for pid in (root, *descendants(root))} - stopped
        for pid in running:
            _send(os.kill, pid, signal.SIGSTOP)
        if not running:
            break
        stopped |= running
    return stopped


def _send(send: Callable[[int, int], None], pid: int, signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        send(pid, signum)


def descendants(pid: int) -> Iterable[int]:
    """The children of a process, and theirs, however long the chain."""
    waiting = [pid]
    while waiting:
        found = children(waiting.pop())
        waiting += found
        yield from found


def children(pid: int) -> list[int]:
    """The processes whose parent is a thread of this one, or has become it."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def threads(pids: Iterable[int]) -> int:
    """How many threads the processes have, all together."""
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/task"))
    return count

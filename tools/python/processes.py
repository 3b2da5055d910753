"""Processes of a session, by number: what the kernel says of them, and signals to them.

A number comes from a guest, or from the kernel about one, so nothing here trusts it. A signal to 0,
-1 or a group that is ours would hit the owner: every signal by number is sent from this file, which
refuses such numbers. And what a guest can name itself by is bytes: nothing here takes it for text.
"""

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress

__all__ = [
    "FIRST_GUEST",
    "children",
    "continue_trees",
    "descendants",
    "end_in_words",
    "end_process",
    "end_trees",
    "halt_trees",
    "living_thread",
    "read_field",
    "signal_group",
    "signal_name",
    "signal_process",
    "states_of",
    "status_fields",
    "threads",
    "trees",
]

FIRST_GUEST = 2
"""The lowest number that a guest's process can have: 0 and -1 are groups, 1 is the machine's."""
_STOP_ROUNDS = 20
_STILL = {b"T", b"Z", b"X"}
"""The states of a thread that is stopped, that has ended, and that is gone."""


def signal_process(pid: int, number: int) -> bool:
    """Send a signal to one process, never to ourselves or a group; whether it was sent."""
    if pid < FIRST_GUEST or pid == os.getpid():
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        return True
    return False


def signal_group(leader: int, number: int) -> bool:
    """Send a signal to the group that the process `leader` leads, never to ours; whether it was
    sent. The caller knows that the number is still that process's.
    """
    if leader < FIRST_GUEST or leader == os.getpgrp():
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
        return True
    return False


def signal_name(number: int) -> str:
    """A signal's name, also of those between SIGRTMIN and SIGRTMAX, most of which have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_in_words(status: int) -> str:
    """How a process ended, from what waiting for it gave."""
    if os.WIFSIGNALED(status):
        return f"was ended by {signal_name(os.WTERMSIG(status))}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"


def end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a kernel's process with all that it started, and reap it.

    Of a kernel that ended by itself, a program that left the kernel's process group lives on.
    """
    if process.returncode is not None or os.getpid() != owner:
        return
    stopped = stop_trees([process.pid])
    signal_group(process.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
    for pid in stopped:
        signal_process(pid, signal.SIGKILL)
    process.wait()


def end_trees(roots: Iterable[int]) -> set[int]:
    """Kill these processes with all that they started; their numbers."""
    stopped = stop_trees(roots)
    for pid in stopped:
        signal_process(pid, signal.SIGKILL)
    return stopped


def stop_trees(roots: Iterable[int]) -> set[int]:
    """Stop these processes with all that they started, before any of them can start another."""
    roots = {pid for pid in roots if pid >= FIRST_GUEST}
    stopped = set[int]()
    for _ in range(_STOP_ROUNDS):
        running = set(trees(roots)) - stopped
        for pid in running:
            signal_process(pid, signal.SIGSTOP)
        if not running:
            break
        stopped |= running
    return stopped


def halt_trees(roots: Sequence[int], halted: set[int]) -> bool:
    """Stop these processes with all that they started until `continue_trees`; True once none runs.

    Those that are stopped here are added to `halted`; those that code stopped itself are not.
    """
    states = {pid: states_of(pid) for pid in trees(roots)}
    if all(each <= _STILL for each in states.values()):
        return True
    stopped_by_code = {pid for pid, each in states.items() if each == {b"T"}} - halted
    halted |= stop_trees(roots) - stopped_by_code
    return False


def continue_trees(roots: Iterable[int], halted: set[int]) -> None:
    """Let those of `halted` run again that are still below `roots`, and empty it."""
    for pid in trees(roots):
        if pid in halted:
            signal_process(pid, signal.SIGCONT)
    halted.clear()


def states_of(pid: int) -> set[bytes]:
    """The kernel's letters for what the threads of a process do, such as b"R" for running."""
    states = set()
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError, IndexError):
                stat = _read(f"/proc/{pid}/task/{thread}/stat")
                states.add(stat.rpartition(b")")[2].split()[0])
    return states


def living_thread(pid: int) -> int:
    """The number under which /proc shows the memory and the files of a process.

    It is the process's own, unless its first thread has ended: /proc then shows nothing there, and
    the number is one of a thread that still lives.
    """
    with suppress(OSError):
        if not read_field(pid, "statm", 0):
            for thread in map(int, os.listdir(f"/proc/{pid}/task")):
                if read_field(thread, "statm", 0):
                    return thread
    return pid


def trees(roots: Iterable[int]) -> list[int]:
    """These processes, each followed by all that it started."""
    return [pid for root in roots for pid in (root, *descendants(root))]


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
    if pid < 1:
        return found
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError, ValueError):
                found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def threads(pids: Iterable[int]) -> int:
    """How many threads the processes have, all together."""
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/task"))
    return count


def status_fields(pid: int) -> dict[bytes, bytes]:
    """The fields of /proc/<pid>/status. Raises `OSError`.

    The name, which comes first, is the process's own choice, and any bytes: the kernel writes its
    newlines as escapes, and what follows it overrides whatever it looks like.
    """
    lines = _read(f"/proc/{pid}/status").split(b"\n")
    return {name: value for name, colon, value in (line.partition(b":") for line in lines) if colon}


def read_field(pid: int, file: str, field: int) -> int:
    """A number in a file of /proc/<pid> that is one line of numbers. Raises `OSError`."""
    try:
        return int(_read(f"/proc/{pid}/{file}").split()[field])
    except (ValueError, IndexError) as error:
        raise OSError(f"/proc/{pid}/{file} holds no such number") from error


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()

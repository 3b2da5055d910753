"""Limits that the kernel does not hold for a whole session: memory, and where need be the rest."""

import asyncio
import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ..background import in_thread
from ..base import ErrorKind
from .files import HeldFolder, empty_tree, open_folder_inside
from .interpreter import Monitored
from .processes import living_thread, read_field, threads, trees
from .walls.seccomp import numbers
from .walls.walls import SHARED, Walls

__all__ = ["make_room", "resource_monitor"]

POLL_SECONDS = 0.05
REST_SECONDS = 5.0
DISK_POLL_SECONDS = 0.5
_COUNT = -1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SOCKET_BYTES = 250_000
"""What a socket can hold of messages nobody has read: its buffers can't be widened (seccomp.py)."""
_KCMP_VM = 1
_libc = ctypes.CDLL(None, use_errno=True)


async def resource_monitor(interpreters: Callable[[], Iterable[Monitored]], memory: int) -> None:
    """End every interpreter that passes a limit, with all that it started, until cancelled.

    `memory` is in bytes, of the process and all that it started together. Memory that processes
    share is counted once. One that runs a cell is looked at 20 times a second. One that runs none
    is stopped until its next call: the load of what its code left there (programs, threads, timers)
    would otherwise decide whether the cells of others end in time. One that can't be looked at is
    ended: the others' watch does not depend on it.
    """
    next_disk = 0.0
    due: dict[tuple[int, int], float] = {}
    while True:
        now = time.monotonic()
        disk_too = now >= next_disk
        due = {which: at for which, at in due.items() if at > now}
        for one in list(interpreters()):
            if not one.alive or not one.pid or (one.pid, one.requests) in due:
                continue
            try:
                if (one.pid, _COUNT) not in due:
                    await _look(one, memory, due)
                if disk_too and one.session_dir is not None and one.alive:
                    await _check_disk(one, one.session_dir, interpreters)
            except Exception:  # boundary: all that is read here is the guest's doing
                one.end("was ended since what it uses can't be counted")
        if disk_too:
            next_disk = time.monotonic() + DISK_POLL_SECONDS
        await asyncio.sleep(POLL_SECONDS)


async def _look(one: Monitored, memory: int, due: dict[tuple[int, int], float]) -> None:
    """End the interpreter if it passes a limit; else put down in `due` when to look again.

    That is under the process's number and that of its last request for one that is at rest; and
    under `_COUNT` for one whose exact count takes so long that it can't be made each time.
    """
    start = time.monotonic()
    pids = _processes(one.roots)
    # Where the kernel counts processes it counts threads as well, and stops at the limit.
    if not one.walls.counts_processes and threads(pids) > one.walls.processes:
        one.end(f"was ended for running more than {one.walls.processes} processes and threads")
    elif sum(_resident(pid) for pid in pids) + _most_buffered(pids) > memory:
        # Shared memory is counted in each process there, and each descriptor taken for a socket.
        # The exact count takes as long as there are pages, and waits for whoever maps some.
        if await in_thread(_exact, pids) > memory:
            how = f"was ended for using more than {memory // 1_000_000:,} MB of memory"
            one.end(how, ErrorKind.MEMORY)
        now = time.monotonic()
        due[one.pid, _COUNT] = now + 5 * (now - start)
    if one.alive and not one.busy and one.halt():
        due[one.pid, one.requests] = start + REST_SECONDS


def _processes(roots: Iterable[int]) -> list[int]:
    """These processes and all that they started, each by a number under which /proc shows it."""
    return [living_thread(pid) for pid in trees(roots)]


def _exact(pids: Sequence[int]) -> int:
    spaces = [pid for pid in pids if not _lives_in_its_parent(pid)]
    return sum(map(_proportional, spaces)) + _buffered(pids)


def _resident(pid: int) -> int:
    with suppress(OSError):
        return read_field(pid, "statm", 1) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return _resident(pid)


def _lives_in_its_parent(pid: int) -> bool:
    """True for a process in its parent's memory, as a program is while it is being started.

    Where the kernel does not tell (kcmp(2) may be refused), that memory is counted twice.
    """
    with suppress(OSError, ValueError, IndexError):
        # Bytes: a process gives itself any name.
        parent = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        return int(_libc.syscall(numbers()["kcmp"], pid, parent, _KCMP_VM, 0, 0)) == 0
    return False


def _most_buffered(pids: Sequence[int]) -> int:
    """Bytes that the kernel holds for the processes at most, were every descriptor a socket."""
    count = 0
    for pid in pids:
        with suppress(OSError):
            count += os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))
    return max(count, _sockets_in_namespace(pids)) * _SOCKET_BYTES


def _sockets_in_namespace(pids: Iterable[int]) -> int:
    """The sockets of a session that has its own network, also those without a descriptor:
    what waits to be accepted, or to be received in a message, holds memory as well.
    """
    with suppress(OSError, ValueError, IndexError):
        ours = os.readlink("/proc/self/ns/net")
        for pid in pids:  # a kernel's launcher, which is its first, has our network
            if os.readlink(f"/proc/{pid}/ns/net") != ours:
                with open(f"/proc/{pid}/net/sockstat", "rb") as file:
                    return int(file.readline().split()[2])  # "sockets: used 7"
    return 0


def _buffered(pids: Sequence[int]) -> int:
    """The same of the sockets that there are, each counted once."""
    sockets = set()
    for pid in pids:
        try:
            for fd in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    sockets.add(os.readlink(fd.path))
        except FileNotFoundError:
            continue
        except OSError:  # it does not let us look: all that it has is taken for sockets
            count = _most_buffered([pid]) // _SOCKET_BYTES
            sockets |= {f"socket:{pid}/{n}" for n in range(count)}
    count = sum(name.startswith("socket:") for name in sockets)
    return max(count, _sockets_in_namespace(pids)) * _SOCKET_BYTES


async def _check_disk(
    one: Monitored, session_dir: Path, interpreters: Callable[[], Iterable[Monitored]]
) -> None:
    """End a session that has written too much, its copies too, and remove all that it wrote."""
    walls = one.walls
    # One that is started during the count begins with the room that it then has.
    sharing = [other for other in interpreters() if other.session_dir == session_dir]
    roots = {root for other in sharing if other.alive and other.pid for root in other.roots}
    if await in_thread(_too_much, session_dir, walls.disk, walls.files, roots):
        how = (
            f"was ended for writing more than {walls.disk // 1_000_000:,} MB "
            f"or {walls.files:,} files, which are removed now,"
        )
        for other in sharing:
            other.end(how)
        await in_thread(_empty, session_dir)


async def make_room(session_dir: Path, walls: Walls) -> None:
    """Remove all that was written in a session if it is too much, before an interpreter starts
    there. What the one before left in its last moments would end this one, which did not write it.
    """
    if await in_thread(_too_much, session_dir, walls.disk, walls.files, ()):
        await in_thread(_empty, session_dir)


def _empty(session_dir: Path) -> None:
    for name in ("work", "forks", *SHARED):
        empty_tree(session_dir / name)


def _too_much(session_dir: Path, most_bytes: int, most_files: int, roots: Iterable[int]) -> bool:
    """True if the folder exceeds the limits, or is nested too deep to be searched.

    Files without a name count as long as a process below `roots` has them open or mapped.
    `session_dir` is in a folder of ours. Anything below it may be replaced by links at any time.
    """
    try:
        folder = HeldFolder(session_dir)
    except OSError:
        return False
    pids = _processes(roots)
    # On the same disk only: shared memory has no name either, and is counted as memory.
    device = os.fstat(folder.fd).st_dev
    size = sum(size for file, size in _unlinked(pids).items() if file[0] == device)
    files = 0
    waiting = ["."]
    try:
        while waiting:
            path = waiting.pop()
            for entry in _entries(folder, path):
                files += 1
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
                    elif entry.is_file(follow_symlinks=False):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
                if size > most_bytes or files > most_files:
                    return True
    except OSError:
        return True
    return False


def _unlinked(pids: Iterable[int]) -> dict[tuple[int, int], int]:
    """The bytes on the disk of each file that has lost its name and lives on in a process.

    Where the kernel does not let us look at what a process has mapped, the mapped part is counted.
    """
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError):
            for fd in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    _add_unlinked(sizes, os.stat(fd.path))
        with suppress(OSError), open(f"/proc/{pid}/maps", "rb") as maps:
            # Bytes: a process gives its files any name.
            for line in maps:
                if not line.rstrip().endswith(b" (deleted)"):
                    continue
                with suppress(ValueError, IndexError):
                    area, _, _, device, inode = line.split()[:5]
                    try:
                        _add_unlinked(sizes, os.stat(f"/proc/{pid}/map_files/{area.decode()}"))
                    except OSError:
                        start, end = (int(part, 16) for part in area.split(b"-"))
                        major, minor = (int(part, 16) for part in device.split(b":"))
                        file = os.makedev(major, minor), int(inode)
                        sizes[file] = max(sizes.get(file, 0), end - start)
    return sizes


def _add_unlinked(sizes: dict[tuple[int, int], int], file: os.stat_result) -> None:
    if stat.S_ISREG(file.st_mode) and not file.st_nlink:
        sizes[file.st_dev, file.st_ino] = file.st_blocks * 512


def _entries(root: HeldFolder, path: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder below `root`; none if it is gone. Raises `OSError` for a path that is
    too long to be opened.
    """
    try:
        folder = open_folder_inside(root, path)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        return
    try:
        with os.scandir(folder) as entries:
            yield from entries
    finally:
        os.close(folder)

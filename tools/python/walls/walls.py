"""The walls around a session; self_test.py checks that they hold.

A tier says which walls there are. `full`: namespaces, Landlock, a system-call filter, resource
limits, no privilege. `confined`: the same without namespaces, for places that refuse them.
`none`: resource limits only. Raising a wall either works or raises `OSError`; there is no
weaker second try.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from . import landlock, seccomp
from .namespaces import new_user_namespace, write_file

__all__ = [
    "SHARED",
    "Walls",
    "confine",
    "confine_branch",
    "die_with",
    "drop_privileges",
    "lower_limit",
    "prepare",
    "readable_paths",
    "set_dumpable",
]

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT = 24, 36, 47
CAPABILITY_VERSION_3 = 0x20080522
INSIDE = 1000
"""The user that code is inside a user namespace."""
SHARED = ("home", "tmp", "shm")
"""Folders of a session, beside its working directory, that all its branches share."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Walls:
    """The walls around the sessions of one zygote; sent to it as JSON."""

    tier: str
    readable: tuple[str, ...]
    """Folders and files that code may read and run programs from."""
    fonts: str
    """A folder with matplotlib's lists of fonts."""
    memory: int
    """Bytes that a process may ask for."""
    processes: int
    disk: int
    files: int
    open_files: int
    characters: int
    """Of a cell's output; more than that is cut."""
    own_user: bool
    """Whether each session has a user id of its own (ours is root's, and gives it one)."""

    @property
    def counts_processes(self) -> bool:
        """True if the kernel enforces the process limit: it counts per user and namespace."""
        return self.tier == "full" or self.own_user


def drop_privileges(walls: Walls, user: int) -> None:
    """Give up all privilege for good, as user `user` where sessions have one of their own.

    Raises `OSError`.
    """
    if walls.tier != "none":
        _empty_bounding_set()
    if walls.own_user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        _prctl(PR_SET_DUMPABLE, 1)  # or /proc/self stays root's
    if walls.tier == "full":
        with suppress(OSError):
            new_user_namespace(INSIDE)
            user = INSIDE
        if not walls.own_user and os.geteuid() != INSIDE:
            raise OSError("a session can't have a user namespace of its own")
    if walls.tier != "none":
        _empty_bounding_set()
        _libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
        header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        if _libc.capset(header, struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)):
            raise OSError(ctypes.get_errno(), "capabilities can't be dropped")
        _prctl(PR_SET_NO_NEW_PRIVS, 1)


def confine(walls: Walls, folder: str) -> None:
    """Close the walls around this process, whose session's files are in `folder`.

    Raises `OSError`.
    """
    with suppress(OSError):  # if the machine runs out of memory, this is the process to end
        write_file("/proc/self/oom_score_adj", "1000")
    if walls.tier == "full":
        rules = [("/", landlock.READ), ("/dev", landlock.WRITE), (folder, landlock.WRITE)]
        # Also where they are mounted elsewhere (show_temporary): that is not below `folder`.
        rules += [(f"{folder}/{name}", landlock.WRITE) for name in SHARED]
        landlock.restrict(rules)
    elif walls.tier == "confined":
        rules = [(path, landlock.READ) for path in (*walls.readable, walls.fonts)]
        rules += [(f"/dev/{name}", landlock.WRITE) for name in ("null", "zero", "full")]
        rules += [(f"/dev/{name}", landlock.READ) for name in ("random", "urandom")]
        landlock.restrict([*rules, (folder, landlock.WRITE)], tcp=True)
    for name, limit in (
        ("RLIMIT_AS", walls.memory),
        ("RLIMIT_NPROC", walls.processes),
        ("RLIMIT_FSIZE", walls.disk),
        ("RLIMIT_NOFILE", walls.open_files),
        ("RLIMIT_CORE", 1),  # with 0 a crash still starts the machine's handler of dumps, if any
        ("RLIMIT_MEMLOCK", 65_536),
        ("RLIMIT_MSGQUEUE", 0),
    ):
        if name == "RLIMIT_NPROC" and not walls.counts_processes:
            continue  # it would count all that the user does elsewhere
        lower_limit(getattr(resource, name), limit)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # "file too large" is an error, not the end
    if walls.tier != "none":
        seccomp.install(*_filter(walls))


def prepare(walls: Walls) -> None:
    """Make what `confine` needs, for all forks of this process. Raises `OSError`."""
    if walls.tier != "none":
        seccomp.loaded(*_filter(walls))


def _filter(walls: Walls) -> tuple[tuple[int, ...], bool]:
    """The families of sockets that sessions may have, and if another user's files are near."""
    if walls.tier == "full":
        network = (seccomp.AF_UNIX, seccomp.AF_INET, seccomp.AF_INET6, seccomp.AF_NETLINK)
        return network, False
    return (), not walls.own_user


def lower_limit(kind: int, limit: int) -> None:
    """Set a limit of this process, or leave the lower one that the machine has set already."""
    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def confine_branch(walls: Walls, session: str, folder: str) -> None:
    """Let this process, a copy of another, change files of `session` only in `folder`.

    It can then no longer reach the files of the process that it is a copy of, nor signal it or its
    other copies, where the kernel knows how (Landlock 6); 16 such copies of copies are the most
    that the kernel allows. Raises `OSError`.
    """
    if walls.tier == "none":
        return
    rules = [("/", landlock.READ), ("/dev", landlock.WRITE), (folder, landlock.WRITE)]
    rules += [(f"{session}/{name}", landlock.WRITE) for name in SHARED]
    landlock.restrict(rules)


def die_with(parent: int, death_signal: int = signal.SIGKILL) -> None:
    """Have this process signalled when its parent dies, and keep orphaned children as its own."""
    _prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os._exit(1)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_dumpable(dumpable: bool) -> None:
    """Set whether other processes of the same user may look into this one."""
    _prctl(PR_SET_DUMPABLE, int(dumpable))


def _empty_bounding_set() -> None:
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            break  # the kernel knows no more of them, or we may not


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def readable_paths(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Paths that an interpreter and its programs need to read, in the order to show them."""
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"]
    system += [
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/fonts",
    ]
    found = []
    for path in (*system, *prefixes):
        for each in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
            if os.path.lexists(each) and each != "/":
                found.append(each)
    return tuple(dict.fromkeys(found))

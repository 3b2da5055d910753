"""A system-call filter, assembled here: what no cell has use for is refused by the kernel.

Everything is allowed that is not named below: the walls that hold files, processes and the network
are others; this one takes away the calls by which such walls are climbed, the kernel's less tried
corners, and memory that no limit counts. A filter can't be taken off again and is inherited.
"""

import ctypes
import errno
import functools
import platform
import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["install", "loaded", "numbers", "program"]

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_SEQPACKET, SOCK_FLAGS = 1, 5, 0o2004000
"""Types of sockets; SOCK_NONBLOCK and SOCK_CLOEXEC, which may be added to one."""
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_LINGER = 1, 7, 8, 13
SIOC_FIRST, SIOC_LAST = 0x8900, 0x89FF
"""What is asked of a socket about the machine's network, whatever kind of socket it is."""
F_SETLEASE, F_NOTIFY = 1024, 1026
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
"""They type into a terminal."""
CLONE_NEW = 0x7E020080
"""All flags of clone() that ask for a new namespace."""
RLIMIT_CORE = 4
CLONE_FILES, CLONE_THREAD, CLOSE_RANGE_UNSHARE = 0x400, 0x10000, 2

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, MASK, EQUAL, ABOVE, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
"""BPF: load a word; take some of its bits; jump if equal, if greater, if any bit is set; return."""
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
LAST_KNOWN = 466
"""Calls with higher numbers are newer than this list: they are answered as by an older kernel."""
FOREIGN_ABI = 0x40000000
"""x86_64 only: the same calls once more, with 32-bit pointers."""
_libc = ctypes.CDLL(None, use_errno=True)


class Machine(NamedTuple):
    """One processor's name for itself and its numbers of the calls below."""

    audit: int
    numbers: dict[str, int]


# Numbers from 424 on are the same everywhere.
_COMMON = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435,
    "close_range": 436, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "memfd_secret": 447, "process_mrelease": 448,
    "set_mempolicy_home_node": 450, "fchmodat2": 452, "statmount": 457, "listmount": 458,
    "setxattrat": 463, "removexattrat": 466,
}  # fmt: skip
_X86_64 = {
    "ioctl": 16, "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "connect": 42,
    "accept": 43, "sendto": 44, "bind": 49, "listen": 50, "socketpair": 53,
    "setsockopt": 54, "clone": 56, "semget": 64, "semop": 65, "semctl": 66, "shmdt": 67,
    "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "fcntl": 72, "chmod": 90, "fchmod": 91,
    "chown": 92, "fchown": 93, "lchown": 94,
    "ptrace": 101, "syslog": 103, "utime": 132, "uselib": 134, "personality": 135, "ustat": 136,
    "sysfs": 139, "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144,
    "vhangup": 153, "modify_ldt": 154, "pivot_root": 155, "_sysctl": 156, "adjtimex": 159,
    "setrlimit": 160,
    "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167,
    "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172,
    "ioperm": 173, "create_module": 174, "init_module": 175, "delete_module": 176,
    "query_module": 178, "quotactl": 179, "nfsservctl": 180, "setxattr": 188, "lsetxattr": 189,
    "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "sched_setaffinity": 203, "lookup_dcookie": 212, "semtimedop": 220, "clock_settime": 227,
    "utimes": 235, "mbind": 237, "set_mempolicy": 238, "mq_open": 240, "mq_unlink": 241,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "ioprio_set": 251,
    "inotify_add_watch": 254, "migrate_pages": 256, "fchownat": 260, "futimesat": 261,
    "fchmodat": 268, "unshare": 272, "move_pages": 279, "utimensat": 280, "accept4": 288,
    "perf_event_open": 298,
    "fanotify_init": 300, "fanotify_mark": 301, "prlimit64": 302, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310,
    "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "sched_setattr": 314,
    "seccomp": 317, "memfd_create": 319, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    "fallocate": 285,
}  # fmt: skip
_AARCH64 = {
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15,
    "fremovexattr": 16, "lookup_dcookie": 18, "fcntl": 25, "inotify_add_watch": 27, "ioctl": 29,
    "ioprio_set": 30, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51,
    "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "vhangup": 58, "quotactl": 60,
    "fallocate": 47, "utimensat": 88, "acct": 89, "personality": 92, "unshare": 97,
    "kexec_load": 104,
    "init_module": 105, "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117,
    "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "setpriority": 140,
    "reboot": 142, "sethostname": 161, "setdomainname": 162, "setrlimit": 164,
    "settimeofday": 170, "adjtimex": 171,
    "mq_open": 180, "mq_unlink": 181, "msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189,
    "semget": 190, "semctl": 191, "semtimedop": 192, "semop": 193, "shmget": 194, "shmctl": 195,
    "shmat": 196, "shmdt": 197, "socket": 198, "socketpair": 199, "bind": 200, "listen": 201,
    "accept": 202, "connect": 203, "sendto": 206, "setsockopt": 208, "add_key": 217,
    "request_key": 218, "keyctl": 219, "clone": 220, "swapon": 224, "swapoff": 225, "mbind": 235,
    "set_mempolicy": 237, "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241,
    "accept4": 242,
    "prlimit64": 261, "fanotify_init": 262, "fanotify_mark": 263, "name_to_handle_at": 264,
    "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268, "process_vm_readv": 270,
    "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "sched_setattr": 274,
    "seccomp": 277, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
MACHINES = {
    "x86_64": Machine(0xC000003E, _X86_64 | _COMMON),
    "aarch64": Machine(0xC00000B7, _AARCH64 | _COMMON),
}

# Calls with rules of their own; every other call in the tables is refused outright.
_BY_ARGUMENT = {
    "socket", "socketpair", "setsockopt", "clone", "clone3", "ioctl", "fcntl", "prlimit64",
    "setrlimit", "close_range",
}  # fmt: skip
_WITH_NETWORK = {"connect", "accept", "accept4", "bind", "listen", "sendto"}
"""What a pair of sockets has no use for: its names would be the machine's. Of `sendto` only with
the address of a receiver."""
_OTHERS_PRIORITY = {"sched_setparam", "sched_setscheduler", "sched_setaffinity", "sched_setattr"}
_FILE_ATTRIBUTES = {
    "chmod", "fchmod", "chown", "fchown", "lchown", "utime", "utimes", "futimesat", "utimensat",
    "fchownat", "fchmodat", "fchmodat2",
}  # fmt: skip
_WITH_SAME_USER = {
    "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
    "setxattrat", "removexattrat", "setpriority", "ioprio_set",
}  # fmt: skip


def numbers() -> dict[str, int]:
    """The numbers on this machine of the calls that the filter knows. Raises `OSError`."""
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(f"no system-call filter for processors of type {platform.machine()}")
    return machine.numbers


def program(machine: str, families: Iterable[int], same_user: bool) -> bytes:
    """The filter as an array of struct sock_filter.

    `families`: address families that sockets may have. `same_user`: the code runs as a user who
    owns things outside: what other walls leave open then (modes and times of files, priorities of
    processes) is closed here. Changes of modes, owners and times are answered with success and not
    done, since copying a file ends with one.
    """
    audit, table = MACHINES[machine]
    code = [_step(LOAD, ARCHITECTURE), _step(EQUAL, audit, 1, 0), _step(RETURN, KILL)]
    code.append(_step(LOAD, NUMBER))
    if machine == "x86_64":
        code += [_step(ABOVE, FOREIGN_ABI - 1, 0, 1), _step(RETURN, ERRNO | errno.ENOSYS)]
    code += [_step(ABOVE, LAST_KNOWN, 0, 1), _step(RETURN, ERRNO | errno.ENOSYS)]
    families = list(families)
    code += _only(table["socket"], families, errno.EAFNOSUPPORT)
    if families:
        code += _only(table["socketpair"], [AF_UNIX], errno.EAFNOSUPPORT)
    else:
        code += _pairs_that_reach_nobody_else(table["socketpair"])
        code += _no_receiver(table["sendto"])
    code += _clone(table["clone"])
    code += _without_bits(table["close_range"], 2, CLOSE_RANGE_UNSHARE)
    code += _as_they_are(table["setsockopt"], (SO_SNDBUF, SO_RCVBUF, SO_LINGER))
    code += _limits(table["setrlimit"], table["prlimit64"])
    code += [_step(EQUAL, table["clone3"], 0, 1), _step(RETURN, ERRNO | errno.ENOSYS)]
    code += _ioctl(table["ioctl"], network=bool(families))
    code += _not(table["fcntl"], 1, [F_SETLEASE, F_NOTIFY])
    allowed = set() if same_user else _FILE_ATTRIBUTES | _WITH_SAME_USER | _OTHERS_PRIORITY
    allowed |= _WITH_NETWORK if families else {"sendto"}
    for name, number in table.items():
        if name in _BY_ARGUMENT or name in allowed:
            continue
        if name in _OTHERS_PRIORITY:
            code += _only(number, [0], errno.EPERM)
            continue
        failure = 0 if name in _FILE_ATTRIBUTES else errno.EPERM
        if name == "fallocate":  # it fills a disk faster than any watch looks; libraries write then
            failure = errno.EOPNOTSUPP
        code += [_step(EQUAL, number, 0, 1), _step(RETURN, ERRNO | failure)]
    code.append(_step(RETURN, ALLOW))
    return b"".join(code)


@functools.cache
def loaded(families: tuple[int, ...], same_user: bool) -> tuple[bytes, object]:
    """The filter as struct sock_fprog, and the memory that this points to. Made once: it takes a
    millisecond, and forks of a process that has made it inherit it. Raises `OSError`.
    """
    numbers()
    code = program(platform.machine(), families, same_user)
    memory = ctypes.create_string_buffer(code, len(code))
    return struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(memory)), memory


def install(families: Iterable[int], same_user: bool) -> None:
    """Put the filter on this thread and all it starts. Raises `OSError`."""
    header, _ = loaded(tuple(families), same_user)
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {errno.errorcode.get(number, number)}")


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _only(number: int, values: Iterable[int], failure: int) -> list[bytes]:
    """Allow a call only with one of `values` as its first argument."""
    code = [_step(LOAD, ARGUMENTS)]
    for value in values:
        if value == AF_NETLINK:  # routes only: what `if_nameindex` and resolvers ask
            code += [_step(EQUAL, value, 0, 4), _step(LOAD, ARGUMENTS + 16)]
            code += [_step(EQUAL, 0, 0, 1), _step(RETURN, ALLOW), _step(RETURN, ERRNO | failure)]
        else:
            code += [_step(EQUAL, value, 0, 1), _step(RETURN, ALLOW)]
    code.append(_step(RETURN, ERRNO | failure))
    return [_step(EQUAL, number, 0, len(code)), *code]


def _not(number: int, argument: int, values: Iterable[int]) -> list[bytes]:
    """Refuse a call with one of `values` as that argument."""
    code = [_step(LOAD, ARGUMENTS + 8 * argument)]
    for value in values:
        code += [_step(EQUAL, value, 0, 1), _step(RETURN, ERRNO | errno.EPERM)]
    code.append(_step(RETURN, ALLOW))
    return [_step(EQUAL, number, 0, len(code)), *code]


def _as_they_are(number: int, options: Iterable[int]) -> list[bytes]:
    """Answer a wish to change a socket's options with success, and do nothing.

    Larger buffers are memory of the kernel that no limit counts. A socket that lingers makes
    whoever closes it last wait: its owner, where it was sent there.
    """
    code = [_step(LOAD, ARGUMENTS + 8), _step(EQUAL, SOL_SOCKET, 1, 0), _step(RETURN, ALLOW)]
    code.append(_step(LOAD, ARGUMENTS + 16))
    for option in options:
        code += [_step(EQUAL, option, 0, 1), _step(RETURN, ERRNO)]
    code.append(_step(RETURN, ALLOW))
    return [_step(EQUAL, number, 0, len(code)), *code]


def _pairs_that_reach_nobody_else(number: int) -> list[bytes]:
    """Allow pairs of connected UNIX sockets. One for datagrams could send to any name it likes, and
    one of type SOCK_RAW is one for datagrams.
    """
    code = [_step(LOAD, ARGUMENTS), _step(EQUAL, AF_UNIX, 1, 0)]
    code += [_step(RETURN, ERRNO | errno.EAFNOSUPPORT), _step(LOAD, ARGUMENTS + 8)]
    code.append(_step(MASK, ~SOCK_FLAGS & 0xFFFFFFFF))
    for kind in (SOCK_STREAM, SOCK_SEQPACKET):
        code += [_step(EQUAL, kind, 0, 1), _step(RETURN, ALLOW)]
    code.append(_step(RETURN, ERRNO | errno.EPROTONOSUPPORT))
    return [_step(EQUAL, number, 0, len(code)), *code]


def _no_receiver(number: int) -> list[bytes]:
    """Refuse sendto() with an address, whose pointer is its fifth argument."""
    code = []
    for half in (0, 4):
        code += [_step(LOAD, ARGUMENTS + 8 * 4 + half), _step(EQUAL, 0, 1, 0)]
        code.append(_step(RETURN, ERRNO | errno.EPERM))
    code.append(_step(RETURN, ALLOW))
    return [_step(EQUAL, number, 0, len(code)), *code]


def _ioctl(number: int, network: bool) -> list[bytes]:
    """Refuse to type into a terminal and, without a network, to ask about the machine's."""
    code = [_step(LOAD, ARGUMENTS + 8)]
    for request in (TIOCSTI, TIOCLINUX):
        code += [_step(EQUAL, request, 0, 1), _step(RETURN, ERRNO | errno.EPERM)]
    if not network:
        code += [_step(ABOVE, SIOC_LAST, 2, 0), _step(ABOVE, SIOC_FIRST - 1, 0, 1)]
        code.append(_step(RETURN, ERRNO | errno.EPERM))
    code.append(_step(RETURN, ALLOW))
    return [_step(EQUAL, number, 0, len(code)), *code]


def _limits(setrlimit: int, prlimit64: int) -> list[bytes]:
    """Refuse to set another process's limits, and keep the limit of core dumps as it is (walls.py):
    code that sets it is told that this succeeded.
    """
    set_core = [_step(LOAD, ARGUMENTS), _step(EQUAL, RLIMIT_CORE, 0, 1), _step(RETURN, ERRNO)]
    set_core.append(_step(RETURN, ALLOW))
    change = [_step(LOAD, ARGUMENTS), _step(EQUAL, 0, 1, 0), _step(RETURN, ERRNO | errno.EPERM)]
    change += [_step(LOAD, ARGUMENTS + 8), _step(EQUAL, RLIMIT_CORE, 1, 0), _step(RETURN, ALLOW)]
    for half in (0, 4):  # of the pointer to the new limit; without one it is asked for
        change += [_step(LOAD, ARGUMENTS + 16 + half), _step(EQUAL, 0, 1, 0), _step(RETURN, ERRNO)]
    change.append(_step(RETURN, ALLOW))
    return [
        *(_step(EQUAL, setrlimit, 0, len(set_core)), *set_core),
        *(_step(EQUAL, prlimit64, 0, len(change)), *change),
    ]


def _clone(number: int) -> list[bytes]:
    """Refuse new namespaces, and threads with descriptors of their own, which the watch would not
    see.
    """
    code = [_step(LOAD, ARGUMENTS), _step(ANY_BIT, CLONE_NEW, 3, 0)]
    code += [_step(ANY_BIT, CLONE_THREAD, 0, 1), _step(ANY_BIT, CLONE_FILES, 0, 1)]
    code += [_step(RETURN, ALLOW), _step(RETURN, ERRNO | errno.EPERM)]
    return [_step(EQUAL, number, 0, len(code)), *code]


def _without_bits(number: int, argument: int, bits: int) -> list[bytes]:
    """Refuse a call in which that argument has one of `bits`."""
    code = [_step(LOAD, ARGUMENTS + 8 * argument), _step(ANY_BIT, bits, 0, 1)]
    code += [_step(RETURN, ERRNO | errno.EPERM), _step(RETURN, ALLOW)]
    return [_step(EQUAL, number, 0, len(code)), *code]

"""Namespaces: a view of the machine in which nothing is but the interpreter and one session.

The zygote calls `build_root` once: from then on it lives in a file system of its own, in memory
and read-only, that shows the interpreter's folders and nothing else. For each session it forks a
process into a new process namespace, and that process calls `enter`: mounts, network, IPC and host
name of its own; `mount_session` adds one bounded tmpfs for all that it can write.

All of it needs CAP_SYS_ADMIN: real root has it, everybody else gets it over a user namespace.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress

__all__ = [
    "FONTS",
    "SESSION",
    "build_root",
    "enter",
    "mount_session",
    "new_user_namespace",
    "show_temporary",
    "write_file",
]

SESSION = "/session"
"""Where a session's own files are, inside its view."""
FONTS = "/.fonts"
"""Where matplotlib's lists of fonts are, inside."""

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442
AT_RECURSIVE, AT_FDCWD = 0x8000, -100
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

TEMPORARY = ("/dev/shm", "/tmp")
"""Folders of the machine in whose place a session has its own."""
DEVICES = ("null", "zero", "full", "random", "urandom")
_OLD = "/.old"
_libc = ctypes.CDLL(None, use_errno=True)


def new_user_namespace(inside: int) -> None:
    """Move this process into a user namespace in which it is user and group `inside`.

    Raises `OSError` where that is not allowed.
    """
    outside_user, outside_group = os.geteuid(), os.getegid()
    unshare(NEWUSER, "user namespace")
    with suppress(OSError):
        write_file("/proc/self/setgroups", "deny")
    write_file("/proc/self/uid_map", f"{inside} {outside_user} 1")
    write_file("/proc/self/gid_map", f"{inside} {outside_group} 1")


def build_root(read_only: Iterable[str], fonts: str, session: str = "") -> None:
    """Give this process its own root that shows the folders and files of `read_only`.

    The folder `fonts` is shown as `FONTS`; the folder `session`, if there is one, as `SESSION`, to
    be written to.

    Raises `OSError`.
    """
    unshare(NEWNS, "mount namespace")
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Any folder will do as the place of the new root: it is there only between these lines.
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    os.mkdir(f"/tmp{_OLD}", 0o700)
    machine = os.uname().machine
    if _libc.syscall(ctypes.c_long(PIVOT_ROOT[machine]), b"/tmp", f"/tmp{_OLD}".encode()):
        _fail("pivot_root")
    os.chdir("/")
    for path in sorted(read_only):
        _show(path)
    _bind(f"{_OLD}{fonts}", FONTS)
    os.makedirs("/dev", exist_ok=True)
    for name in DEVICES:
        _bind(f"{_OLD}/dev/{name}", f"/dev/{name}", devices=True)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")
    for name in TEMPORARY:
        if not os.path.lexists(name):  # it is there if the interpreter lives in it
            os.symlink(f"{SESSION}/{os.path.basename(name)}", name)
    os.makedirs("/etc", exist_ok=True)
    write_file("/etc/passwd", "sandbox:x:1000:1000::/session/home:/bin/sh\n", create=True)
    write_file("/etc/group", "sandbox:x:1000:\n", create=True)
    write_file("/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n", create=True)
    for folder in (SESSION, "/proc"):
        os.mkdir(folder)
    if session:
        _bind(f"{_OLD}{session}", SESSION, writable=True)
    _mount(f"{_OLD}/proc", "/proc", None, MS_BIND | MS_REC)
    if _libc.umount2(_OLD.encode(), MNT_DETACH):
        _fail("umount of the old root")
    os.rmdir(_OLD)
    _mount(None, "/", None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def enter() -> None:
    """Give this process, the first of its process namespace, the rest of a session's view.

    Raises `OSError`.
    """
    unshare(NEWNS | NEWNET | NEWIPC | NEWUTS, "mount, network, ipc and uts namespaces")
    with suppress(OSError):
        unshare(NEWCGROUP, "cgroup namespace")
    try:
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        # In a container whose own /proc is masked: better none than the container's.
        _mount("tmpfs", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=555,size=4k")
    for name in ("tcp_rmem", "tcp_wmem"):  # or buffers grow to megabytes, which no limit counts
        with suppress(OSError):
            write_file(f"/proc/sys/net/ipv4/{name}", "4096 65536 131072")
    with suppress(OSError):  # connections that nobody accepts hold memory without a descriptor
        write_file("/proc/sys/net/core/somaxconn", "128")
    socket.sethostname("sandbox")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def mount_session(owner: int, disk: int, files: int) -> None:
    """Mount what a session, in its own view, may write to: in memory, and gone with its processes.

    `disk` bytes and `files` files and folders are all that user `owner` can ever write.
    Raises `OSError`.
    """
    options = f"mode=755,size={disk},nr_inodes={files}"
    _mount("tmpfs", SESSION, "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.chown(SESSION, owner, owner)


def show_temporary() -> None:
    """Let code write to its own `TEMPORARY` folders even if the interpreter lives in one of them.

    What `build_root` shows of that one is mounted in the session's own folder, which is then
    mounted in its place. Raises `OSError`.
    """
    for folder in TEMPORARY:
        if os.path.islink(folder):
            continue
        own = f"{SESSION}/{os.path.basename(folder)}"
        for entry in os.scandir(folder):
            place = f"{own}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry), place)
            elif entry.is_dir():
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
            if not entry.is_symlink():
                _mount(entry.path, place, None, MS_BIND | MS_REC)
        _mount(own, folder, None, MS_BIND | MS_REC)


def unshare(flags: int, what: str) -> None:
    """Leave the shared namespaces of these kinds. Raises `OSError` naming `what`."""
    if _libc.unshare(flags):
        _fail(what)


def _show(path: str) -> None:
    """Bind a file or folder of the old root at the same place, read-only; links stay links."""
    if os.path.lexists(path):
        return  # below something that is shown already
    old = _OLD + path
    if os.path.islink(old):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.readlink(old), path)
    elif os.path.exists(old):
        _bind(old, path)


def _bind(old: str, new: str, *, devices: bool = False, writable: bool = False) -> None:
    if not os.path.exists(old):
        return
    if os.path.isdir(old):
        os.makedirs(new, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(new), exist_ok=True)
        os.close(os.open(new, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(old, new, None, MS_BIND | MS_REC)
    attributes = ATTR_NOSUID | (0 if devices else ATTR_NODEV)
    attributes |= 0 if devices or writable else ATTR_RDONLY
    wanted = struct.pack("QQQQ", attributes, 0, 0, 0)
    if _libc.syscall(
        ctypes.c_long(MOUNT_SETATTR),
        ctypes.c_int(AT_FDCWD),
        new.encode(),
        ctypes.c_uint(AT_RECURSIVE),
        wanted,
        ctypes.c_size_t(len(wanted)),
    ):
        _fail(f"setting what may be done in {new}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    wanted = [text.encode() if text else None for text in (source, target, kind, data)]
    if _libc.mount(wanted[0], wanted[1], wanted[2], ctypes.c_ulong(flags), wanted[3]):
        _fail(f"mounting {target}")


def write_file(path: str, text: str, create: bool = False) -> None:
    """Write a file with one call, as the kernel's own files need. Raises `OSError`."""
    fd = os.open(path, os.O_WRONLY | (os.O_CREAT if create else 0), 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _fail(what: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, f"{what}: {os.strerror(code)} ({errno.errorcode.get(code, code)})")

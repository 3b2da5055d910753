"""Files into and out of a session's working directory, and never past it; and its removal.

What is in the folder was made by hostile code, which may still be changing it, and the folder's own
name too may come to mean another. So a folder is held by a descriptor from its making on
(`HeldFolder`); no path is checked first and opened then: the kernel itself refuses to leave the
folder.
"""

import ctypes
import errno
import os
import secrets
import stat
import struct
import weakref
from contextlib import suppress

__all__ = [
    "FILE_BYTES",
    "HeldFolder",
    "empty_tree",
    "open_folder_inside",
    "read_inside",
    "remove_tree",
    "write_inside",
]

FILE_BYTES = 8_000_000
"""The largest file that goes in or out."""

OPENAT2 = 437
"""The system call's number, the same on every processor."""
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class HeldFolder:
    """A folder, held by a descriptor (`fd`) from its making on, for as long as this is referred to.

    Raises `OSError`, also where the name is a link.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.fd)

    def still(self, folder: str | os.PathLike[str]) -> bool:
        """True if a name still means this folder, and its owner may use it."""
        with suppress(OSError):
            now = os.lstat(folder)
            return os.path.samestat(now, os.fstat(self.fd)) and now.st_mode & 0o700 == 0o700
        return False


def read_inside(folder: HeldFolder, path: str) -> bytes:
    """The content of a file in a folder that is held. Raises `OSError`.

    Links that are relative are followed as long as they stay inside; only ordinary files are read.
    """
    fd = _open_beneath(folder.fd, path, os.O_RDONLY | _FLAGS)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, f"{path!r} is not a file")
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise OSError(errno.EFBIG, f"{path!r} is larger than {FILE_BYTES:,} bytes")
    return data


def write_inside(folder: HeldFolder, path: str, data: bytes, owner: int | None = None) -> None:
    """Make or replace a file in a folder that is held, with the folders it is in. Raises `OSError`.

    What is made becomes the user `owner`'s, where one is given.
    """
    if len(data) > FILE_BYTES:
        raise OSError(errno.EFBIG, f"{path!r} is larger than {FILE_BYTES:,} bytes")
    _make_parents(folder.fd, path, owner)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | _FLAGS
    with open(_open_beneath(folder.fd, path, flags, 0o600), "wb") as file:
        if owner is not None:
            os.fchown(file.fileno(), owner, owner)
        file.write(data)


def open_folder_inside(folder: HeldFolder, path: str) -> int:
    """Open a folder in one that is held, over no link at all. Raises `OSError`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return _open_beneath(folder.fd, path, flags, resolve=RESOLVE_NO_SYMLINKS)


def _make_parents(root: int, path: str, owner: int | None) -> None:
    done = ""
    for name in path.split("/")[:-1]:
        inside = _open_beneath(root, done or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with suppress(FileExistsError):
            if name not in ("", ".", ".."):
                os.mkdir(name, 0o700, dir_fd=inside)
                if owner is not None:
                    os.chown(name, owner, owner, dir_fd=inside, follow_symlinks=False)
        os.close(inside)
        done += f"{name}/"


def _open_beneath(root: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    how = struct.pack("QQQ", flags, mode, resolve | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, f"{path!r} is no file's name")
    size = ctypes.c_size_t(len(how))
    number = ctypes.c_long(OPENAT2)
    fd = int(_libc.syscall(number, ctypes.c_int(root), name, how, size))
    if fd < 0:
        code = ctypes.get_errno()
        why = "is not inside the session's folder" if code == errno.EXDEV else os.strerror(code)
        raise OSError(code, f"{path!r}: {why}")
    return fd


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove a folder whose content is hostile, as far as it can be removed. Never raises."""
    empty_tree(path)
    with suppress(OSError):
        os.rmdir(path)


def empty_tree(path: str | os.PathLike[str]) -> None:
    """Remove what is in a folder, as far as it can be removed. Never raises.

    It may be nested deeper than paths can be long and functions can call themselves, and closed to
    its own owner. What lies deep is moved up first. Links are removed, not followed.
    """
    with suppress(OSError):
        top = _open_folder(path)
        try:
            while _remove_layer(top):
                pass
        finally:
            os.close(top)


def _remove_layer(top: int) -> bool:
    """Remove what is in the folder `top`, folders' own folders moved up; whether some were."""
    moved = 0
    with os.scandir(top) as entries:
        found = list(entries)
    for entry in found:
        with suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=top)
                continue
            folder = _open_folder(entry.name, top)
            try:
                with os.scandir(folder) as entries:
                    inner = list(entries)
                for each in inner:
                    if each.is_dir(follow_symlinks=False):
                        os.close(_open_folder(each.name, folder))
                        new = secrets.token_hex(8)
                        os.rename(each.name, new, src_dir_fd=folder, dst_dir_fd=top)
                        moved += 1
                    else:
                        os.unlink(each.name, dir_fd=folder)
            finally:
                os.close(folder)
            os.rmdir(entry.name, dir_fd=top)
    return moved > 0


def _open_folder(name: str | os.PathLike[str], within: int | None = None) -> int:
    """Open a folder of ours, also one that is closed to its owner. Raises `OSError`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=within)
    except PermissionError:
        place = os.open(name, os.O_PATH | flags, dir_fd=within)
        try:
            os.chmod(f"/proc/self/fd/{place}", 0o700)  # this very folder, whatever has its name now
            fd = os.open(f"/proc/self/fd/{place}", flags & ~os.O_NOFOLLOW)
        finally:
            os.close(place)
    with suppress(PermissionError):
        os.fchmod(fd, 0o700)
    return fd

"""Files into and out of a session's working directory, and never past it."""

import errno
import os
import stat

__all__ = ["FILE_BYTES", "read_inside", "write_inside"]

FILE_BYTES = 8_000_000
"""The largest file that goes in or out."""


def read_inside(folder: str | os.PathLike[str], path: str) -> bytes:
    """The content of a file in `folder`. Raises `OSError`.

    Links are followed as long as they stay inside; only ordinary files are read.
    """
    fd = os.open(_inside(folder, path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, f"{path!r} is not a file")
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise OSError(errno.EFBIG, f"{path!r} is larger than {FILE_BYTES:,} bytes")
    return data


def write_inside(folder: str | os.PathLike[str], path: str, data: bytes) -> None:
    """Make or replace a file in `folder`, with the folders it is in. Raises `OSError`."""
    if len(data) > FILE_BYTES:
        raise OSError(errno.EFBIG, f"{path!r} is larger than {FILE_BYTES:,} bytes")
    full = _inside(folder, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(full, flags, 0o600), "wb") as file:
        file.write(data)


def _inside(folder: str | os.PathLike[str], path: str) -> str:
    root = os.path.realpath(folder)
    full = os.path.realpath(os.path.join(root, path))
    if not full.startswith(root + os.sep):
        raise PermissionError(errno.EPERM, f"{path!r} is not inside the session's folder")
    return full

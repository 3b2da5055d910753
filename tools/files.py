"""Files that appear whole or not at all, and the user's folders."""

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError

__all__ = [
    "append_whole",
    "cache_dir",
    "config_dir",
    "data_dir",
    "is_full",
    "open_ordinary",
    "read_object",
    "read_text",
    "state_dir",
    "write_beside",
    "write_error",
    "write_whole",
]

_LONGEST = 1 << 30
"""Bytes of a file that is read at once."""
_ADVICE = {
    errno.ENOSPC: "make room there, or name another place",
    errno.EDQUOT: "make room there, or name another place",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "name a place that you may write to",
    errno.EPERM: "name a place that you may write to",
    errno.EIO: "look after that disk, or name another place",
}


def open_ordinary(path: str | Path, *, or_pipe: bool = False) -> BinaryIO:
    """Open a file for reading. Raises DataError for what is missing, or no ordinary file: a pipe
    would be waited for, and a device has no end.

    `or_pipe` takes a pipe without a name too, which a shell's `<(...)` makes together with its
    writer; nothing is known of a named one's.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"can't read {path}: {reason}") from error
    mode = os.fstat(descriptor).st_mode
    if or_pipe and os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:"):
        os.set_blocking(descriptor, True)
    elif not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DataError(f"can't read {path}: it is not an ordinary file")
    return open(descriptor, "rb")


def read_text(path: str | Path, *, most: int = _LONGEST, or_pipe: bool = False) -> str:
    """The text of a UTF-8 file of at most `most` bytes. Raises DataError for any other."""
    try:
        with open_ordinary(path, or_pipe=or_pipe) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise DataError(f"can't read {path}: it has more than {most:,} bytes")
        return data.decode()
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason})") from error


def read_object(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file. Raises DataError for anything else."""
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path} is not JSON: its brackets are nested too deeply") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} does not hold a JSON object")
    return found


def write_error(path: str | Path, error: OSError) -> DataError:
    """The error that says that `path` can't be written, why, and what to do about it."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = _ADVICE.get(error.errno or 0)
    return DataError(f"can't write {path}: {reason}" + (f": {advice}" if advice else ""))


def is_full(folder: Path) -> bool:
    """True if the disk of a folder has less than 1 MB left: for libraries that only say that they
    failed.
    """
    return shutil.disk_usage(folder).free < 1 << 20


def append_whole(file: int, path: str | Path, data: bytes) -> None:
    """Write `data` at the end of a file opened with O_APPEND: all of it, or nothing if the disk is
    full. A killed process leaves at most a first part of it. Raises DataError, which names `path`.
    """
    end = os.fstat(file).st_size
    try:
        written = 0
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError as error:
        with suppress(OSError):  # a device has no length
            os.ftruncate(file, end)
        raise write_error(path, error) from error


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file, UTF-8 for text; a crash or a full disk leaves what was there before.

    Raises DataError if it can't be written, UnicodeEncodeError for text with lone surrogates.
    """
    data = content.encode() if isinstance(content, str) else content
    with write_beside(path) as partial:
        partial.write_bytes(data)


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """A new name beside `path` for the block to write; it takes the place of `path` at the end.

    If the block raises, `path` stays as it was and the partial file is removed. A link stays a
    link: the file that it leads to is replaced. A device or a pipe (`/dev/stdout`, say) can't be
    replaced, and is written itself. Raises DataError for an OSError, the block's own included.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode if path.exists() else stat.S_IFREG
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            yield path
            return
        target = Path(os.path.realpath(path))
        # Random, not the process's number: threads and containers may write the same file.
        partial = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.partial")
        try:
            yield partial
            with partial.open("rb") as file:  # a rename may reach the disk before the content does
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(path, error) from error


def cache_dir(program: str = "interlace") -> Path:
    """A program's folder for what can be made again: below `$XDG_CACHE_HOME` or `~/.cache`."""
    return _user_dir("XDG_CACHE_HOME", "~/.cache") / program


def config_dir() -> Path:
    """The folder of the user's settings: below `$XDG_CONFIG_HOME` or `~/.config`."""
    return _user_dir("XDG_CONFIG_HOME", "~/.config") / "interlace"


def data_dir() -> Path:
    """The folder of what the user keeps: below `$XDG_DATA_HOME` or `~/.local/share`."""
    return _user_dir("XDG_DATA_HOME", "~/.local/share") / "interlace"


def state_dir() -> Path:
    """The folder of histories and the like: below `$XDG_STATE_HOME` or `~/.local/state`."""
    return _user_dir("XDG_STATE_HOME", "~/.local/state") / "interlace"


def _user_dir(variable: str, usual: str) -> Path:
    return Path(os.environ.get(variable) or usual).expanduser()

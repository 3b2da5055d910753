"""Files that appear whole or not at all, and the user's folders."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataError

__all__ = ["cache_dir", "config_dir", "data_dir", "state_dir", "write_beside", "write_whole"]


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

    If the block raises, `path` stays as it was and the partial file is removed. Raises DataError
    for an OSError, the block's own included.
    """
    path = Path(path)
    # Random, not the process's number: threads and containers may write the same file.
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.partial")
    try:
        yield partial
        with partial.open("rb") as file:  # a rename may reach the disk before the content does
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


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

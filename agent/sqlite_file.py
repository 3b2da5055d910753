"""A SQLite file that the threads of a process share, and that a forked process opens again."""

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from ..tools.errors import DataError
from ..tools.files import is_full, write_error
from ..tools.forks import renew_in_child

__all__ = ["SqliteFile"]


class SqliteFile(ABC):
    """A file in WAL mode, made where it is missing, readable by its owner alone.

    Raises DataError where it can't be used. `_lock` is held while the connection `_db` is used.
    """

    _CONTENT: ClassVar[str]
    """The word for what is kept in it, in errors."""
    _OPTIONS: ClassVar[dict[str, Any]]
    """Those of `sqlite3.connect`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        renew_in_child(self)

    @abstractmethod
    def _prepare(self) -> None:
        """Make the tables, or bring older ones up to date."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def after_fork(self) -> Callable[[], None]:
        """Open the file again in a forked process, once no inherited connection to it is open:
        while one is, SQLite takes the parent's locks for the child's, and what the child writes
        is lost when the parent closes the file.
        """
        if self._lock.acquire(blocking=False):
            self._db.close()
        else:
            self._parents = self._db  # a thread was at work with it: neither used nor closed
        return self._open

    def _open(self) -> None:
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Only a new file is opened here: closing it drops all locks of this process on it, and
            # without them another process may remove the log that its connections write.
            with suppress(FileExistsError):
                new = os.O_RDWR | os.O_CREAT | os.O_EXCL
                os.close(os.open(os.path.realpath(self.path), new, 0o600))
            self._db: sqlite3.Connection = sqlite3.connect(
                self.path, check_same_thread=False, **self._OPTIONS
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unkept(error) from error
        try:
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma foreign_keys = on")
            self._prepare()
        except sqlite3.Error as error:
            self.close()
            raise self._unkept(error) from error

    def _unkept(self, error: OSError | sqlite3.Error) -> DataError:
        if isinstance(error, OSError):
            return write_error(self.path, error)
        full = " (the disk is full: make room there)" if is_full(self.path.parent) else ""
        return DataError(f"can't keep {self._CONTENT} in {self.path}: {error}{full}")

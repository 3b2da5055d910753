"""The folders on the host: one for each pool, in it one for each session that has files there."""

import fcntl
import itertools
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from ..files import cache_dir
from .files import remove_tree

__all__ = ["PoolFolder", "copy_fonts", "make_dir", "make_session_dir", "sweep", "unused_path"]

_PREFIX = "interlace-"
_LONGEST_FOLDER = 60
"""Characters of the temporary folder's path: those of the sockets in it may not pass 107."""


class PoolFolder:
    """A private temporary folder that goes with its owner: when closed, collected, or at exit.

    A folder whose owner was killed is removed by the next owner (`sweep`): each holds a lock on a
    file in its folder as long as it lives.
    """

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        if len(str(base)) > _LONGEST_FOLDER:
            base = Path("/tmp")
        self.base = base
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self.path.chmod(0o700)  # whatever the umask
        lock = os.open(self.path / "new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(self.path / "new", self.path / "lock")  # never seen unlocked while we live
        self._close = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def close(self) -> None:
        """Remove the folder and all in it. May be called again."""
        self._close()


def _remove(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked copy of the owner
        remove_tree(path)
        os.close(lock)


def sweep(base: Path) -> None:
    """Remove the folders of owners that are gone. Takes as long as there are files in them."""
    for path in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if path.lstat().st_uid != os.getuid():
                continue
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path)
            finally:
                os.close(lock)


def unused_path(path: Path) -> Path:
    """The path, or one like it where something is there already."""
    tries = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return next(each for each in itertools.chain([path], tries) if not os.path.lexists(each))


def make_dir(path: Path, mode: int) -> None:
    """Make a folder with exactly this mode, whatever the umask. Raises `OSError`."""
    path.mkdir()
    path.chmod(mode)


def make_session_dir(session_dir: Path, owner: int | None) -> None:
    """Make the folders of a session: `work` (where its code runs), `home`, `tmp` and `shm`.

    `owner`, if given, is who they are for; the place itself stays ours, so that what is in it
    can't be exchanged for links to elsewhere. Raises `OSError`.
    """
    make_dir(session_dir, 0o711)
    for name in ("work", "home", "home/.matplotlib", "tmp", "shm"):
        make_dir(session_dir / name, 0o700)
    copy_fonts(session_dir / "home/.matplotlib")
    if owner is not None:
        for path in session_dir.rglob("*"):
            os.chown(path, owner, owner)


def copy_fonts(folder: Path) -> None:
    """Put the user's own lists of fonts there, as matplotlib would spend seconds to make them."""
    for fonts in cache_dir("matplotlib").glob("fontlist-*.json"):
        with suppress(OSError):
            shutil.copy(fonts, folder)

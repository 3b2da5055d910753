"""Folders and processes: where a kernel lives, how it starts and how nothing of it stays behind."""

import fcntl
import json
import os
import secrets
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

__all__ = [
    "Folder",
    "descendants",
    "end_process",
    "end_trees",
    "kernel_environment",
    "start_process",
]

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
"""The variables of our own environment that a kernel gets, by exact name: none holds a secret."""

_PREFIX = "interlace-"
_STOP_ROUNDS = 20
_LONGEST_FOLDER = 60
"""Characters of the temporary folder's path: those of the sockets in it may not pass 107."""


class Folder:
    """A private temporary folder that goes with its owner: when closed, collected, or at exit.

    A folder whose owner was killed is removed by the next one that is made: the owner holds a lock
    on a file in it as long as it lives.
    """

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        if len(str(base)) > _LONGEST_FOLDER:
            base = Path("/tmp")
        _sweep(base)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        lock = os.open(self.path / "new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(self.path / "new", self.path / "lock")  # never seen unlocked while we live
        self._close = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def close(self) -> None:
        """Remove the folder and all in it. May be called again."""
        self._close()


def _remove(path: Path, lock: int, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked copy of the owner
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _sweep(base: Path) -> None:
    """Remove the folders of owners that are gone."""
    for path in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if path.lstat().st_uid != os.getuid():
                continue
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def kernel_environment(place: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a kernel that lives in `place`."""
    home = place / "home"
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": str(home),
        "TMPDIR": str(place / "tmp"),
        "IPYTHONDIR": str(home / ".ipython"),
        "MPLCONFIGDIR": str(home / ".matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_DATA_DIR": str(home / ".jupyter"),
        "JUPYTER_RUNTIME_DIR": str(home / ".jupyter"),
        "JUPYTER_NO_CONFIG": "1",
        "PYTHONUSERBASE": site.getuserbase(),  # packages of `pip install --user`, despite HOME
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",  # sets print in the same order in every session
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")},
        **extra,
        "JPY_PARENT_PID": str(os.getpid()),
    }


def make_place(place: Path) -> None:
    """Make the folders of a session: `work` (where its code runs), `home` and `tmp`."""
    place.mkdir(mode=0o700, exist_ok=True)
    for name in ("work", "home/.matplotlib", "tmp"):
        (place / name).mkdir(parents=True, mode=0o700, exist_ok=True)
    # Without its list of fonts matplotlib spends seconds making one in each session.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matplotlib"
    for fonts in cache.glob("fontlist-*.json"):
        with suppress(OSError):
            shutil.copy(fonts, place / "home/.matplotlib")


def start_process(
    place: Path, sockets: Path, characters: int, extra: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], "KernelConnectionInfo"]:
    """Start a kernel in `place`; its process and the connection it will listen on.

    The kernel leads a session of its own: a Ctrl-C in our terminal does not reach it. It is
    started from the thread that uses it, since it dies with that thread.
    """
    make_place(place)
    sockets.mkdir(mode=0o700)
    connection: KernelConnectionInfo = {
        "transport": "ipc",
        "ip": str(sockets / "k"),
        "key": secrets.token_hex(32),
        "signature_scheme": "hmac-sha256",
        "kernel_name": "",
        "shell_port": 1,
        "iopub_port": 2,
        "stdin_port": 3,
        "control_port": 4,
        "hb_port": 5,
    }
    file = sockets / "connection.json"
    with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
        json.dump(connection, out)
    program = Path(__file__).with_name("kernel.py")
    process = subprocess.Popen(
        [sys.executable, "-P", str(program), str(file), str(characters)],
        cwd=place / "work",
        env=kernel_environment(place, extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return process, connection


def end_process(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a kernel's process with all that it started, and reap it.

    Of a kernel that ended by itself, a program that left the kernel's process group lives on.
    """
    if process.returncode is not None or os.getpid() != owner:
        return
    stopped = stop_trees([process.pid])
    _send(os.killpg, process.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
    for pid in stopped:
        _send(os.kill, pid, signal.SIGKILL)
    process.wait()


def end_trees(roots: Iterable[int]) -> None:
    """Kill these processes with all that they started."""
    for pid in stop_trees(roots):
        _send(os.kill, pid, signal.SIGKILL)


def stop_trees(roots: Iterable[int]) -> set[int]:
    """Stop these processes with all that they started, before any of them can start another."""
    roots, stopped = set(roots), set[int]()
    for _ in range(_STOP_ROUNDS):
        running = {pid for root in roots for pid in (root, *descendants(root))} - stopped
        for pid in running:
            _send(os.kill, pid, signal.SIGSTOP)
        if not running:
            break
        stopped |= running
    return stopped


def _send(send: Callable[[int, int], None], pid: int, signum: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        send(pid, signum)


def descendants(pid: int) -> Iterable[int]:
    """The children of a process, and theirs."""
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield int(child)
                yield from descendants(int(child))

"""Kernel processes: the folders they live in, and how they start."""

import asyncio
import fcntl
import json
import os
import secrets
import shutil
import site
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ToolUnavailable
from ..files import cache_dir
from .files import Held, read_inside, remove_tree
from .walls.namespaces import SESSION

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

__all__ = [
    "Enclosure",
    "Folder",
    "copy_fonts",
    "failure",
    "kernel_environment",
    "make_place",
    "start_process",
    "sweep",
    "try_enclosure",
]

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
"""The variables of our own environment that a kernel gets, by exact name: none holds a secret."""

_PROGRAM = """
import sys, types
package = types.ModuleType("_interlace")
package.__path__ = [{folder!r}]
sys.modules["_interlace"] = package
from _interlace.jupyter.enclosed import main
main()
"""
_PREFIX = "interlace-"
_LONGEST_FOLDER = 60
"""Characters of the temporary folder's path: those of the sockets in it may not pass 107."""


class Folder:
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


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The walls around a kernel (see walls.py, enclosed.py), and the user it is in there."""

    walls: Mapping[str, Any]
    user: int
    canary: str
    """A file that it must not be able to read."""


def make_place(place: Path, owner: int | None) -> None:
    """Make the folders of a session: `work` (where its code runs), `home`, `tmp` and `shm`.

    `owner`, if given, is who they are for; the place itself stays ours, so that what is in it
    can't be exchanged for links to elsewhere. Raises `OSError`.
    """
    place.mkdir(mode=0o711)
    for name in ("work", "home/.matplotlib", "tmp", "shm"):
        (place / name).mkdir(parents=True, mode=0o700)
    copy_fonts(place / "home/.matplotlib")
    if owner is not None:
        for path in place.rglob("*"):
            os.chown(path, owner, owner)


def copy_fonts(folder: Path) -> None:
    """Put the user's own lists of fonts there, as matplotlib would spend seconds to make them."""
    for fonts in cache_dir("matplotlib").glob("fontlist-*.json"):
        with suppress(OSError):
            shutil.copy(fonts, folder)


def start_process(
    place: Path,
    sockets: Path,
    characters: int,
    extra: Mapping[str, str],
    enclosure: Enclosure | None,
) -> tuple[subprocess.Popen[bytes], "KernelConnectionInfo"]:
    """Start a kernel in `place`, a session's; its process and the connection it will listen on.

    The kernel leads a session of its own: a Ctrl-C in our terminal does not reach it. It is
    started from the thread that uses it, since it dies with that thread.
    """
    owner = enclosure.user if enclosure and enclosure.walls["own_user"] else None
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
    inside = Path(SESSION) if enclosure else place
    seen = {**connection, "ip": str(inside / sockets.name / "k")}
    with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
        json.dump(seen, out)
    if owner is not None:
        for path in (file, sockets):
            os.chown(path, owner, owner)
    arguments = [str(inside / sockets.name / file.name), str(characters)]
    program = [str(Path(__file__).with_name("jupyter") / "kernel.py"), *arguments]
    environment = kernel_environment(inside, extra)
    if enclosure:
        program = _enclosed(place, sockets, arguments, enclosure)
        environment |= {"JPY_PARENT_PID": "1", "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(
        [sys.executable, "-P", *program],
        cwd="/" if enclosure else place / "work",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return process, connection


def _enclosed(
    place: Path, sockets: Path, arguments: Sequence[str], enclosure: Enclosure
) -> list[str]:
    """Python's arguments to run a kernel, or without `arguments` a trial, within walls."""
    settings = {
        **asdict(enclosure),
        "owner": os.getpid(),
        "place": str(place),
        "sockets": str(sockets),
        "arguments": list(arguments),
    }
    return ["-c", _PROGRAM.format(folder=str(Path(__file__).parent)), json.dumps(settings)]


async def try_enclosure(place: Path, enclosure: Enclosure) -> None:
    """Raise the walls around a trial process in `place`. Raises `ToolUnavailable`."""
    if enclosure.walls["own_user"]:
        os.chown(place, enclosure.user, enclosure.user)  # where it says why it failed
    program = _enclosed(place, place, (), enclosure)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        *program,
        cwd="/",
        env=kernel_environment(Path(SESSION), {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        status = await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if status:
        raise ToolUnavailable(failure(Held(place)) or f"the trial ended with status {status}")


def failure(sockets: Held) -> str:
    """The last line of what went wrong while a kernel started, where it could say so.

    Code that an earlier kernel left behind may have written it.
    """
    with suppress(OSError, IndexError):
        text = read_inside(sockets, "failure").decode(errors="replace")
        return text.strip().splitlines()[-1][:300]
    return ""

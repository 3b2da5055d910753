"""How a kernel's process starts: the sockets it will listen on, and the walls around it."""

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ToolUnavailable
from ..files import HeldFolder, read_inside
from ..folders import make_dir
from ..programs import child_environment, python_program
from ..walls.namespaces import SESSION
from .enclosed import TRIED

if TYPE_CHECKING:
    from jupyter_client.connect import KernelConnectionInfo

__all__ = ["Enclosure", "failure", "start_process", "try_enclosure"]


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The walls around a kernel (see walls.py, enclosed.py), and the user it is in there."""

    walls: Mapping[str, Any]
    user: int
    canary: str
    """A file that it must not be able to read."""


def start_process(
    session_dir: Path,
    sockets: Path,
    characters: int,
    extra: Mapping[str, str],
    enclosure: Enclosure | None,
) -> tuple[subprocess.Popen[bytes], "KernelConnectionInfo"]:
    """Start a kernel in `session_dir`; its process, and the connection it will listen on.

    The kernel leads its own session: a Ctrl-C in our terminal does not reach it. It is
    started from the thread that uses it, since it dies with that thread.
    """
    owner = enclosure.user if enclosure and enclosure.walls["own_user"] else None
    make_dir(sockets, 0o700)
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
    inside = Path(SESSION) if enclosure else session_dir
    seen = {**connection, "ip": str(inside / sockets.name / "k")}
    with open(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600), "w") as out:
        os.fchmod(out.fileno(), 0o600)  # whatever the umask
        json.dump(seen, out)
    if owner is not None:
        for path in (file, sockets):
            os.chown(path, owner, owner)
    arguments = [str(inside / sockets.name / file.name), str(characters)]
    program = python_program("jupyter.kernel", *arguments)
    environment = child_environment(inside, extra)
    if enclosure:
        program = _enclosed(session_dir, sockets, arguments, enclosure)
        environment |= {"JPY_PARENT_PID": "1", "MALLOC_ARENA_MAX": "2"}
    process = subprocess.Popen(
        program,
        cwd="/" if enclosure else session_dir / "work",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return process, connection


def _enclosed(
    session_dir: Path, sockets: Path, arguments: Sequence[str], enclosure: Enclosure
) -> list[str]:
    """The command that runs a kernel, or without `arguments` a trial, within walls."""
    settings = {
        **asdict(enclosure),
        "owner": os.getpid(),
        "session_dir": str(session_dir),
        "sockets": str(sockets),
        "arguments": list(arguments),
    }
    return python_program("jupyter.enclosed", json.dumps(settings))


async def try_enclosure(session_dir: Path, enclosure: Enclosure) -> None:
    """Raise the walls around a trial process in `session_dir`. Raises `ToolUnavailable`."""
    if enclosure.walls["own_user"]:
        os.chown(session_dir, enclosure.user, enclosure.user)  # where it says why it failed
    process = await asyncio.create_subprocess_exec(
        *_enclosed(session_dir, session_dir, (), enclosure),
        cwd="/",
        env=child_environment(Path(SESSION), {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if output != TRIED:
        raise ToolUnavailable(
            failure(HeldFolder(session_dir)) or f"the trial ended with status {process.returncode}"
        )


def failure(sockets: HeldFolder) -> str:
    """The last line of what went wrong while a kernel started, where it could say so.

    Code that an earlier kernel left behind may have written it.
    """
    with suppress(OSError, IndexError):
        text = read_inside(sockets, "failure").decode(errors="replace")
        return text.strip().splitlines()[-1][:300]
    return ""

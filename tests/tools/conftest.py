"""A python tool in each tier of isolation, held for a whole module; and nothing left of any."""

import asyncio
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.sandbox_fixtures import LIMITS, Box, below, eventually, mounted

from interlace.tools import PythonTool
from interlace.tools.errors import ToolUnavailable

PR_SET_CHILD_SUBREAPER = 36


def ours(folder: str) -> list[str]:
    """What is there now of tools that keep their files in `folder`: processes, sockets, files.

    All that a test started ends up below this process, even if it lost its parent. What the test
    run itself keeps there is left out: Python's own helpers, and the warm process (warm.py).
    """
    found = [f"file {path}" for path in Path(folder).glob("interlace-*")]
    for pid, command in below().items():
        if not any(kept in command for kept in ("multiprocessing", "tests/support/warm.py")):
            found.append(f"process {pid}: {command[:200]}")
    sockets = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            sockets.add(os.readlink(fd))
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        name = fields[7] if len(fields) > 7 else ""
        mine = f"socket:[{fields[6]}]" in sockets
        if name.startswith(folder) or (mine and name.startswith("@interlace-")):
            found.append(f"socket {name}")
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """At the end of all these tests, no process, socket, mount or file of ours is there."""
    tmp_path_factory.getbasetemp()  # pytest's own files are elsewhere
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    folder = tempfile.mkdtemp(prefix="i", dir="/tmp")
    mounts = mounted(folder)
    os.chmod(folder, 0o755)
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield
        assert eventually(lambda: not ours(folder)), ours(folder)
        assert mounted(folder) == mounts
    finally:
        tempfile.tempdir = before[0]
        os.environ.pop("TMPDIR")
        if before[1] is not None:
            os.environ["TMPDIR"] = before[1]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives an interrupted cell all the time it needs, as a busy machine may need it."""
    monkeypatch.setattr("interlace.tools.python.tool.GRACE_SECONDS", 120.0)


# The strongest tier that this machine allows; `make test-slow` tries the weaker one too.
TIERS = ["auto", pytest.param("confined", marks=pytest.mark.tier)]


@pytest.fixture(scope="module", params=[*TIERS, "jupyter"])
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """Each backend in each tier that isolates it."""
    backend = "jupyter" if request.param == "jupyter" else "sandbox"
    yield from held(backend, "full" if backend == "jupyter" else request.param)


@pytest.fixture(scope="module", params=TIERS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Box]:
    """The backend that can do more, in each tier."""
    yield from held("sandbox", request.param)


def held(backend: str, tier: str) -> Iterator[Box]:
    with asyncio.Runner() as runner:
        tool = PythonTool(backend, isolation=tier, limits=LIMITS, warm=int(backend == "jupyter"))

        async def begun() -> str:
            await tool.__aenter__()
            return tool.tier

        try:
            tier = runner.run(begun())
        except ToolUnavailable as error:
            pytest.skip(str(error))
        try:
            yield Box(backend, tier, runner, tool)
        finally:
            runner.run(tool.__aexit__())

"""The tier `none`: no wall, and still the watch over memory, processes, files and time."""

import asyncio
from pathlib import Path

import pytest
from support.sandbox_fixtures import LIMITS, eventually

from interlace.tools import ErrorKind, PythonTool
from interlace.tools.python import PythonSession, processes

MEMORY = """
import os, time
for _ in range(12):
    if os.fork() == 0:
        b = bytearray(70_000_000)
        time.sleep(60)
time.sleep(60)
"""
PROCESSES = """
import subprocess, time
for _ in range(60): subprocess.Popen(['sleep', '60'], start_new_session=True)
time.sleep(60)
"""
FILES = """
import time
for n in range(10):
    with open(f'part{n}', 'wb') as f: f.write(bytes(10_000_000))
time.sleep(60)
"""
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
LEFT = """
import os, subprocess
program = subprocess.Popen(['sh', '-c', 'while :; do :; done'], start_new_session=True)
program.pid
"""


@pytest.mark.parametrize("backend", ["sandbox", "jupyter"])
def test_files_that_go_in_and_out_stay_in_the_folder(backend: str, tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("secret")

    async def main() -> None:
        async with PythonTool(backend, isolation="none").session() as session:
            assert isinstance(session, PythonSession)
            link = f"import os; os.symlink({str(tmp_path)!r}, 'out')"
            assert (await session.call({"code": link}, 60)).ok
            await session.write_file("new", b"x")
            assert await session.read_file("new") == b"x"
            for folder in ("out", tmp_path):
                with pytest.raises(OSError):
                    await session.read_file(f"{folder}/diary")
                with pytest.raises(OSError):
                    await session.write_file(f"{folder}/new", b"x")
        assert [file.name for file in tmp_path.iterdir()] == ["diary"]

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["sandbox", "jupyter"])
def test_the_watch_holds_what_no_wall_does(backend: str) -> None:
    async def main() -> None:
        async with (
            PythonTool(backend, isolation="none", limits=LIMITS) as tool,
            tool.session() as session,
        ):
            for code, words in (
                (MEMORY, "more than 600 MB of memory"),
                (PROCESSES, "more than 40 processes and threads"),
                (FILES, "writing more than 40 MB"),
            ):
                ended = await session.call({"code": code}, 60)
                assert words in ended.text and ended.state_lost
            deaf = await session.call({"code": DEAF}, 0.5)
            assert deaf.error is ErrorKind.TIMEOUT and deaf.state_lost
            left = int((await session.call({"code": LEFT}, 60)).text.rpartition("\n")[2])
            while processes.states_of(left) != {b"T"}:  # until the next call
                await asyncio.sleep(0.02)
            again = "open(f'/proc/{program.pid}/stat').read().rpartition(')')[2].split()[0]"
            assert (await session.call({"code": again}, 60)).text == "'R'"
        assert eventually(lambda: processes.states_of(left) <= {b"Z"})

    asyncio.run(asyncio.wait_for(main(), 300))

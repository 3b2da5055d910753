"""The backend jupyter behind its walls: what hostile code can see, take and leave behind."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sandbox_fixtures import LIMITS, Box, below, eventually

from interlace.tools import ErrorKind, PythonTool
from interlace.tools.errors import ToolUnavailable
from interlace.tools.python import PythonSession


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with asyncio.Runner() as runner:
        tool = PythonTool("jupyter", isolation="full", limits=LIMITS)
        try:
            runner.run(tool.__aenter__())
        except ToolUnavailable as error:
            pytest.skip(str(error))
        try:
            yield Box("jupyter", "full", runner, tool)
        finally:
            runner.run(tool.__aexit__())


def test_nothing_outside_can_be_seen_or_reached(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("very secret")
    secret.chmod(0o666)
    child = subprocess.Popen(["sleep", "60"])
    codes = [
        f"open({str(secret)!r}).read()",
        "open('/etc/shadow').read()",
        "open('/usr/bin/mine', 'w')",
        "open('/proc/sys/kernel/hostname', 'w').write('x')",
        f"open('/proc/{os.getpid()}/environ').read()",
        f"import os; os.kill({child.pid}, 9)",
        "import socket; socket.create_connection(('192.0.2.1', 80), 2)",
        "socket.create_connection(('169.254.169.254', 80), 2)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "s = socket.socket(socket.AF_UNIX); s.connect('/var/run/docker.sock')",
        "s = socket.socket(socket.AF_UNIX); s.connect('\\0interlace-test-outside')",
        "os.setuid(12345)",
        "os.memfd_create('hidden')",
    ]
    try:
        results = box.cells(*codes)
        assert [code for code, result in zip(codes, results, strict=True) if result.ok] == []
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    assert secret.read_text() == "very secret"
    seen = box.cell("import os; [v for v in os.environ.values() if 'oken' in v], os.listdir()")
    assert seen.text == "([], [])"
    assert seen.details["isolation"] == "full"


def test_what_is_taken_is_bounded(box: Box) -> None:
    forks, memory, large, disk, after = box.cells(
        "import os, time\n"
        "children = []\n"
        "try:\n"
        "    while len(children) < 2000:\n"
        "        if (pid := os.fork()) == 0: time.sleep(60); os._exit(0)\n"
        "        children.append(pid)\n"
        "except OSError: pass\n"
        "for child in children: os.kill(child, 9); os.waitpid(child, 0)\n"
        "len(children)",
        "import os, time\n"
        "for _ in range(20):\n"
        "    try: pid = os.fork()\n"
        "    except OSError: break\n"
        "    if pid == 0: b = bytearray(70_000_000); time.sleep(60)\n"
        "b = bytearray(400_000_000); time.sleep(60)",
        "b = bytearray(3 * 2**30)",
        "for n in range(10): open(f'part{n}', 'wb').write(bytes(10_000_000))\n"
        "import time; time.sleep(60)",
        "1 + 1",
    )
    assert forks.ok and int(forks.text) < 40
    assert memory.error is ErrorKind.MEMORY and "more than 600 MB" in memory.text
    assert large.error is ErrorKind.MEMORY
    assert disk.error is ErrorKind.DIED and "more than 40 MB" in disk.text
    assert after.text.endswith("2")


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(7)", "exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_how_a_kernel_ended_is_told_through_the_walls(box: Box, code: str, how: str) -> None:
    died, after = box.cells(f"print('last words', flush=True)\n{code}", "6 * 7")
    assert died.error is ErrorKind.DIED and how in died.text and died.state_lost
    assert after.text == "42"


def test_files_go_in_and_out_and_never_past_the_folder(box: Box) -> None:
    async def work(session: PythonSession) -> None:
        await session.write_file("data/in.bin", b"12345")
        code = "d = open('data/in.bin', 'r+').read(); open('data/out', 'w').write(d[::-1])"
        assert (await session.call({"code": code}, 20)).text == "5"
        assert await session.read_file("data/out") == b"54321"
        await session.call({"code": "import os; os.symlink('/etc/passwd', 'link')"}, 20)
        for path in ("link", "../home/x", "/etc/passwd"):
            with pytest.raises(OSError):
                await session.read_file(path)
            with pytest.raises(OSError):
                await session.write_file(path, b"x")

    box.use(work)


def test_a_session_finds_its_files_again_after_its_kernel_died(box: Box) -> None:
    # Folders that were exchanged for links are no way for the next kernel to be led outside.
    _, died, after = box.cells(
        "import os, shutil; open('kept', 'w').write('kept')\n"
        "shutil.rmtree('../home/.matplotlib'); os.symlink('/etc', '../home/.matplotlib')",
        "os._exit(1)",
        "open('kept').read()",
    )
    assert died.error is ErrorKind.DIED
    assert after.text == "'kept'"


def test_programs_that_left_the_kernel_end_with_the_session(box: Box) -> None:
    box.cell("import subprocess; subprocess.Popen(['sleep', '1234'], start_new_session=True)")
    assert eventually(lambda: "sleep 1234" not in below().values())

"""What a cell leaves running takes nothing from other sessions, and runs on with the next cell."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.sandbox_fixtures import Box, below

from interlace.tools import ErrorKind
from interlace.tools.python import PythonSession

LEFT = """
import ctypes, os, platform, signal, subprocess, threading, time
def spin():
    while True: pass
for _ in range(8):  # programs with sessions of their own: the kernel gives each its full share
    subprocess.Popen(['sh', '-c', 'while :; do :; done'], start_new_session=True)
if os.fork() == 0:  # orphans
    for _ in range(2):
        if os.fork() == 0: spin()
    os._exit(0)
if os.fork() == 0:  # a process whose first thread has ended
    threading.Thread(target=spin).start()
    ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[platform.machine()], 0)
threading.Thread(target=spin, daemon=True).start()
paused = os.fork()
if paused == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
_ = os.waitid(os.P_PID, paused, os.WSTOPPED)
"""
TIMER = """
import signal
def handler(*_):
    while True: pass
signal.signal(signal.SIGALRM, handler)
_ = signal.setitimer(signal.ITIMER_REAL, 0.3)
"""


def ticks() -> dict[int, bytes]:
    """The processor time that each process below this one has had."""
    found = {}
    for pid in below():
        with suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            found[pid] = b" ".join(stat[11:15])
    return found


async def quiet() -> bool:
    """Wait until no process of any session gets the processor for half a second; False if they do
    for too long.
    """
    end = time.monotonic() + 90
    while time.monotonic() < end:
        before = ticks()
        await asyncio.sleep(0.5)
        if ticks() == before:
            return True
    return False


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(LEFT, id="programs and threads"),
        pytest.param(TIMER, id="timer"),
    ],
)
def test_what_a_cell_left_is_stopped_until_the_next_one(box: Box, code: str) -> None:
    async def main() -> None:
        async with box.tool.session() as hog, box.tool.session() as neighbour:
            assert (await neighbour.call({"code": "1"}, 60)).ok
            left = await hog.call({"code": code}, 60)
            assert left.ok, left.text
            assert await quiet()
            before = ticks()
            mine = await neighbour.call({"code": "sum(range(3_000_000))"}, 60)
            assert mine.text == str(sum(range(3_000_000)))
            # Of all that had the processor meanwhile, none is the other session's.
            grown = {pid for pid, had in ticks().items() if had != before.get(pid)}
            assert len(grown) <= 1
            if code == TIMER:  # the handler continues where it was
                assert (await hog.call({"code": "1"}, 1)).error is ErrorKind.TIMEOUT
                return
            after = await hog.call(
                {"code": "os.waitid(os.P_PID, paused, os.WCONTINUED | os.WNOHANG | os.WNOWAIT)"},
                60,
            )
            assert after.text == "(no output)"  # what code stopped itself stays so
            assert await quiet()

    box.run(main())


def test_what_copies_share_runs_while_any_of_them_has_a_call(sandbox: Box) -> None:
    orphan = """
import os, subprocess, time
if os.fork() == 0:
    subprocess.Popen(['sh', '-c', 'while :; do echo >> $TMPDIR/t; sleep 0.01; done'])
    os._exit(0)
_ = os.wait()
"""
    grows = """
import os, time
path = os.environ['TMPDIR'] + '/t'
while not os.path.exists(path): time.sleep(0.01)
size = os.path.getsize(path)
while os.path.getsize(path) == size: time.sleep(0.01)
"""

    async def work(session: PythonSession) -> None:
        copy = await session.fork()
        assert (await session.call({"code": orphan}, 60)).ok
        assert await quiet()
        assert (await copy.call({"code": grows}, 60)).ok
        assert await quiet()
        await copy.close()

    sandbox.use(work)

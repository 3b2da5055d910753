"""Kernels come up, wait their turn and leave nothing behind, however their owner ends.

Here without walls, so that all can be seen from outside; test_jupyter_walls.py has those.
"""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.sandbox_fixtures import begin

from interlace.tools import ErrorKind, PythonTool, ToolResult
from interlace.tools.python import PythonSession

DETACHED = """
import os, subprocess
pids = [os.getpid(), subprocess.Popen(['sleep', '1000'], start_new_session=True).pid]
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp('sleep', ['sleep', '1001'])
    os._exit(0)
print(*pids)
"""
"""A kernel's number and those of programs that left its process group."""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Made after `tmp_path`, which would be made in it; and short enough for sockets.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def using(folder: Path) -> list[int]:
    """The processes whose environment names the folder, or which work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "cmdline").read_bytes() or str(
                (process / "cwd").readlink()
            ).startswith(f"{folder}/"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def soon(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def script(code: str) -> subprocess.Popen[str]:
    """A program of its own that uses the tool."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


async def say(a_tool: PythonTool, code: str, seconds: float = 30) -> ToolResult:
    async with a_tool.session() as session:
        return await session.call({"code": code}, seconds)


def test_closing_a_session_leaves_no_process_file_or_descriptor(own_temporary_folder: Path) -> None:
    async def main() -> None:
        a_tool = PythonTool("jupyter", isolation="none")
        async with a_tool.session() as session:
            result = await session.call({"code": DETACHED}, 30)
            pids = [int(pid) for pid in result.text.split()]
            assert len(pids) == 2 and all(runs(pid) for pid in pids)
            assert soon(lambda: len(using(own_temporary_folder)) == 3)  # one is still starting
        assert not using(own_temporary_folder)
        assert not any(runs(pid) for pid in pids)
        assert not list(own_temporary_folder.iterdir())
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await say(a_tool, "1")
        assert len(os.listdir("/proc/self/fd")) == before

    asyncio.run(main())


def test_a_cancelled_user_leaves_nothing(own_temporary_folder: Path) -> None:
    async def main() -> None:
        for code in ("while True: pass", "sum(range(10**13))"):
            for delay in (0.0, 0.05, 1.0):
                task = asyncio.create_task(
                    say(PythonTool("jupyter", isolation="none", eager=True, warm=1), code, 3600)
                )
                await asyncio.sleep(delay)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not using(own_temporary_folder)
                assert not list(own_temporary_folder.iterdir())

    asyncio.run(main())


def test_an_interpreter_that_exits_without_closing_leaves_nothing(
    own_temporary_folder: Path,
) -> None:
    program = script("""
        import asyncio, sys
        from interlace.tools import PythonTool
        loop = asyncio.new_event_loop()
        manager = PythonTool("jupyter", isolation="none").session()
        session = loop.run_until_complete(manager.__aenter__())
        print(loop.run_until_complete(session.call({"code": "6 * 7"}, 30)).text)
        sys.exit(0)
    """)
    out, _ = program.communicate(timeout=60)
    assert out == "42\n"
    assert soon(lambda: not using(own_temporary_folder))
    assert not list(own_temporary_folder.iterdir())


def test_a_kernel_dies_with_an_owner_that_is_killed_and_the_next_one_cleans_up(
    own_temporary_folder: Path,
) -> None:
    owner = script("""
        import asyncio
        from interlace.tools import PythonTool
        async def main():
            one = PythonTool("jupyter", isolation="none")
            two = PythonTool("jupyter", isolation="none")
            async with one.session() as busy, two.session() as idle:
                print((await idle.call({"code": "1"}, 30)).text, flush=True)
                call = asyncio.create_task(busy.call({"code": "sum(range(10**13))"}, 3600))
                await asyncio.sleep(1)
                print("busy", flush=True)
                await call
        asyncio.run(main())
    """)
    assert owner.stdout is not None
    assert [owner.stdout.readline() for _ in range(2)] == ["1\n", "busy\n"]
    assert len(using(own_temporary_folder)) == 2
    owner.kill()
    owner.communicate()
    assert soon(lambda: not using(own_temporary_folder))
    assert len(list(own_temporary_folder.iterdir())) == 2
    asyncio.run(say(PythonTool("jupyter", isolation="none"), "1"))
    assert not list(own_temporary_folder.iterdir())


def test_a_tool_forgets_the_event_loop_that_held_it() -> None:
    a_tool = PythonTool("jupyter", isolation="none")

    async def hold() -> "weakref.ref[asyncio.AbstractEventLoop]":
        async with a_tool, a_tool:
            return weakref.ref(asyncio.get_running_loop())

    ended = asyncio.run(hold())
    gc.collect()
    assert ended() is None


def test_an_interrupt_of_the_terminal_does_not_reach_a_kernel() -> None:
    program = script("""
        import asyncio, signal
        from interlace.tools import PythonTool
        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print, "interrupted")
            async with PythonTool("jupyter", isolation="none").session() as session:
                await session.call({"code": "x = 1"}, 30)
                print("ready", flush=True)
                print((await session.call({"code": "import time; time.sleep(1); x"}, 30)).text)
        asyncio.run(main())
    """)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    os.killpg(program.pid, signal.SIGINT)
    assert program.communicate(timeout=60)[0] == "interrupted\n1\n"


def test_nothing_is_written_to_the_users_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = asyncio.run(
        say(
            PythonTool("jupyter", isolation="none"),
            "import matplotlib.pyplot as p; p.plot([1]); 1",
            120,
        )
    )
    assert result.ok
    assert not list(tmp_path.iterdir())


def test_importing_the_tools_loads_nothing_of_jupyter() -> None:
    program = script("""
        import sys, interlace.tools
        print({"zmq", "jupyter_client", "ipykernel", "IPython"} & set(sys.modules))
    """)
    assert program.communicate(timeout=60)[0] == "set()\n"


def test_sessions_wait_for_a_kernel_and_are_told_when_none_comes() -> None:
    async def main() -> None:
        a_tool = PythonTool("jupyter", isolation="none", sessions=1, patience=0.2)
        async with a_tool.session() as first, a_tool.session() as second:
            assert (await first.call({"code": "1"}, 30)).ok
            none = await second.call({"code": "2"}, 30)
            assert none.error is ErrorKind.UNAVAILABLE
            assert "no Python session became free within 0.2 s" in none.text
        patient = PythonTool("jupyter", isolation="none", sessions=2)
        results = await asyncio.gather(*(say(patient, str(n)) for n in range(5)))
        assert [result.text for result in results] == list("01234")

    asyncio.run(main())


def test_warm_kernels_wait_for_sessions_and_go_with_the_tool(own_temporary_folder: Path) -> None:
    async def main() -> None:
        async with PythonTool("jupyter", isolation="none", warm=2, sessions=3) as a_tool:
            while len(using(own_temporary_folder)) < 2:
                await asyncio.sleep(0.05)
            waiting = set(using(own_temporary_folder))
            for _ in range(3):
                pid = int((await say(a_tool, "import os; os.getpid()")).text)
                assert pid in waiting
                while len(set(using(own_temporary_folder))) < 2:
                    await asyncio.sleep(0.05)
                waiting = set(using(own_temporary_folder))
        assert not using(own_temporary_folder)
        assert not list(own_temporary_folder.iterdir())

    asyncio.run(main())


def test_one_tool_serves_one_event_loop_after_another() -> None:
    a_tool = PythonTool("jupyter", isolation="none", sessions=1)
    assert [asyncio.run(say(a_tool, code)).text for code in ("1", "2")] == ["1", "2"]


@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_a_kernel_that_does_not_start_is_our_fault(
    executable: str, monkeypatch: pytest.MonkeyPatch, own_temporary_folder: Path
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    for eager in (False, True):
        result = asyncio.run(say(PythonTool("jupyter", isolation="none", eager=eager), "1"))
        assert result.error is ErrorKind.UNAVAILABLE
        assert result.text.startswith("a Python kernel can't be started: ")
    assert not list(own_temporary_folder.iterdir())


def test_the_reason_why_a_kernel_does_not_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "ipykernel.py").write_text("raise ImportError('broken installation')")
    result = asyncio.run(
        say(PythonTool("jupyter", isolation="none", variables={"PYTHONPATH": str(tmp_path)}), "1")
    )
    assert result.error is ErrorKind.UNAVAILABLE
    assert result.text.endswith("ImportError: broken installation")


def test_a_session_may_be_closed_in_the_middle_of_a_call(own_temporary_folder: Path) -> None:
    async def main() -> None:
        manager = PythonTool("jupyter", isolation="none").session()
        session = await manager.__aenter__()
        assert isinstance(session, PythonSession)
        call = await begin(session, "while True: pass")
        await manager.__aexit__(None, None, None)
        for result in (await call, await session.call({"code": "1"}, 30)):
            assert result.error is ErrorKind.UNAVAILABLE
            assert "closed" in result.text

    asyncio.run(main())
    assert not list(own_temporary_folder.iterdir())

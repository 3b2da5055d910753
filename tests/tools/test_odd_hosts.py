"""The python tool on machines where something is missing: room on the disk, a short path, luck."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path

import pytest
from support.sandbox_fixtures import eventually

from interlace.tools import ErrorKind, PythonTool, Unforkable
from interlace.tools.errors import ToolUnavailable
from interlace.tools.python import PythonSession, programs

BACKENDS = [
    ("sandbox", "full"),
    pytest.param("sandbox", "confined", marks=pytest.mark.tier),
    ("jupyter", "full"),
]

FULL_DISK = """
import asyncio, ctypes, json, os, sys, tempfile
from interlace.tools import PythonTool
libc = ctypes.CDLL(None, use_errno=True)
folder, backend, isolation = sys.argv[1:]
assert libc.unshare(0x20000) == 0  # a view of the files in which a small disk can be mounted
assert libc.mount(b"none", b"/", None, 1 << 14 | 1 << 18, None) == 0
assert libc.mount(b"none", folder.encode(), b"tmpfs", 0, b"size=400k,mode=755") == 0
tempfile.tempdir = folder

async def main():
    async with PythonTool(backend, isolation=isolation) as tool:
        with open(f"{folder}/filler", "wb", buffering=0) as filler:
            try:
                while True: filler.write(bytes(4096))
            except OSError: pass
        said = []
        async with tool.session() as session:
            for code in ("6 * 7", "with open('mine', 'w') as f: print(f.write('x' * 50_000))"):
                result = await session.call({"code": code}, 60)
                said.append([result.text, result.error])
        os.remove(f"{folder}/filler")
        async with tool.session() as session:
            result = await session.call({"code": "6 * 7"}, 60)
            said.append([result.text, result.error])
    print(json.dumps([said, os.listdir(folder)]))

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize(("backend", "isolation"), BACKENDS)
def test_a_full_disk_is_told_and_gone_when_it_is_gone(
    backend: str, isolation: str, tmp_path: Path
) -> None:
    """What can't be written is our fault or an error of the code's, and no session is stuck."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FULL_DISK), folder, backend, isolation],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
    assert done.returncode == 0, done.stderr
    (first, second, after), left = json.loads(done.stdout)
    assert first == ["42", None] or first[1] == ErrorKind.UNAVAILABLE, first
    if (backend, isolation) == ("sandbox", "full"):  # whose files are in memory of their own
        assert second == ["50000", None]
    else:
        assert second[1] in (ErrorKind.EXCEPTION, ErrorKind.UNAVAILABLE), second
        assert "No space left" in second[0]
    assert after == ["42", None] and left == []


@pytest.mark.parametrize(("backend", "isolation"), BACKENDS)
def test_a_temporary_folder_of_any_length_will_do(
    backend: str, isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets' paths may have 107 characters: a longer one is not used for them."""
    long = tmp_path / ("d" * 100) / ("e" * 100)
    long.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    async def main() -> str:
        async with PythonTool(backend, isolation=isolation).session() as session:
            return (await session.call({"code": "6 * 7"}, 60)).text

    assert asyncio.run(main()) == "42"


@pytest.mark.parametrize("backend", ["sandbox", "jupyter"])
@pytest.mark.parametrize("isolation", ["auto", "none"])
def test_elsewhere_than_on_linux_it_says_how_to_get_to_linux(
    backend: str, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    async def main() -> None:
        with pytest.raises(ToolUnavailable, match=r"runs on Linux only.*Docker"):
            async with PythonTool(backend, isolation=isolation):
                pass

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["sandbox", "jupyter"])
@pytest.mark.parametrize("executable", ["/nowhere/python", "/bin/false"])
def test_an_interpreter_that_does_not_start_is_our_fault(
    executable: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)

    async def main() -> None:
        async with PythonTool(backend).session() as session:
            result = await session.call({"code": "1"}, 20)
            assert result.error is ErrorKind.UNAVAILABLE and "can't be isolated" in result.text
        with pytest.raises(ToolUnavailable):
            async with PythonTool(backend):
                pass

    asyncio.run(main())


def test_without_a_temporary_folder_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    async def main() -> None:
        with pytest.raises(ToolUnavailable, match="set TMPDIR"):
            async with PythonTool():
                pass

    asyncio.run(main())


INHERITED = """
import asyncio, json, sys
from interlace.tools import PythonTool
code = '''
import os, resource, signal
names = "NOFILE", "AS", "FSIZE"
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0] for name in names]
numbers = signal.SIGCHLD, signal.SIGUSR1
ignored = [each.name for each in numbers if signal.getsignal(each) == signal.SIG_IGN]
[limits, ignored, open("mine", "w").write("x"), open("mine").read(), os.system("exit 3") >> 8]
'''

async def main(backend, isolation):
    async with PythonTool(backend, isolation=isolation) as tool, tool.session() as session:
        said = [(await session.call({"code": code}, 60)).text]
        if backend == "sandbox":
            copy = await session.fork()
            said.append((await copy.call({"code": "6 * 7"}, 60)).text)
            await copy.close()
    print(json.dumps(said))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("backend", "isolation"), BACKENDS)
def test_what_the_owner_inherited_is_taken_or_set_right(backend: str, isolation: str) -> None:
    """Lower limits than ours hold; ignored signals, blocked ones and the umask do not."""
    odd = "ulimit -n 64; ulimit -v 900000; ulimit -f 2000; trap '' CHLD USR1 INT; umask 777"
    program = [sys.executable, "-c", INHERITED, backend, isolation]
    done = subprocess.run(
        ["bash", "-c", f'{odd}; exec "$@"', "bash", *program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.returncode == 0, done.stderr
    first, *copies = json.loads(done.stdout)
    assert first == f"[[64, {900_000 * 1024}, {2_000 * 1024}], [], 1, 'x', 3]"
    assert copies == (["42"] if backend == "sandbox" else [])


@contextmanager
def no_more_processes(*pids: int) -> Iterator[None]:
    """The kernel starts no process or thread for these, as where a container has its limit."""
    base = Path("/sys/fs/cgroup/pids")
    group = base / f"interlace-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "pids.max").write_text("0")
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        pytest.skip(f"no group of processes can be limited here: {error}")
    try:
        yield
    finally:
        for pid in pids:
            with suppress(OSError):
                (base / "cgroup.procs").write_text(str(pid))
        assert eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
def test_where_no_more_processes_can_be_started_the_sessions_there_are_live_on(tier: str) -> None:
    async def main() -> None:
        async with PythonTool(isolation=tier) as tool, tool.session() as one:
            assert isinstance(one, PythonSession)
            assert (await one.call({"code": "x = 6"}, 60)).ok
            zygote, worker = await zygote_and_worker(one)
            with no_more_processes(zygote):
                async with tool.session() as two:
                    refused = await two.call({"code": "1"}, 60)
                    assert refused.error is ErrorKind.UNAVAILABLE
                    assert "Resource temporarily unavailable" in refused.text
            with no_more_processes(worker):
                with pytest.raises(Unforkable, match="Resource temporarily unavailable"):
                    await one.fork()
                assert (await one.call({"code": "x * 7"}, 60)).text == "42"
            async with tool.session() as two:
                assert (await two.call({"code": "6 * 7"}, 60)).text == "42"
            copy = await one.fork()
            assert (await copy.call({"code": "x * 7"}, 60)).text == "42"
            await copy.close()

    asyncio.run(main())


async def zygote_and_worker(session: PythonSession) -> tuple[int, int]:
    """The numbers of the process that sessions are forked from, and of the one that runs cells."""
    assert session._slot is not None and session._slot.interpreter is not None
    worker = session._slot.interpreter.pid  # type: ignore[attr-defined]
    backend = session._pool.backend
    return (await backend._zygote()).pid, worker  # type: ignore[attr-defined]


@pytest.mark.parametrize(("backend", "isolation"), BACKENDS)
def test_no_limit_depends_on_the_date(
    backend: str, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, jumps = time.time, cycle([0, 86_400, -30 * 86_400, 1e9, -1e9])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))

    async def main() -> None:
        async with PythonTool(backend, isolation=isolation).session() as session:
            assert (await session.call({"code": "6 * 7"}, 60)).text == "42"
            stuck = await session.call({"code": "while True: pass"}, 0.5)
            assert stuck.error is ErrorKind.TIMEOUT and 0.4 < stuck.seconds < 60
            assert (await session.call({"code": "6 * 7"}, 60)).text.endswith("42")

    asyncio.run(main())


WITHOUT = """
import asyncio, json, sys
from support.denied_syscalls import refuse
from interlace.tools import PythonTool
from interlace.tools.errors import ToolUnavailable

async def main():
    said = []
    for backend in ("sandbox", "jupyter"):
        for isolation in ("auto", "none"):
            try:
                async with PythonTool(backend, isolation=isolation): said.append("started")
            except ToolUnavailable as error:
                said.append(str(error))
    print(json.dumps(said))

refuse(sys.argv[1])
asyncio.run(main())
"""


@pytest.mark.parametrize("call", ["pidfd_open", "pidfd_send_signal", "openat2"])
def test_a_kernel_without_what_all_depends_on_is_refused_in_every_tier(call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT), call],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    for said in json.loads(done.stdout):
        assert "needs the system calls" in said and "Linux 5.6" in said


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 3, 5])
@pytest.mark.parametrize("tier", ["full", "confined"])
def test_older_versions_of_landlock_give_walls_that_hold_or_none(
    tier: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process of the tool takes the kernel for one that knows no more than that version."""
    older = f"from _interlace.walls import landlock\nlandlock.abi = lambda: {version}\n"
    begin = "reset_inherited()\nmain("
    assert begin in programs._PROGRAM
    changed = programs._PROGRAM.replace(begin, older + begin)
    monkeypatch.setattr(programs, "_PROGRAM", changed)

    async def main() -> None:
        async with PythonTool(isolation=tier) as tool, tool.session() as session:
            assert (await session.call({"code": "6 * 7"}, 60)).text == "42"
            assert not (await session.call({"code": "open('/etc/shadow')"}, 60)).ok

    try:
        asyncio.run(main())
    except ToolUnavailable as error:  # the trial of the walls found the hole
        assert tier == "confined" and "code could signal a process outside" in str(error)


def test_a_root_that_can_not_be_written_to_will_do(tmp_path: Path) -> None:
    program = "; ".join(
        [
            "import asyncio",
            "from interlace.tools import PythonTool",
            "ask = lambda s: s.call({'code': '6 * 7'}, 60)",
            "manager = PythonTool().session()",
            "loop = asyncio.new_event_loop()",
            "session = loop.run_until_complete(manager.__aenter__())",
            "print(loop.run_until_complete(ask(session)).text)",
            "loop.run_until_complete(manager.__aexit__(None, None, None))",
        ]
    )
    mounts = "mount --make-rprivate / && mount -t tmpfs none /tmp && mount -o remount,bind,ro /"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        cwd="/",
        env={
            **os.environ,
            "TMPDIR": "/tmp",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        },
    )
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    assert done.stdout == "42\n", done.stderr

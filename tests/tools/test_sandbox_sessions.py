"""Sessions of the sandbox: copies, files, many at once, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from support.sandbox_fixtures import Box, begin, below, eventually, mounted

from interlace.tools import ErrorKind, PythonTool, Unforkable
from interlace.tools.errors import ToolUnavailable, UsageError
from interlace.tools.python import PythonSession
from interlace.tools.python.processes import children
from interlace.tools.python.sandbox.remote import RemoteWorker


def ours() -> set[int]:
    """The processes of sandboxes of this process that run now."""
    return {pid for pid, command in below().items() if "_interlace" in command}


async def text(session: PythonSession, code: str) -> str:
    return (await session.call({"code": code}, 60)).text


def test_neither_the_owner_nor_the_workers_load_more_than_they_need() -> None:
    program = """
    import asyncio, sys
    from interlace.tools import PythonTool

    def loaded():
        return " ".join({name.split(".")[0] for name in sys.modules})

    async def main():
        async with PythonTool() as tool, tool.session() as session:
            code = "import sys; print(*{name.split('.')[0] for name in sys.modules})"
            return (await session.call({"code": code}, 60)).text

    print(asyncio.run(main()))
    print(loaded())
    """
    program = textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    worker, owner = (set(line.split()) for line in done.stdout.splitlines())
    jupyter = {"jupyter_client", "zmq", "ipykernel"}
    assert "numpy" in worker and not worker & {"interlace", "pydantic", *jupyter}
    assert "interlace" in owner and not owner & {"numpy", "IPython", *jupyter}


# -- copies ---------------------------------------------------------------------------------------


def test_a_copy_has_all_the_state_and_shares_none(sandbox: Box) -> None:
    async def work(session: PythonSession) -> None:
        await text(session, "x = [1]\ndef f(): return x\nimport random; random.seed(7)")
        await text(
            session, "open('notes', 'w').write('before'); import os; os.symlink('notes', 'l')"
        )
        copy = await session.fork()
        deeper = await copy.fork()
        assert await text(copy, "f().append(2); f()") == "[1, 2]"
        assert await text(session, "f()") == "[1]"
        assert await text(deeper, "f()") == "[1]"
        assert await text(copy, "_ = open('notes', 'a').write(' and after'); open('l').read()") == (
            "'before and after'"
        )
        assert await text(session, "open('notes').read()") == "'before'"
        assert await text(session, "random.random()") == await text(deeper, "random.random()")
        assert (await copy.call({"code": "1"}, 60)).details["isolation"] == sandbox.tier
        await copy.close()
        assert await text(session, "f()") == "[1]" and await text(deeper, "f()") == "[1]"
        await deeper.close()
        await asyncio.sleep(0)
        assert await text(session, "f()") == "[1]"

    sandbox.use(work)


def test_copies_outlive_their_parent_and_each_others_ends(sandbox: Box) -> None:
    async def main() -> None:
        async with sandbox.tool.session() as session:
            assert isinstance(session, PythonSession)
            await text(session, "x = 1; open('notes', 'w').write('kept')")
            one, two = await session.fork(), await session.fork()
        assert await text(one, "x") == "1"
        died = await one.call({"code": "import os; os._exit(1)"}, 60)
        assert died.error is ErrorKind.DIED
        stuck = await two.call({"code": "sum(range(10**13))"}, 0.3)
        assert stuck.error is ErrorKind.TIMEOUT and stuck.state_lost
        assert await text(one, "'x' in dir(), open('notes').read()") == "(False, 'kept')"
        assert await text(two, "1 + 1") == "2"
        await one.close()
        await two.close()
        assert (await two.call({"code": "1"}, 60)).error is ErrorKind.UNAVAILABLE

    sandbox.run(main())


def test_what_is_killed_and_still_dying_counts_for_nobody(sandbox: Box) -> None:
    """On a busy machine that takes a while; here the supervisor, which reaps it, stands still."""

    async def work(session: PythonSession) -> None:
        code = "import os, signal\nfor _ in range(20):\n  if not os.fork(): signal.pause()"
        await text(session, code)
        assert session._slot is not None and isinstance(session._slot.interpreter, RemoteWorker)
        worker = session._slot.interpreter
        supervisor = worker.session.supervisor
        os.kill(supervisor, signal.SIGSTOP)
        try:
            worker.end("was ended for this test")
            assert eventually(lambda: len(children(supervisor)) == 21)
            assert worker.session.orphans() == set()
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert (await text(session, "1 + 1")).endswith("2")

    sandbox.use(work)


def test_threads_and_programs_can_not_be_copied(sandbox: Box) -> None:
    async def work(session: PythonSession) -> None:
        await text(
            session,
            "import threading, subprocess, time\nstop = threading.Event()\n"
            "t = threading.Thread(target=stop.wait); t.start()",
        )
        with pytest.raises(Unforkable, match="threads are alive"):
            await session.fork()
        await text(session, "stop.set(); t.join(); p = subprocess.Popen(['sleep', '60'])")
        with pytest.raises(Unforkable, match="programs that it started are alive"):
            await session.fork()
        await text(session, "p.kill(); p.wait(); x = 5")
        copy = await session.fork()
        assert await text(copy, "x") == "5"
        await copy.close()

    sandbox.use(work)


def test_an_event_loops_tasks_are_copied(sandbox: Box) -> None:
    async def work(session: PythonSession) -> None:
        await text(session, "import asyncio\nasync def f(): await asyncio.sleep(0.05); return 7")
        await text(session, "t = asyncio.create_task(f())")
        copy = await session.fork()
        assert await text(copy, "await t") == "7"
        assert await text(session, "await t") == "7"
        await copy.close()

    sandbox.use(work)


def test_where_no_process_can_be_added_a_copy_is_refused_and_the_session_lives() -> None:
    async def main() -> None:
        async with PythonTool(isolation="full") as tool, tool.session() as session:
            assert isinstance(session, PythonSession)
            code = "import resource; kept = 42; resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))"
            assert (await session.call({"code": code}, 60)).ok
            with pytest.raises(Unforkable, match="temporarily unavailable"):
                await session.fork()
            assert await text(session, "kept") == "42"

    asyncio.run(main())


def test_an_idle_session_and_a_copy_hold_few_pages_for_themselves(sandbox: Box) -> None:
    """Most of what a session has is shared with all others: docs/security.md says where it lies."""

    def private(pid: int) -> float:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3

    async def work(session: PythonSession) -> None:
        await text(session, "import numpy, sympy; 1 + 1")
        copy = await session.fork()
        workers = []
        for each in (session, copy):
            assert each._slot is not None and isinstance(each._slot.interpreter, RemoteWorker)
            workers.append(each._slot.interpreter)
        keeper = workers[0].session.supervisor
        assert private(workers[0].pid) + private(keeper) < 6.8
        assert private(workers[1].pid) < 2.1
        await copy.close()

    sandbox.use(work)


def test_starts_that_are_given_up_harm_no_other_start(sandbox: Box) -> None:
    """The zygote's answer to a start that was cancelled is not taken for the next one's."""

    async def start() -> str:
        async with sandbox.tool.session() as session:
            assert isinstance(session, PythonSession)
            return await text(session, "6 * 7")

    async def main() -> None:
        for moment in range(12):
            given_up = asyncio.create_task(start())
            await asyncio.sleep(moment * 0.0005)
            given_up.cancel()
            assert await asyncio.gather(*(start() for _ in range(3))) == ["42"] * 3
            await asyncio.wait({given_up})

    sandbox.run(main())


# -- files ----------------------------------------------------------------------------------------


def test_files_go_in_and_out_and_never_past_the_folder(sandbox: Box) -> None:
    async def work(session: PythonSession) -> None:
        data = bytes(range(256)) * 100
        await session.write_file("data/in.bin", data)
        assert await text(session, "d = open('data/in.bin', 'rb').read(); len(d)") == "25600"
        await text(session, "open('out.bin', 'wb').write(d[::-1])")
        assert await session.read_file("out.bin") == data[::-1]
        await text(
            session,
            "import os; os.symlink('/etc/passwd', 'link'); os.mkfifo('fifo'); os.mkdir('dir')\n"
            "open('huge', 'wb').truncate(30_000_000)",
        )
        for path in (
            "link",
            "fifo",
            "dir",
            "huge",
            "../../../etc/passwd",
            "/etc/passwd",
            "none",
            "",
        ):
            with pytest.raises(OSError):
                await session.read_file(path)
        for path in ("../outside", "/tmp/outside", "link", "dir"):
            with pytest.raises(OSError):
                await session.write_file(path, b"x")

    sandbox.use(work)


# -- calls ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_calls_of_one_session_wait_for_each_other_and_sessions_do_not(sandbox: Box) -> None:
    async def main() -> None:
        async with sandbox.tool.session() as one, sandbox.tool.session() as two:
            assert isinstance(one, PythonSession) and isinstance(two, PythonSession)
            slow = await begin(one, "import time\nx = 1\ntime.sleep(3600)")
            queued = asyncio.create_task(one.call({"code": "x"}, 60))
            assert await text(two, "2") == "2"
            assert not slow.done() and not queued.done()
            slow.cancel()
            assert (await queued).text == "1"

    sandbox.run(main())


@pytest.mark.parametrize(
    ("code", "kept"), [("import time; time.sleep(3600)", True), ("sum(range(10**13))", False)]
)
def test_a_cancelled_call_is_stopped_and_the_session_goes_on(
    sandbox: Box, code: str, kept: bool, request: pytest.FixtureRequest
) -> None:
    if kept:
        request.getfixturevalue("patient")

    async def work(session: PythonSession) -> None:
        await text(session, "x = 1")
        if not kept:  # nor may the interrupt come before the sum has begun
            deaf = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])"
            await text(session, deaf + "; None")
        call = await begin(session, code)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        after = await session.call({"code": "'x' in dir()"}, 60)
        assert after.text.endswith(str(kept)) and after.state_lost != kept

    sandbox.use(work)


def test_closing_in_the_middle_of_a_call_ends_it(sandbox: Box) -> None:
    async def main() -> None:
        async with sandbox.tool.session() as session:
            assert isinstance(session, PythonSession)
            call = await begin(session, "while True: pass")
        result = await call
        assert result.error is ErrorKind.UNAVAILABLE
        assert (await session.call({"code": "1"}, 60)).error is ErrorKind.UNAVAILABLE

    sandbox.run(main())


# -- the pool -------------------------------------------------------------------------------------


def test_many_sessions_at_once_and_the_counts(sandbox: Box) -> None:
    before = sandbox.tool.counts.sessions

    async def one(number: int) -> str:
        async with sandbox.tool.session() as session:
            return str((await session.call({"code": f"{number} * 2"}, 60)).text)

    async def main() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(60)))

    assert sandbox.run(main()) == [str(2 * number) for number in range(60)]
    assert sandbox.tool.counts.sessions == before + 60
    assert sandbox.tool.counts.calls > 60


def test_nothing_grows_with_the_number_of_sessions(sandbox: Box) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(ours())

    sandbox.cell("1")
    assert eventually(lambda: len(ours()) <= 2)
    before = held()
    for _ in range(40):
        sandbox.cell("import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)")
    assert eventually(lambda: held() <= before), (held(), before)
    assert eventually(lambda: "sleep 60" not in below().values())


def test_a_warm_session_never_keeps_the_only_place_from_the_session_it_is_for() -> None:
    async def main() -> None:
        async with PythonTool(sessions=1, warm=1, patience=20) as tool:
            for number in range(4):
                async with tool.session() as session:
                    result = await session.call({"code": f"{number} + 1"}, 60)
                    assert result.text == str(number + 1)
            assert (tool.counts.sessions, tool.counts.waits) == (4, 0)

    asyncio.run(main())


def test_sessions_are_served_in_the_order_in_which_they_came() -> None:
    served: list[int] = []

    async def one(tool: PythonTool, number: int) -> None:
        async with tool.session() as session:
            await session.call({"code": "1"}, 60)
            served.append(number)

    async def main() -> None:
        async with PythonTool(sessions=1) as tool:
            await asyncio.gather(*(one(tool, number) for number in range(8)))

    asyncio.run(main())
    assert served == list(range(8))


def test_a_full_pool_makes_sessions_wait_then_refuses() -> None:
    async def main() -> None:
        async with PythonTool(sessions=1, patience=0.3) as tool:
            async with tool.session() as one, tool.session() as two:
                assert (await one.call({"code": "1"}, 60)).ok
                refused = await two.call({"code": "2"}, 60)
                assert refused.error is ErrorKind.UNAVAILABLE
                assert "became free within 0.3 s" in refused.text
                assert isinstance(one, PythonSession)
                with pytest.raises(ToolUnavailable):
                    await one.fork()
            async with tool.session() as three:
                assert (await three.call({"code": "3"}, 60)).text == "3"
            assert (tool.counts.sessions, tool.counts.waits) == (2, 2)

    asyncio.run(main())


def test_when_the_zygote_dies_sessions_are_lost_and_new_ones_come() -> None:
    async def main() -> None:
        before = ours()
        async with PythonTool() as tool, tool.session() as session:
            await session.call({"code": "x = 1"}, 60)
            zygote = min(ours() - before)
            os.kill(zygote, signal.SIGKILL)
            assert isinstance(session, PythonSession) and session._slot is not None
            worker = session._slot.interpreter
            while worker is not None and worker.alive:  # until that is heard of
                await asyncio.sleep(0.02)
            lost = await session.call({"code": "'x' in dir()"}, 60)
            assert lost.text.endswith("False") and lost.state_lost, lost.text
            async with tool.session() as another:
                assert (await another.call({"code": "6 * 7"}, 60)).text == "42"

    asyncio.run(main())


@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_owner_is_killed_nothing_is_left(how: int, tier: str) -> None:
    program = f"""
    import asyncio, sys
    from interlace.tools import PythonTool
    async def main():
        async with PythonTool(isolation={tier!r}) as tool, tool.session() as s:
            await s.call({{"code": "import subprocess\\n"
                "subprocess.Popen(['sleep', '61'], start_new_session=True)"}}, 60)
            print("ready", flush=True)
            await s.call({{"code": "while True: pass"}}, 600)
    asyncio.run(main())
    """
    before = ours()
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"ready\n"
        assert len(ours() - before) >= 3
    finally:
        owner.send_signal(how)
        owner.wait()
        owner.stdout.close()
    assert eventually(lambda: ours() <= before), ours() - before
    assert eventually(lambda: "sleep 61" not in below().values())


@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier), "none"])
def test_after_the_tool_is_closed_nothing_is_left(
    tier: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A short path: sockets are bound in it by other tests.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    before = ours(), mounted(str(tmp_path)), len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        tool = PythonTool(isolation=tier)
        async with tool, tool.session() as session:
            assert isinstance(session, PythonSession)
            await text(session, "open('left', 'w').write('x'); x = 1")
            await session.fork()
            assert len(ours() - before[0]) >= 3

    asyncio.run(main())
    assert eventually(lambda: ours() == before[0]), ours()
    assert mounted(str(tmp_path)) == before[1]
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) <= before[2]


def test_settings_that_make_no_sense_are_refused() -> None:
    from interlace.tools.python import SessionLimits

    for wrong in ({"isolation": "some"}, {"sessions": 0}, {"limits": SessionLimits(memory=1)}):
        with pytest.raises(UsageError):
            PythonTool(**wrong)
    with pytest.raises(UsageError, match="or not at all"):
        PythonTool("jupyter", isolation="confined")


def test_modules_that_are_asked_for_are_there_at_once_or_the_tool_says_so() -> None:
    async def main(*modules: str) -> str:
        async with PythonTool(modules=modules) as tool, tool.session() as session:
            code = "import sys; 'fractions' in sys.modules, 'IPython' in sys.modules"
            return (await session.call({"code": code}, 60)).text

    assert asyncio.run(main("fractions")) == "(True, True)"
    with pytest.raises(ToolUnavailable, match="no_such_module"):
        asyncio.run(main("no_such_module"))

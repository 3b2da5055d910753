"""What leaves a session: signals, paths, datagrams, descriptors. Each trial is a process with a
group of its own, bounded in time and ended by its number; a bystander in it shows what was hit.
"""

import ast
import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.sandbox_fixtures import LIMITS, Box

from interlace.tools.python import PythonSession, processes
from interlace.tools.python.files import HeldFolder
from interlace.tools.python.jupyter.start import failure
from interlace.tools.python.sandbox import channel
from interlace.tools.python.walls import landlock, namespaces

TOOLS = Path(__file__).parents[2] / "tools"

TRIAL = """
import asyncio, json, subprocess, sys
from interlace.tools import PythonTool, Unforkable
from interlace.tools.errors import ToolUnavailable

async def trial(session):
{body}

async def main(backend, tier):
    try:
        async with PythonTool(backend, isolation=tier) as tool, tool.session() as session:
            return await trial(session)
    except ToolUnavailable as error:
        return {{"unavailable": str(error)}}

bystander = subprocess.Popen(["sleep", "600"])
try:
    said = asyncio.run(main(*sys.argv[1:3]))
    fields = open(f"/proc/{{bystander.pid}}/stat").read().rpartition(")")[2].split()
    print(json.dumps([fields[0], said]))
finally:
    bystander.kill()
    bystander.wait()
"""


def run_trial(body: str, backend: str, tier: str, root: bool = True, open_files: int = 1024) -> Any:
    """What the body of `trial` returns; the bystander has to be as it was."""

    def begin() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
        if not root:
            namespaces.new_user_namespace(1000)

    process = subprocess.Popen(
        [sys.executable, "-c", TRIAL.format(body=textwrap.indent(body, "    ")), backend, tier],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        preexec_fn=begin,
    )
    try:
        said = process.communicate(timeout=55)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0
    state, result = json.loads(said)
    assert state == "S"
    if isinstance(result, dict) and "unavailable" in result:
        pytest.skip(result["unavailable"])
    return result


@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
@pytest.mark.parametrize("name", [rb"\x9f\xe2", rb")\nPPid:\t1\n", rb"\x1cPPid:\t1\x1cNSpid: 1"])
def test_a_process_may_call_itself_what_it_likes(tier: str, name: bytes) -> None:
    body = f"""
code = "import ctypes; ctypes.CDLL(None).prctl(15, b'{name.decode()}', 0, 0, 0)"
await session.call({{"code": code}}, 10)
copy = await session.fork()
said = [(await each.call({{"code": "6 * 7"}}, 10)).text for each in (copy, session)]
await copy.close()
return said
"""
    assert run_trial(body.replace("\\", "\\\\"), "sandbox", tier) == ["42", "42"]


ATTACK = """
import resource
def stopped(attempt):
    try:
        attempt()
    except OSError:
        return True
attempts = [lambda: os.kill(-1, signal.SIGKILL)]
for each in others:
    attempts += [
        lambda each=each: os.kill(each, signal.SIGSTOP),
        lambda each=each: os.killpg(each, signal.SIGKILL),
        lambda each=each: signal.pidfd_send_signal(os.pidfd_open(each), signal.SIGKILL),
        lambda each=each: resource.prlimit(each, resource.RLIMIT_NOFILE, (9, 9)),
    ]
child = os.fork()
if not child:
    signal.pause()
os.kill(child, signal.SIGKILL)
[stopped(attempt) for attempt in attempts].count(True), len(attempts), os.waitpid(child, 0)[1]
"""


@pytest.mark.skipif(landlock.abi() < 6, reason="Landlock holds signals from Linux 6.12 on")
@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
def test_a_copy_ends_nobody_but_itself(tier: str) -> None:
    body = f"""
await session.call({{"code": "import os, signal; trunk = os.getpid()"}}, 10)
sibling, copy = await session.fork(), await session.fork()
other = (await sibling.call({{"code": "os.getpid()"}}, 10)).text
attack = f"others = trunk, {{other}}" + {ATTACK!r}
said = [(await copy.call({{"code": attack}}, 10)).text]
for each in (session, sibling):
    said.append((await each.call({{"code": "6 * 7"}}, 10)).text)
await sibling.close()
await copy.close()
return said
"""
    said = run_trial(body, "sandbox", tier)
    # A signal to all goes to those that may be reached: to its own child at most.
    assert said[0] in ("(9, 9, 9)", "(8, 9, 9)")
    assert said[1:] == ["42", "42"]


def test_no_signal_is_sent_to_a_process_that_is_not_a_guest() -> None:
    for number in (0, -1, 1, os.getpid()):
        assert not processes.signal_process(number, signal.SIGCONT)
    for group in (0, -1, 1, os.getpgrp()):
        assert not processes.signal_group(group, signal.SIGCONT)
    processes.end_trees([0, -1, 1])


def test_signals_by_number_are_sent_from_one_place() -> None:
    allowed = {
        "processes.py",
        "enclosed.py",  # ends itself as its child ended
        "self_test.py",  # a trial process tries to get out
        "probe.py",
    }
    for path in TOOLS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("kill", "killpg"):
                assert ast.unparse(node.value) != "os" or path.name in allowed, path


def test_without_root_files_stay_in_the_session(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "diary").write_text("secret")
    home_name = repr(str(home))
    body = f"""
code = "import os; os.chdir('/session'); os.rename('work', 'was'); os.symlink({home_name}, 'work')"
moved = await session.call({{"code": code}}, 30)
try:
    read = (await session.read_file("diary")).decode()
except OSError as error:
    read = type(error).__name__
try:
    await session.write_file("new", b"x")
except OSError:
    pass
return [moved.ok, read, (await session.call({{"code": "6 * 7"}}, 30)).text]
"""
    try:
        said = run_trial(body, "jupyter", "full", root=False)
    except subprocess.SubprocessError:
        pytest.skip("users may not make namespaces here")
    assert said == [True, "FileNotFoundError", "42"]
    assert os.listdir(home) == ["diary"]


def test_why_a_kernel_failed_is_read_from_its_own_folder_alone(tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "k"
    secret.write_text("secret")
    folder.mkdir()
    held = HeldFolder(folder)
    assert failure(held) == ""
    (folder / "failure").symlink_to(secret)
    assert failure(held) == ""
    (folder / "failure").unlink()
    os.mkfifo(folder / "failure")
    assert failure(held) == ""
    (folder / "failure").unlink()
    (folder / "failure").write_bytes(b"Traceback:\nOSError: \xff" + b"x" * 10_000)
    assert failure(held).startswith("OSError: \N{REPLACEMENT CHARACTER}xxx")
    assert len(failure(held)) == 300


@contextmanager
def datagrams() -> Iterator[tuple[str, list[bytes]]]:
    """A server for datagrams that everybody may reach by its name, and what came."""
    came: list[bytes] = []
    folder = tempfile.mkdtemp(dir="/tmp")
    os.chmod(folder, 0o755)
    path = f"{folder}/log"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(path)
            os.chmod(path, 0o777)
            server.setblocking(False)
            yield path, came
            try:
                while True:
                    came.append(server.recv(100))
            except BlockingIOError:
                pass
    finally:
        shutil.rmtree(folder)


def test_no_datagram_leaves_by_name(box: Box) -> None:
    code = """
import socket
def pair(kind):
    try: return socket.socketpair(socket.AF_UNIX, kind)[0]
    except OSError: return None
for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    for flags in (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC):
        one = pair(kind | flags)
        for send in (
            lambda: one.sendto(b'sendto', {path!r}),
            lambda: one.sendmsg([b'sendmsg'], [], 0, {path!r}),
            lambda: (one.connect({path!r}), one.send(b'connect')),
        ):
            try: send()
            except (OSError, AttributeError): pass
"""
    with datagrams() as (path, came):
        result = box.cell(code.format(path=path))
        assert result.ok, result.text
    assert came == []


def test_pairs_of_sockets_work_and_do_nothing_else(box: Box) -> None:
    code = """
import asyncio, fcntl, os, socket, struct, subprocess
one, two = socket.socketpair()
one.sendall(b'x')
worked = [two.recv(9)]
async def program():
    made = await asyncio.create_subprocess_exec('echo', 'y', stdout=subprocess.PIPE)
    return (await made.communicate())[0]
worked.append(await program())
def refused(what):
    try: what()
    except OSError: return True
    return False
asks = [
    lambda: one.bind('\\0interlace-user-1879048192'),
    lambda: socket.socketpair()[0].listen(),
    lambda: fcntl.ioctl(one, 0x8910, struct.pack('16si236x', b'', 2)),
    lambda: fcntl.ioctl(one, 0x8927, struct.pack('256s', b'eth0')),
    lambda: fcntl.fcntl(os.open('/usr/bin/env', os.O_RDONLY), 1024, 1),
    lambda: fcntl.fcntl(os.open('/usr/bin', os.O_RDONLY), 1026, 1),
]
one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 30))
lingers = struct.unpack('ii', one.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
worked, [refused(ask) for ask in asks], lingers
"""
    said = box.cell(code).text
    at_once = "[True, True, True, True, True, True]"
    first = at_once if box.tier == "confined" else "[False, True, True, True, True, True]"
    assert said == f"([b'x', b'y\\n'], {first}, (0, 0))"


LINGER = """
import os, socket, struct, time
channel = socket.socket(fileno=os.dup(3))
channel.send((1_000_000).to_bytes(4, 'big'))  # a message that never ends
server = socket.create_server(('127.0.0.1', 0))
others = []
for _ in range(10):  # with one the owner might be so fast that the last close is ours
    one = socket.create_connection(server.getsockname())
    others.append(server.accept())
    one.setblocking(False)
    try:
        while True: one.send(bytes(1 << 16))
    except BlockingIOError: pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 20))
    first, second = socket.socketpair()
    socket.send_fds(first, [b'x'], [one.fileno()])
    one.close()
    try: socket.send_fds(channel, [b' '], [second.fileno()])
    except OSError: pass
    second.close(); first.close()
time.sleep(1)
"""


@pytest.mark.parametrize("option", [channel.SO_PASSRIGHTS, 9999], ids=["refused", "old kernel"])
def test_no_descriptor_that_is_sent_stops_the_owner(
    sandbox: Box, option: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets that linger for 20 s each, closed by whoever gets them last."""
    monkeypatch.setattr(channel, "SO_PASSRIGHTS", option)
    beats = [time.monotonic()]

    async def beat() -> None:
        while True:
            await asyncio.sleep(0.02)
            beats.append(time.monotonic())

    async def work(session: PythonSession) -> str:
        beating = asyncio.create_task(beat())
        try:
            await session.call({"code": LINGER}, 4)
            return (await session.call({"code": "6 * 7"}, 30)).text
        finally:
            beating.cancel()
            beats.append(time.monotonic())

    assert sandbox.use(work) == "42"
    assert max(after - before for before, after in pairwise(beats)) < 10


SEND_DESCRIPTORS = """
import os, resource, socket
one, two = socket.socketpair()
file, limit = os.open('/dev/null', os.O_RDONLY), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
sent = 0
try:
    for count in (limit // 2, limit - limit // 2, 253, 1):  # 253 are the most in one message
        socket.send_fds(one, [b'x'], [file] * count)
        sent += count
except OSError as error: print(error.strerror)
sent
"""
"""Descriptors inside messages, that nobody has open."""


def test_descriptors_inside_messages_are_bounded(box: Box) -> None:
    said, count = box.cell(SEND_DESCRIPTORS).text.splitlines()
    assert said == "Too many references: cannot splice"
    assert 32 <= int(count) <= LIMITS.open_files + 253


@pytest.mark.parametrize("tier", ["full", pytest.param("confined", marks=pytest.mark.tier)])
@pytest.mark.parametrize("open_files", [400, 200])
def test_descriptors_inside_messages_leave_the_owner_its_own(tier: str, open_files: int) -> None:
    body = f"""
await session.call({{"code": "x = 42"}}, 30)
tool = session._tool
async with tool.session() as hostile:
    said = [(await hostile.call({{"code": {SEND_DESCRIPTORS!r}}}, 30)).text]
    try:  # descriptors are sent for a copy and for a session
        copy = await session.fork()
        said.append((await copy.call({{"code": "x"}}, 30)).text)
        await copy.close()
        async with tool.session() as late:
            said.append((await late.call({{"code": "6 * 7"}}, 30)).text)
    except (ToolUnavailable, Unforkable) as error:
        said.append(str(error))
        assert not session._slot.interpreter.busy  # or what it left would run on
    said.append((await session.call({{"code": "x"}}, 30)).text)
return said
"""
    try:
        said = run_trial(body, "sandbox", tier, root=False, open_files=open_files)
    except subprocess.SubprocessError:
        pytest.skip("users may not make namespaces here")
    assert said[0].startswith("Too many references")
    if open_files == 400:
        assert said[1:] == ["42", "42", "42"]
    else:  # so few that none can be set apart: but nobody else is harmed
        assert "no descriptors can be sent" in said[1] and said[2:] == ["42"]


def test_what_takes_as_long_as_there_are_files_is_done_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from interlace.tools import PythonTool
    from interlace.tools.python import files, folders, pool

    threads: list[bool] = []

    def remove(path: Any) -> None:
        threads.append(asyncio._get_running_loop() is None)
        files.remove_tree(path)

    for module in (folders, pool):
        monkeypatch.setattr(module, "remove_tree", remove)

    async def main() -> None:
        async with PythonTool() as tool, tool.session() as session:
            await session.call({"code": "1"}, 30)

    asyncio.run(main())
    assert threads and all(threads)

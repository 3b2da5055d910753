"""Whatever a session's processes send, their owner serves on: random scripts, played for real.

A guest plays each script on the real channel, in place of an answer, while a neighbouring session
works. Owner and neighbour must not notice: no exception, nothing blamed on the owner, each of the
neighbour's answers right.
"""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sandbox_fixtures import Box

from interlace.tools import ErrorKind, PythonTool, ToolResult, Unforkable
from interlace.tools.base import ToolSession
from interlace.tools.errors import ToolUnavailable
from interlace.tools.python import PythonSession
from interlace.tools.python.sandbox.owner import RemoteZygote, SandboxSession
from interlace.tools.python.walls.walls import Walls

SEEDED = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# -- what is sent: JSON of any kind, and what is no JSON ---------------------------------------

WORDS = st.text(max_size=12) | st.sampled_from(
    ["", "\ud800", "\0", "\x1b[2J", "\x1b]0;", "\r\b\n", "é" * 50, "iVBORw0KGgo=", "9" * 5_000]
)
NUMBERS = (
    st.integers(-9, 9)
    | st.floats()
    | st.sampled_from([2**63, -(2**31), 10**400, float("nan"), float("inf"), -0.0])
)
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
KEYS = WORDS | st.sampled_from(
    ["text", "data", "error", "wait", "failed", "refused", "text/plain", "image/png", "text/html"]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["stream", "display_data", "execute_result", "clear_output", "page", "done", "hello", "failed"]
)
DATA = st.dictionaries(
    st.sampled_from(
        ["text/plain", "text/html", "image/png", "application/pdf", "application/json"]
    ),
    VALUES,
    max_size=3,
)
CONTENTS = (
    VALUES
    | st.fixed_dictionaries({"data": DATA | VALUES})
    | st.fixed_dictionaries({"text": VALUES, "wait": VALUES})
    | st.fixed_dictionaries({"error": st.lists(VALUES, max_size=3) | VALUES})
    | st.fixed_dictionaries({"refused": VALUES, "failed": VALUES})
)


def step(name: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *parts)


HEX = st.binary(max_size=30).map(bytes.hex)
SIMPLE = st.one_of(
    step("message", KINDS, CONTENTS),
    step("message", KINDS, CONTENTS),
    step("stranger", KINDS, CONTENTS, VALUES),
    step("json", VALUES),
    step("nested", KINDS, st.sampled_from(["text", "data", "error"]), st.integers(1, 1_500)),
    step("sized", st.sampled_from([0, 1, 5, 15_999_999, 16_000_001, 2**32 - 1]), HEX),
    step("raw", HEX),
    step("text", HEX),
    step("mark"),
    step("half mark", st.integers(1, 16)),
    step("steal", st.integers(1, 70_000)),
    step("descriptor", st.sampled_from(["pipe", "socket", "file", "folder", "channel", "self"])),
)
ENDS = st.one_of(
    step("go on"),
    step("answer twice"),
    step("exit"),
    step("shut", st.integers(0, 2)),
    step("close", st.integers(0, 4)),
)
SCRIPTS = st.tuples(
    st.lists(
        SIMPLE | step("drip", SIMPLE) | step("flood", st.sampled_from([30, 1_000]), SIMPLE),
        max_size=6,
    ),
    ENDS,
).map(lambda parts: [*parts[0], parts[1]])

PLAYER = r"""
import json, os, socket, struct
worker = get_ipython().sink
def out(fd, data):
    while data: data = data[os.write(fd, data[:262_144]):]

def sent(step):  # where to, and what
    name, *of = step
    if name == 'message':
        body = {'kind': of[0], 'id': worker._id, 'content': of[1]}
    elif name == 'stranger':
        body = {'kind': of[0], 'id': of[2], 'content': of[1]}
    elif name == 'json':
        body = of[0]
    elif name == 'nested':
        inner = '[' * of[2] + ']' * of[2]
        if of[1] == 'data': inner = f'{{"text/plain": {inner}}}'
        if of[1] == 'error': inner = f'["E", {inner}]'
        text = f'{{"kind": "{of[0]}", "id": "{worker._id}", "content": {{"{of[1]}": {inner}}}}}'
        return 3, struct.pack('>I', len(text)) + text.encode()
    elif name == 'sized':
        return 3, struct.pack('>I', of[0]) + bytes.fromhex(of[1])
    elif name in ('raw', 'text'):
        return (3 if name == 'raw' else 4), bytes.fromhex(of[0])
    elif name == 'mark':
        return 4, worker._mark
    elif name == 'half mark':
        return 4, worker._mark[:of[0]]
    else:
        return None
    data = json.dumps(body).encode()
    return 3, struct.pack('>I', len(data)) + data

def descriptor(kind):
    if kind == 'pipe': return os.pipe()[1]
    if kind == 'socket': return socket.socketpair()[0].detach()
    if kind == 'file': return os.open('passed', os.O_CREAT | os.O_RDWR)
    if kind == 'folder': return os.open('.', os.O_RDONLY)
    return 3 if kind == 'channel' else os.open('/proc/self/stat', os.O_RDONLY)

def play(script, answer):
    for step in script:
        name, *of = step
        if name == 'exit': os._exit(0)
        elif name == 'answer twice': answer()
        elif name == 'shut': socket.socket(fileno=os.dup(3)).shutdown(of[0])
        elif name == 'close': os.close(of[0])
        elif name == 'steal':
            try: socket.socket(fileno=os.dup(3)).recv(of[0], socket.MSG_DONTWAIT)
            except OSError: pass
        elif name == 'descriptor':
            try: socket.send_fds(socket.socket(fileno=os.dup(3)), [b'\0'], [descriptor(of[0])] * 3)
            except OSError: pass
        elif name == 'drip' and sent(of[0]):
            to, data = sent(of[0])
            for n in range(len(data)): os.write(to, data[n:n + 1])
        elif name == 'flood' and sent(of[1]):
            to, data = sent(of[1])
            out(to, data * of[0])
        elif sent(step): out(*sent(step))
    answer()

def arm(verb, script):
    kept = {name: getattr(worker, name) for name in ('_run', '_answer', '_fork', '_become_branch')}
    def armed(*asked):
        for name in kept: setattr(worker, name, kept[name])
        if verb == '_become_branch':
            for fd, to in zip(asked, (3, 4)): os.dup2(fd, to)
            play(script, lambda: os._exit(0))
        play(script, lambda: kept[verb](*asked))
        inner = [step[-1] if step[0] in ('drip', 'flood') else step for step in script]
        if verb != '_run' and {'sized', 'raw', 'descriptor'} & {step[0] for step in inner}:
            os._exit(0)  # no answer can be read after these: the owner would wait for a minute
    setattr(worker, verb, armed)
"""
VERBS: dict[str, Callable[[PythonSession], Awaitable[object]]] = {
    "_run": lambda session: session.call({"code": "print('mine')\n6 * 7"}, 1.0),
    "_answer": lambda session: session.read_file("any"),
    "_fork": lambda session: copied(session),
    "_become_branch": lambda session: copied(session),
}


async def copied(session: PythonSession) -> None:
    copy = await session.fork()
    await copy.close()


@contextmanager
def nothing_raised(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """No callback or task of the owner's may end with an exception nobody sees."""
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        yield
    finally:
        loop.set_exception_handler(None)
    assert seen == []


async def counted(session: ToolSession, done: Callable[[], bool]) -> int:
    """How many calls a neighbour was served until something is done: each with its own answer."""
    served = 0
    while served < 2 or not done():
        served += 1
        result = await session.call({"code": f"print({served})"}, 600)
        assert (result.text, result.error) == (str(served), None)
    return served


async def attack(tool: PythonTool, verb: str, script: list[Any]) -> None:
    """Play a script in place of the answer to a request, and see what the owner makes of it."""
    async with tool.session() as neighbour, tool.session() as opened:
        session = cast(PythonSession, opened)
        armed = f"{PLAYER}\narm({verb!r}, json.loads({json.dumps(script)!r}))"
        assert (await session.call({"code": armed}, 600)).ok
        asked = asyncio.ensure_future(VERBS[verb](session))
        working = asyncio.create_task(counted(neighbour, asked.done))
        try:
            answer = await asked
        except (OSError, Unforkable):  # as their documentation says
            answer = None
            assert verb != "_run"
        assert await working >= 2
        if isinstance(answer, ToolResult):
            assert answer.error is not ErrorKind.UNAVAILABLE, answer.text
            assert answer.text.encode() and len(answer.text) < 250_000
        after = await session.call({"code": "6 * 7"}, 5)
        assert after.error is not ErrorKind.UNAVAILABLE, after.text
        last = await session.call({"code": "import os; os.getpid() > 0"}, 600)
        assert last.text.endswith("True") or last.error is ErrorKind.DIED, last.text


@pytest.mark.parametrize("verb", VERBS)
def test_no_script_of_a_guest_is_noticed_by_owner_or_neighbour(
    sandbox: Box, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlace.tools.python.tool.GRACE_SECONDS", 0.1)
    examples = int(os.environ.get("FUZZ_EXAMPLES", "25"))

    @settings(SEEDED, max_examples=examples)
    @given(SCRIPTS)
    def play(script: list[Any]) -> None:
        async def main() -> None:
            with nothing_raised(asyncio.get_running_loop()):
                await attack(sandbox.tool, verb, script)

        sandbox.run(main())

    play()


def test_a_copy_that_ends_without_a_word_is_refused_at_once(
    sandbox: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlace.tools.python.sandbox.remote.ANSWER_SECONDS", 3_600)

    async def work(session: PythonSession) -> None:
        await session.call({"code": f"{PLAYER}\narm('_become_branch', [('exit',)])"}, 60)
        with pytest.raises(Unforkable, match="ended at once"):
            await asyncio.wait_for(session.fork(), 300)  # or it would be waited for for an hour
        assert (await session.call({"code": "6 * 7"}, 60)).text == "42"

    sandbox.use(work)


FLOODS = {
    "text": "while True: os.write(4, b'x' * 60_000)",
    "beginnings of marks": "while True: os.write(4, (worker._mark[:-1] + b'x') * 3_000)",
    "lines": "while True: print('x')",
    "escapes": r"while True: os.write(4, b'\x1b]\x1b[\r\b' * 10_000)",
    "drip": "while True: os.write(4, b'x')",
    "afterwards": "import threading\n"
    "def flood():\n"
    "    while True: os.write(4, b'x' * 60_000)\n"
    "threading.Thread(target=flood, daemon=True).start()",
    "replies afterwards": "import threading\nmark, number = worker._mark, worker._id\n"
    "def flood():\n"
    "    while True: os.write(4, mark + b'x' * 1_000)\n"
    "threading.Thread(target=flood, daemon=True).start()",
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_neighbour_is_served_through_a_flood_without_end(sandbox: Box, flood: str) -> None:
    """Fifty answers to a neighbour, while the flood goes on."""

    async def work(session: PythonSession) -> None:
        async with sandbox.tool.session() as neighbour:
            assert (await neighbour.call({"code": "1"}, 600)).ok
            code = f"{PLAYER}\n{FLOODS[flood]}"
            flooding = asyncio.create_task(session.call({"code": code}, 3_600))
            if "afterwards" in flood:
                assert (await flooding).ok
            served = iter(range(1, 51))
            assert await counted(neighbour, lambda: next(served, None) is None) >= 50
            assert "afterwards" in flood or not flooding.done(), flooding.result().text
            flooding.cancel()
            await asyncio.wait({flooding})

    sandbox.use(work)


# -- the links to a supervisor and to the zygote --------------------------------------------------

PACKETS = (
    st.binary(min_size=1, max_size=60)
    | st.builds(lambda value: json.dumps(value).encode(), VALUES)
    | st.builds(
        lambda pid, status: json.dumps({"ended": pid, "status": status}).encode(), VALUES, VALUES
    )
    | st.builds(lambda said: json.dumps({"failed": said}).encode(), VALUES)
    # No number: it would be that of a process of this machine.
    | st.builds(
        lambda said: json.dumps({"supervisor": said}).encode(),
        VALUES.filter(lambda value: not isinstance(value, int) or not 1 < value < 2**31),
    )
    | st.integers(1, 100_000).map(lambda depth: b"[" * depth)
)


WALLS = Walls("full", (), "", 10**9, 40, 10**7, 100, 100, 1_000, own_user=False)


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, which does nothing."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as started:
        try:
            yield started
        finally:
            started.kill()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@settings(SEEDED, max_examples=100)
@given(st.lists(PACKETS, max_size=5))
def test_no_report_of_a_supervisor_makes_its_owner_raise(packets: list[bytes]) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with nothing_raised(asyncio.get_running_loop()), theirs, process() as supervisor:
            session = SandboxSession(ours, supervisor.pid, WALLS)
            starting = asyncio.create_task(session.worker("work"))
            await turns()
            for packet in packets:
                with suppress(OSError):
                    theirs.send(packet)
                await turns()
            theirs.close()
            with pytest.raises(ToolUnavailable) as why:
                await starting
            assert len(str(why.value)) < 500 and str(why.value).isprintable()
            session.close()

    asyncio.run(main())


@settings(SEEDED, max_examples=100)
@given(st.lists(PACKETS, min_size=1, max_size=3))
def test_no_answer_of_a_zygote_makes_its_owner_raise(packets: list[bytes]) -> None:
    async def main(folder: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with nothing_raised(asyncio.get_running_loop()), theirs, process() as started:
            zygote = RemoteZygote(started, ours)
            for packet in packets:
                asked = asyncio.create_task(zygote.session(WALLS, os.getuid(), folder))
                await turns()
                theirs.send(packet)
                with pytest.raises(ToolUnavailable):
                    await asked
            zygote.close()

    asyncio.run(main(Path("/nowhere")))


# -- the sockets of a kernel ----------------------------------------------------------------------

KERNEL_KINDS = st.sampled_from(
    ["stream", "display_data", "execute_result", "error", "status", "execute_reply", "alien"]
)
KERNEL_CONTENTS = (
    CONTENTS
    | st.fixed_dictionaries({"execution_state": VALUES | st.just("idle"), "status": VALUES})
    | st.fixed_dictionaries({"ename": VALUES, "evalue": VALUES, "traceback": VALUES})
    | st.fixed_dictionaries({"payload": VALUES, "status": st.sampled_from(["ok", "error"])})
    | st.fixed_dictionaries(
        {"payload": st.lists(st.fixed_dictionaries({"source": st.just("page"), "data": VALUES}))}
    )
)
KERNEL_SCRIPTS = st.lists(
    step("reply", KERNEL_KINDS, KERNEL_CONTENTS)
    | step("show", KERNEL_KINDS, KERNEL_CONTENTS)
    | step("headers", VALUES, VALUES, VALUES)
    | step("parts", st.lists(HEX, max_size=6)),
    max_size=5,
)
KERNEL_PLAYER = """
import json, os
kernel = get_ipython().kernel
parent, session, iopub = kernel.get_parent(), kernel.session, kernel.iopub_socket
shell = kernel.shell_stream
for name, *of in script:
    if name == 'show':
        session.send(iopub, of[0], content=of[1], parent=parent)
    elif name == 'reply':
        asker = kernel._parent_ident['shell']
        session.send(shell, of[0], content=of[1], parent=parent, ident=asker)
    elif name == 'headers':
        parts = [json.dumps(part).encode() for part in (*of, {})]
        iopub.send_multipart([b'x', b'<IDS|MSG>', session.sign(parts), *parts])
    else:
        iopub.send_multipart([bytes.fromhex(part) for part in of[0]] or [b''])
print('mine')
"""


def test_no_message_of_a_kernel_is_noticed_by_owner_or_neighbour() -> None:
    async def attack(tool: PythonTool, script: list[Any]) -> None:
        async with tool.session() as session, tool.session() as neighbour:
            code = f"import json\nscript = json.loads({json.dumps(script)!r})\n{KERNEL_PLAYER}"
            asked = asyncio.ensure_future(session.call({"code": code}, 60))
            assert await counted(neighbour, asked.done) >= 2
            assert script or (await asked).text == "mine"
            for result in (await asked, await session.call({"code": "6 * 7"}, 60)):
                assert result.error is not ErrorKind.UNAVAILABLE, result.text
                assert result.text.encode()
            last = await session.call({"code": "'la' + 'st'"}, 60)
            assert "last" in last.text or last.error is ErrorKind.DIED, last.text

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        tool = PythonTool("jupyter", warm=2)
        runner.run(tool.__aenter__())

        @settings(SEEDED, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "25")) // 3)
        @given(KERNEL_SCRIPTS)
        def play(script: list[Any]) -> None:
            with nothing_raised(loop):
                runner.run(attack(tool, script))

        try:
            play()
        finally:
            runner.run(tool.__aexit__())

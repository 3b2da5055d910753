"""Code that breaks its own session is scored, and gets no fresh try: through the real runner."""

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.fakes import NANO, Echo, code
from support.sandbox_fixtures import LIMITS

from interlace.rollout.engines.base import Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import FunctionTool, PythonTool, SearchTool, SqlTool, Tool
from interlace.tools.errors import ToolUnavailable
from interlace.train.rewards.checker import Checker

END = "os._exit(0)"
HERE = "import os; here = os.getcwd(); os.chdir('/')\n"
BREAKS = {
    "file": f"{HERE}os.rename(here, here + 'x'); open(here, 'w').close(); {END}",
    "link": f"{HERE}os.rename(here, here + 'x'); os.symlink('/usr', here); {END}",
    "closed": f"{HERE}os.chmod(here, 0); {END}",
    "gone": f"{HERE}os.rmdir(here); os.chmod(os.path.dirname(here), 0o500); {END}",
    "above": f"{HERE}os.chmod(os.path.dirname(here), 0); {END}",
    "full": f"{HERE}f = open(here + '/f', 'wb')\n"
    f"try:\n  while True: f.write(bytes(1 << 20)); f.flush()\nexcept OSError: {END}",
    "unknown signal": "import os; os.kill(os.getpid(), 40)",
    "name": "import os, ctypes; ctypes.CDLL(None).prctl(15, b'\\x9f\\n)PPid:', 0, 0, 0)\n" + END,
}
KERNELS = {
    "odd error": """
kernel = get_ipython().kernel
for content in ({"ename": 1, "evalue": [], "traceback": 5}, {"traceback": None}):
    kernel.session.send(kernel.iopub_socket, "error", content, parent=kernel.get_parent())
""",
    "shadow": "import os; open('ipykernel.py', 'w').write('import os; os._exit(3)'); " + END,
}
TRIALS = [
    *(("sandbox", tier, each) for tier in ("full", "confined") for each in BREAKS.values()),
    *(("jupyter", "full", each) for each in (*BREAKS.values(), *KERNELS.values())),
]


SPIN = "sh', '-c', 'while :; do :; done"
HOSTILE = {
    "kills all": "import os; os.kill(-1, 9)",
    "programs left": f"import subprocess\n"
    f"for _ in range(20): subprocess.Popen(['{SPIN}'], start_new_session=True)",
    "first thread ends": """
import ctypes, os, platform, threading, time
for _ in range(12):
    if os.fork() == 0:
        threading.Thread(target=lambda: (bytearray(70_000_000), time.sleep(60))).start()
        time.sleep(0.1)
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
time.sleep(2)
""",
    "datagram": """
import socket
one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for name in ("/dev/log", "/run/systemd/journal/socket"): one.sendto(b"x", name)
""",
    "linger": """
import os, socket, struct
channel = socket.socket(fileno=os.dup(3))
server = socket.create_server(("127.0.0.1", 0))
one, first = socket.create_connection(server.getsockname()), socket.socketpair()
one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
socket.send_fds(first[0], [b"x"], [one.fileno()])
socket.send_fds(channel, [b" "], [first[1].fileno()])
os._exit(0)
""",
    "no name": """
import os, time
kept = []
for n in range(20):
    kept.append(open(f"part{n}", "wb")); os.unlink(f"part{n}")
    kept[-1].write(bytes(5_000_000)); kept[-1].flush()
time.sleep(2)
""",
    "nobody accepts": """
import socket, time
kept = []
for n in range(60):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(f"\\0listener-{n}"); kept[-1].listen(4096)
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(f"\\0listener-{n}")
            while True: client.send(bytes(60_000))
        except BlockingIOError:
            try: client.getpeername()
            except OSError: break
        finally: client.close()
time.sleep(2)
""",
    "forged": "import os; os.write(3, b'\\xff' * 1000)",
}
"""The attacks of which others would feel something, each from within an episode."""
HONEST = "total = 0\nfor n in range(2_000_000): total += n"


def roll(
    tool: PythonTool, breaks: list[str], concurrency: int = 4
) -> tuple[list[Episode], list[int], Runner]:
    """Each breaks its session, runs one more cell, and answers with what that gave and 1 more; if
    its code is honest, with what that gave.
    """
    tokenizer = Tokenizer.load(NANO)
    asked = [0] * len(breaks)

    def script(request: Request) -> Reply:
        context = tokenizer.decode(request.ids)
        number = int(re.findall(r"trial (\d+)", context)[-1])
        asked[number] += 1
        said = context.rpartition("trial")[2].count("</interpreter>")
        if said < 2:
            return code(breaks[number] if said == 0 else "6 * 7")
        found = re.findall(r"<interpreter>\n(.*?)\n</interpreter>", context, re.DOTALL)[-1]
        wrong = "" if breaks[number] == HONEST else "1"
        return f"<answer>\\boxed{{{found.splitlines()[-1]}{wrong}}}</answer>"

    policy = Policy(ScriptedEngine(tokenizer, script), FORMATS["retool"], [tool])
    tasks = [Task(str(n), f"trial {n}", "42") for n in range(len(breaks))]
    runner = Runner(policy, retries=2, concurrency=concurrency)

    async def go() -> list[Episode]:
        async with tool:
            return [episode async for episode in runner.run(tasks)]

    episodes = asyncio.run(go())
    return sorted(episodes, key=lambda each: int(each.task.id)), asked, runner


@pytest.mark.parametrize(
    ("backend", "tier"),
    [
        ("sandbox", "full"),
        pytest.param("sandbox", "confined", marks=pytest.mark.tier),
        ("jupyter", "full"),
    ],
)
def test_code_that_breaks_its_own_session_is_scored_and_gets_no_fresh_try(
    backend: str, tier: str
) -> None:
    breaks = [each for kind, walls, each in TRIALS if (kind, walls) == (backend, tier)]
    try:
        episodes, asked, runner = roll(PythonTool(backend, isolation=tier), breaks)
    except ToolUnavailable as error:
        pytest.skip(str(error))
    with Checker() as checker:
        for episode, text, times in zip(episodes, breaks, asked, strict=True):
            outputs = [call.output for call in episode.trajectory.calls]
            assert episode.stop is StopReason.ANSWERED, (text, episode.error, outputs)
            assert episode.answer == "421", (text, outputs)
            assert checker.sign(episode, episode.task) == -1.0
            assert times == 3, text
    assert runner.metrics.figures()["retried"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "tier"), [("sandbox", "full"), ("sandbox", "confined"), ("jupyter", "full")]
)
def test_hostile_episodes_are_scored_and_change_no_neighbours_outcome(
    backend: str, tier: str
) -> None:
    """All at once: each attack, and an honest episode beside each."""
    codes = [each for attack in HOSTILE.values() for each in (attack, HONEST)]
    try:
        tool = PythonTool(backend, isolation=tier, limits=LIMITS)
        episodes, asked, runner = roll(tool, codes, len(codes))
    except ToolUnavailable as error:
        pytest.skip(str(error))
    with Checker() as checker:
        for episode, text, times in zip(episodes, codes, asked, strict=True):
            outputs = [call.output for call in episode.trajectory.calls]
            assert episode.stop is StopReason.ANSWERED, (text, episode.error, outputs)
            sign = checker.sign(episode, episode.task)
            assert (sign, times) == (1.0 if text == HONEST else -1.0, 3), (text, outputs)
            if text == HONEST:
                assert all(call.error is None for call in episode.trajectory.calls), outputs
    assert runner.metrics.figures()["retried"] == 0


VALUES = [
    '"\\ud800"', '"\\u0000"', '"\\uffff\\ufffe"', '""', "null", "true", "[]", "{}", "NaN", "1e400",
    "-1e400", "9" * 400, "9" * 5000, "[" * 5000,
    '"' + "x" * 100_000 + '"', '"select ' + "(" * 3000 + '"',
    '"select randomblob(1e9)"', '"select zeroblob(2147483647)"', '"select char(0xD800)"',
    '"select cast(x\'ff\' as text)"', '"select 9e999, -9e999, 9e999 - 9e999"', '"vacuum"',
    '"begin"',
    '"select printf(\'%.*c\', 2000000000, \'x\')"', '"\\ufeffselect 1; select 2"',
]  # fmt: skip
TEXTS = [
    *("<tool_call>" * 500, "<code>" * 500, "<think>" * 500, "<answer>" * 500, "```python\n" * 500),
    *("{" * 20_000, "[" * 20_000, "\\boxed{" * 5_000, "</tool_call><tool_response>" * 100),
    *("<tool_call>[1, 2]</tool_call>", "<tool_call>5</tool_call>", "\0\u2028\ufffd" * 50),
    "<tool_call>" + "[" * 20_000 + "</tool_call>",
]


def add(x: int, y: float = 1.0, names: list[str] | None = None) -> str:
    """Adds two numbers."""
    return str(x + y) + "".join(names or ())


def test_no_text_of_a_model_is_our_failure(tmp_path: Path) -> None:
    """Arguments that tools can't take, queries that bring databases down, and tags without end."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as made:
        made.execute("create table t(a)")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.txt").write_text("A bolt.")
    slots = [("python", "code"), ("sql", "query"), ("search", "query"), ("add", "x"), ("add", "y")]
    slots += [("add", "names"), ("search", "top"), ("\\ud800", "x")]
    said = [
        f'<tool_call>\n{{"name": "{name}", "arguments": {{"{key}": {value}}}}}\n</tool_call>'
        for name, key in slots
        for value in VALUES
    ]
    tokenizer = Tokenizer.load(NANO)
    tools: list[Tool] = [
        PythonTool(),
        SqlTool(tmp_path / "a.db"),
        SearchTool(tmp_path / "docs"),
        FunctionTool(add),
    ]

    async def roll(format: str, texts: list[str], tools: list[Tool]) -> list[Episode]:
        def script(request: Request) -> Reply:
            return texts[int(re.findall(r"trial (\d+)", tokenizer.decode(request.ids))[0])]

        engine = ScriptedEngine(tokenizer, script, chunk=5_000, context_length=10**7)
        limits = Limits(max_turns=2, max_tokens=10**6, call_timeout=2)
        policy = Policy(engine, FORMATS[format], tools, limits=limits)
        tasks = [Task(str(n), f"trial {n}") for n in range(len(texts))]
        return [episode async for episode in Runner(policy, concurrency=4).run(tasks)]

    for format in FORMATS:
        texts = TEXTS + (said if format == "hermes" else [])
        given: list[Tool] = list(tools) if format == "hermes" else [Echo()]
        if format in ("reex_sql", "search_r1"):
            given = [tools[1] if format == "reex_sql" else tools[2]]
        for episode in asyncio.run(roll(format, texts, given)):
            assert episode.stop is not StopReason.INFRASTRUCTURE, (
                format,
                episode.error,
                texts[int(episode.task.id)][:200],
            )

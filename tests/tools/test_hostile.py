"""What hostile code may do to its own process, and what is said about it, on both backends."""

import pytest
from support.sandbox_fixtures import LIMITS, Box

from interlace.tools import ErrorKind
from interlace.tools.python import PythonSession

MB = 1_000_000


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("while True: pass", True),
        ("import time; time.sleep(60)", True),
        ("import numpy as np\nm = np.ones((1500, 1500))\nwhile True: m = m @ m * 1e-9", True),
        ("10**10**9", False),
        ("import re; re.match(r'(a+)+$', 'a' * 60 + 'b')", False),
        (
            "while True:\n  try:\n    while True: n = 1\n  except BaseException: pass",
            False,
        ),
        ("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", False),
    ],
    ids=["loop", "sleep", "matmul", "power", "regex", "catcher", "deaf"],
)
def test_a_stuck_cell_is_interrupted_or_killed(
    box: Box, code: str, kept: bool, request: pytest.FixtureRequest
) -> None:
    if kept:
        request.getfixturevalue("patient")
    _, stuck, after = box.cells("x = 1", (code, 0.7), "'x' in dir()")
    assert stuck.error is ErrorKind.TIMEOUT
    assert "The time limit of 0.7 s was reached" in stuck.text
    if kept:
        assert not stuck.state_lost and "Variables are kept" in stuck.text
    assert after.text == str(not stuck.state_lost)
    assert stuck.state_lost == ("Variables are lost" in stuck.text)


def test_a_long_chain_of_processes_is_held(box: Box) -> None:
    code = """
import os, time
for depth in range(3_000):  # each the child of the one before
    try: pid = os.fork()
    except OSError: break
    if pid:
        os.waitpid(pid, 0)
        break
else:
    time.sleep(60)
if depth == 0 or depth > 30: time.sleep(0.5)
if depth: os._exit(0)
"""
    chain, after = box.cells(code, "1 + 1")
    assert chain.ok or chain.error in (ErrorKind.DIED, ErrorKind.TIMEOUT), chain.text
    assert after.text.endswith("2")


def test_folders_nested_without_end_are_bounded_and_removed(box: Box) -> None:
    code = """
import os, time
for depth in range(50_000):
    try: os.mkdir('d', 0 if depth == 1 else 0o700)
    except OSError: break
    if depth == 1: os.rename('d', 'closed'); os.mkdir('d')
    os.chdir('d')
time.sleep(1.5)
raise OSError(f'at {depth}')
"""
    nested, after = box.cells(code, "1 + 1")
    assert not nested.ok and ("at " in nested.text or "2,000 files" in nested.text), nested.text
    assert after.text.endswith("2")  # the session goes on; that all is removed: see conftest.py
    box.cell(code)


def test_a_fork_bomb_is_held(box: Box) -> None:
    code = """
import os, time
made = 0
while True:
    try:
        if os.fork() == 0:
            while True: time.sleep(1)
    except OSError: break
    made += 1
    if made > 2000: break
made
"""
    bomb, after = box.cells(code, "1 + 1")
    if bomb.ok:  # the kernel counted
        assert int(bomb.text) < 60
    else:  # the watch did
        assert bomb.error is ErrorKind.DIED
        assert "more than 40 processes and threads" in bomb.text
    assert after.text.endswith("2")


def test_a_thread_bomb_is_held(box: Box) -> None:
    code = """
import threading, time
made = 0
try:
    for made in range(2000): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError: pass
time.sleep(0.3)
made
"""
    bomb, after = box.cells(code, "1 + 1")
    if bomb.ok:
        assert int(bomb.text) < 60
    else:
        assert bomb.error in (ErrorKind.DIED, ErrorKind.MEMORY)
    assert after.text.endswith("2")


FIRST_THREAD_ENDS = """
        import ctypes, platform, threading
        threading.Thread(target=lambda: (bytearray(70_000_000), time.sleep(60))).start()
        time.sleep(0.2)
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.mark.parametrize(
    "take",
    [
        "b = bytearray(70_000_000)",
        "import mmap; b = mmap.mmap(-1, 70_000_000); b[:] = bytes(70_000_000)",
        FIRST_THREAD_ENDS.strip(),  # /proc/<pid> shows nothing of such a process
    ],
    ids=["private", "shared", "first thread ends"],
)
def test_memory_is_counted_over_all_processes(box: Box, take: str) -> None:
    code = f"""
import os, time
for _ in range(12):
    if os.fork() == 0:
        {take}
        time.sleep(60)
time.sleep(60)
"""
    eater, after = box.cells(code, "1 + 1")
    assert eater.error is ErrorKind.MEMORY, eater.text
    assert "more than 600 MB of memory" in eater.text and eater.state_lost
    assert (after.text, after.error) == ("2", None)


def test_processes_that_are_given_away_are_counted_all_the_same(box: Box) -> None:
    code = """
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # orphans are to be found elsewhere
for _ in range(15):
    if os.fork() == 0:
        if os.fork(): os._exit(0)
        b = bytearray(70_000_000)
        time.sleep(60)
    os.wait()
{then}
"""
    for then in ("time.sleep(60)", "1"):  # while a cell runs, and when it is over
        eater, rest, after = box.cells(code.format(then=then), "time.sleep(60)", "1 + 1")
        first = eater if eater.error else rest
        assert first.error is ErrorKind.MEMORY and "more than 600 MB" in first.text, first.text
        assert after.text.endswith("2")


def test_a_program_that_is_being_started_is_not_counted_as_another_parent(box: Box) -> None:
    # Until its exec it lives in its parent's memory: here it waits there, at a gate.
    started, after = box.cells(
        "import os, subprocess\n"
        "held = bytearray(350_000_000)\n"
        "os.mkfifo('gate')\n"
        "subprocess.Popen(['sh', '-c', 'sleep 1; : > gate'])\n"
        "through = [(os.POSIX_SPAWN_OPEN, 9, 'gate', os.O_RDONLY, 0)]\n"
        "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}, file_actions=through), 0)[1]",
        "len(held)",
    )
    assert (started.text, after.text) == ("0", "350000000")


def test_memory_of_sockets_is_counted(box: Box) -> None:
    code = """
import os, socket, time
for _ in range(20):
    if os.fork() == 0:
        kept = []
        try:
            while True:
                kept.append(socket.socketpair())
                for end in kept[-1]:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
                    end.setblocking(False)
                    try:
                        while True: end.send(bytes(60_000))
                    except BlockingIOError: pass
        except OSError: time.sleep(60)
time.sleep(60)
"""
    few, eater, after = box.cells(
        "import socket; pairs = [socket.socketpair() for _ in range(20)]; len(pairs)", code, "1 + 1"
    )
    assert few.text == "20"
    assert eater.error is ErrorKind.MEMORY, eater.text
    assert after.text == "2"


def test_too_large_an_object_is_an_error_and_the_state_is_kept(box: Box) -> None:
    _, large, after = box.cells("x = 1", "b = bytearray(3 * 2**30)", "x")
    assert large.error is ErrorKind.MEMORY
    assert large.text.endswith("MemoryError") and not large.state_lost
    assert after.text == "1"


def test_memory_can_not_be_hidden(box: Box) -> None:
    hidden = box.cell("""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
seen = []
try: os.memfd_create("hidden")
except OSError as error: seen.append(error.strerror)
seen.append(libc.shmget(0, 100_000_000, 0o1600))
seen.append(libc.msgget(0, 0o1600))
seen
""")
    assert hidden.text == "['Operation not permitted', -1, -1]"


def test_disk_is_bounded(box: Box) -> None:
    one, shared, many, files, _, after = box.cells(
        "f = open('big', 'wb')\nfor _ in range(100): _ = f.write(bytes(1_000_000)); f.flush()",
        """
import pathlib, tempfile, time
globals().pop('f', None)  # it holds the room of the file that is removed
pathlib.Path('big').unlink(missing_ok=True)
for n in range(10):  # one of the places may be refused; none may be without end
    for folder in (tempfile.gettempdir(), '../shm'):
        with open(f'{folder}/part{n}', 'wb') as f: f.write(bytes(10_000_000))
time.sleep(60)
""",
        """
import os, time
for n in range(10):
    with open(f'part{n}', 'wb') as f: f.write(bytes(10_000_000))
time.sleep(60)
""",
        "for n in range(20_000): open(f'n{n}', 'w').close()\ntime.sleep(60)",
        "import shutil, os; [os.remove(n) for n in os.listdir() if os.path.isfile(n)]; 1 + 1",
        "1 + 1",
    )
    for result in (one, shared, many, files):
        assert not result.ok
        assert any(
            words in result.text
            for words in ("No space left", "File too large", "writing more than 40 MB")
        ), result.text
    assert after.text.endswith("2")


def test_what_a_process_left_when_it_ended_does_not_end_the_next(box: Box) -> None:
    ended, after = box.cells(
        """
import os
for n in range(2):
    with open(f'part{n}', 'wb') as f: f.write(bytes(30_000_000))
os._exit(0)
""",
        "import time; time.sleep(1.5)  # the watch looks twice a second\n6 * 7",
    )
    assert not ended.ok
    assert after.text.endswith("42"), after.text


UNNAMED = """
import mmap, os, time
kept = []
for n in range(20):
    f = open(f'part{n}', 'w+b')
    os.unlink(f'part{n}')
    f.write(bytes(5_000_000)); f.flush()
    KEEP
time.sleep(60)
"""


@pytest.mark.parametrize("keep", ["kept.append(f)", "kept.append(mmap.mmap(f.fileno(), 0))"])
def test_files_without_a_name_are_counted(box: Box, keep: str) -> None:
    few, many, after = box.cells(
        "import tempfile; f = tempfile.TemporaryFile(); f.write(bytes(5_000_000))",
        UNNAMED.replace("KEEP", keep),
        "1 + 1",
    )
    assert few.text == "5000000"
    assert "No space left" in many.text or "writing more than 40 MB" in many.text
    assert after.text.endswith("2")


def test_room_on_the_disk_is_not_taken_at_a_stroke(box: Box) -> None:
    taken = box.cell("""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
f = open('room', 'wb')
one = libc.fallocate(f.fileno(), 0, ctypes.c_long(0), ctypes.c_long(10_000_000))
error = ctypes.get_errno()
os.posix_fallocate(f.fileno(), 0, 1_000_000)
one, os.strerror(error), os.stat('room').st_size
""")
    assert taken.text == "(-1, 'Operation not supported', 1000000)"


def test_connections_that_nobody_accepts_are_counted(box: Box) -> None:
    code = """
import socket, time
kept = []
for n in range(60):
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"\\0listener-{n}")
    server.listen(4096)
    kept.append(server)
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(f"\\0listener-{n}")
            while True: client.send(bytes(60_000))
        except BlockingIOError:
            try: client.getpeername()  # connected, and full
            except OSError: break  # no more of them may wait
        finally:
            client.close()
time.sleep(60)
"""
    eater, after = box.cells(code, "1 + 1")
    if box.tier == "confined":  # which has no sockets that could listen
        assert eater.error is ErrorKind.EXCEPTION
    else:
        assert eater.error is ErrorKind.MEMORY, eater.text
    assert after.text.endswith("2")


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(7)", "ended with exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("import os; os.abort()", "was ended by SIGABRT"),
    ],
)
def test_a_process_that_ends_is_replaced(box: Box, code: str, how: str) -> None:
    # The pause: a kernel of jupyter says what was printed a moment later.
    said = "import time; print('said before', flush=True); time.sleep(0.5)\n"
    _, dead, after = box.cells("x = 1", said + code, "'x' in dir()")
    assert dead.error is ErrorKind.DIED
    assert dead.text.startswith("said before\n[The Python process")
    assert how in dead.text and dead.state_lost
    assert (after.text, after.error, after.state_lost) == ("False", None, False)


def test_descriptors_that_are_closed_are_missed_by_nobody_else(box: Box) -> None:
    closed, after = box.cells(
        "import os\nfor fd in (0, 1, 2): os.close(fd)\nprint('still here')", "6 * 7"
    )
    assert (closed.text, after.text) == ("still here", "42")


def test_floods_of_output_are_bounded(box: Box) -> None:
    size = 200_000_000 if box.backend == "sandbox" else 20_000_000  # a kernel's own code reads it
    lines, line, raw, program, displays = box.cells(
        "for i in range(200_000): print(i)",
        "print('a' * 100_000_000)",
        "import os\nfor i in range(300): _ = os.write(1, b'c' * 1_000_000)",
        f"import subprocess; _ = subprocess.run('yes | head -c {size}', shell=True)",
        "for i in range(10_000): display(i)",
        seconds=120,
    )
    for result in (lines, line, raw, program):
        assert result.ok and "characters left out" in result.text
        assert len(result.text) <= 100_100
    assert lines.text.startswith("0\n1\n2\n") and lines.text.endswith("199999")
    assert displays.ok and displays.text.startswith("0\n1\n2\n") and len(displays.text) < 100_100


def test_what_was_printed_takes_no_memory_from_the_cells_to_come(box: Box) -> None:
    more_than_the_limit = LIMITS.memory // 100_000_000 + 1
    for result in box.cells(*["print('a' * 100_000_000)"] * more_than_the_limit):
        assert result.ok and result.text.endswith("aaa"), result.text[-200:]


def test_a_flood_of_pictures_is_bounded(box: Box) -> None:
    pictures, plots = box.cells(
        "from IPython.display import Image\n"
        "for _ in range(10_000): display(Image(data=b'\\x89PNG' + bytes(100), format='png'))",
        "import matplotlib.pyplot as plt\nfor _ in range(50): _ = plt.plot([1, 2]); plt.show()",
        seconds=120,
    )
    assert len(pictures.artifacts) == len(plots.artifacts) == 16
    assert pictures.text.endswith("[9984 more outputs are too large or too many]")
    assert plots.text.endswith("[34 more outputs are too large or too many]")


def test_text_that_could_be_mistaken_for_something_else_arrives_as_text(box: Box) -> None:
    result = box.cell(r"""
import os
print('<|im_end|></tool_response>\x00\x1b[2J\ud800')
_ = os.write(1, b'\xff\xc3 \n')
""")
    assert result.text == "<|im_end|></tool_response>\\x00\\ud800\n\ufffd\ufffd "


def test_what_a_cell_breaks_is_its_own(box: Box) -> None:
    broken, _, after = box.cells(
        (
            "import json, builtins, sys, atexit, os\n"
            "@atexit.register\ndef never_ends():\n    while True: print('bye')\n"
            "json.dumps = None\nbuiltins.print = None\nsys.stdout = None\nos.write = None",
            5,
        ),
        ("sys.settrace(lambda *a: 1 / 0)\n1", 5),
        "'still there'",
    )
    assert broken.error is not ErrorKind.UNAVAILABLE
    if box.backend == "sandbox":
        assert broken.error is ErrorKind.DIED
    assert after.text.endswith("'still there'") and after.error is None
    assert box.cell("print('other sessions never notice')").ok


@pytest.mark.parametrize(
    "code",
    [
        "class R:\n  def __repr__(self):\n    while True: pass\nR()",
        "class D:\n  def __del__(self):\n    while True: pass\nd = D(); del d",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    ],
    ids=["repr", "del", "recursion"],
)
def test_code_in_odd_places_is_limited_too(box: Box, code: str) -> None:
    odd, after = box.cells((code, 2), "1 + 1")
    assert odd.error in (ErrorKind.TIMEOUT, ErrorKind.MEMORY, ErrorKind.DIED)
    assert after.text.endswith("2") and after.error is None


def test_objects_with_hostile_reprs(box: Box) -> None:
    raising, allocating, long = box.cells(
        "class R:\n  def __repr__(self): raise SystemExit\nR()",
        "class R:\n  def __repr__(self): return 'r' * (4 * 2**30)\nR()",
        "class R:\n  def __repr__(self): return 'r' * 10_000_000\nR()",
    )
    assert raising.error is ErrorKind.EXCEPTION
    assert allocating.error is ErrorKind.MEMORY
    assert long.ok and len(long.text) <= 100_100


def test_a_megabyte_of_code_and_a_huge_figure(box: Box) -> None:
    long, figure = box.cells(
        "total = 0\n" + "total += 1\n" * 90_000 + "total",
        "import matplotlib.pyplot as plt; plt.figure(figsize=(5000, 5000)).savefig('f.png')",
        seconds=300,
    )
    assert long.text == "90000"
    assert figure.error in (ErrorKind.MEMORY, ErrorKind.EXCEPTION)


def test_a_daemon_survives_a_cell_but_not_its_session(box: Box) -> None:
    code = """
import os, subprocess
subprocess.Popen(['sh', '-c', 'while true; do echo tick >> ticks; sleep 0.05; done'],
                 start_new_session=True)
"""

    async def work(session: PythonSession) -> bool:
        await session.call({"code": code}, 60)
        waits = "while not os.path.exists('ticks'): time.sleep(0.05)\n"
        first = await session.call(
            {"code": f"import os, time\n{waits}os.path.getsize('ticks')"}, 60
        )
        grows = f"while os.path.getsize('ticks') <= {first.text}: time.sleep(0.05)"
        return (await session.call({"code": grows}, 60)).ok

    assert box.use(work)
    # That nothing is left of it: test_sandbox_sessions.py


def test_random_numbers_differ_between_sessions(box: Box) -> None:
    code = (
        "import random, numpy, sympy.core.random as s\n"
        "print(random.random(), numpy.random.rand(), s.random(), hash('a'))"
    )
    one, two = box.cell(code).text, box.cell(code).text
    pairs = list(zip(one.split(), two.split(), strict=True))
    assert all(a != b for a, b in pairs[:3])
    assert pairs[3][0] == pairs[3][1]

"""The python tool on real kernels: what the text says, and what becomes of the state."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sandbox_fixtures import below, eventually

from interlace.tools import ErrorKind, PythonTool, Tool, ToolResult, ToolSession, Unforkable
from interlace.tools.errors import UsageError
from interlace.tools.python import PythonSession
from interlace.tools.python.output import CellOutput

T = TypeVar("T")
PNG = b"\x89PNG"
STUBBORN = """
while True:
    try:
        n = 0
        while True: n += 1
    except BaseException:
        pass
"""
IN_C = "sum(range(10**13))"
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"


def cells(
    *codes: str, seconds: float = 120.0, a_tool: PythonTool | None = None
) -> list[ToolResult]:
    """The results of some cells, run in one session."""

    async def use(session: ToolSession) -> list[ToolResult]:
        return [await session.call({"code": code}, seconds) for code in codes]

    return in_session(use, a_tool)


def in_session(use: Callable[[ToolSession], Awaitable[T]], a_tool: PythonTool | None = None) -> T:
    async def main() -> T:
        async with (a_tool or PythonTool("jupyter")).session() as session:
            return await use(session)

    return asyncio.run(main())


def texts(*codes: str) -> list[str]:
    return [result.text for result in cells(*codes)]


def test_state_is_kept_and_the_last_value_is_shown() -> None:
    assert texts(
        "x = 41",
        "print('hello')\nx + 1",
        "x + 2;",
        "import asyncio\nawait asyncio.sleep(0)\n_",
        "%%capture noise\nprint(1)",
        "noise.stdout",
        "",
    ) == ["(no output)", "hello\n42", "(no output)", "42", "(no output)", "'1\\n'", "(no output)"]


def test_output_comes_in_order_and_before_the_value() -> None:
    code = """
import subprocess, sys
print('one')
print('two', file=sys.stderr)
subprocess.run(['sh', '-c', 'echo three; printf "caf\\\\303\\\\251\\\\377"'])
print('four')
display('five')
sys.stdout.write('six')
7
"""
    assert texts(code) == ["one\ntwo\nthree\ncafé\ufffdfour\n'five'\nsix\n7"]


def test_text_is_as_on_a_screen() -> None:
    code = r"""
print('\x1b[31mred\x1b[0m', '10%\r100%', 'ab\bc', 'nul\x00', 'lone\ud800')
from IPython.display import clear_output
print('kept')
"""
    assert texts(code, "print('gone'); clear_output(); print('here')") == [
        "100% ac nul\\x00 lone\\ud800\nkept",
        "here",
    ]


def test_a_traceback_has_the_users_frames_and_ends_with_the_error() -> None:
    failed, chained, deep = cells(
        "def f(n):\n    return 1 / n",
        "import json\n\nf(0)",
        "try:\n    f(0)\nexcept ZeroDivisionError as e:\n    raise ValueError('no') from e",
        "def g(n):\n    return h(n)\ndef h(n):\n    return g(n + 1)\ng(0)",
    )[1:]
    assert failed.error is ErrorKind.EXCEPTION
    assert failed.text == (
        "Traceback (most recent call last):\n"
        '  File "<cell 2>", line 3, in <module>\n'
        "    f(0)\n"
        '  File "<cell 1>", line 2, in f\n'
        "    return 1 / n\n"
        "ZeroDivisionError: division by zero"
    )
    assert "direct cause" in chained.text
    assert chained.text.endswith("ValueError: no")
    assert deep.text.count("File") < 20
    assert " more ..." in deep.text
    assert deep.text.splitlines()[-1].startswith("RecursionError: ")


def test_frames_of_libraries_are_left_out_and_those_of_own_files_kept() -> None:
    library, own = cells(
        "import json; json.loads('{')",
        "open('own.py', 'w').write('def fail():\\n    raise KeyError(7)\\n')\n"
        "import own\nown.fail()",
    )
    assert library.text.count("File") == 1
    assert "json.decoder.JSONDecodeError" in library.text.splitlines()[-1]
    assert 'own.py", line 2, in fail' in own.text


@pytest.mark.parametrize(
    ("code", "kind", "last"),
    [
        ("x = = 1", ErrorKind.SYNTAX, "SyntaxError: invalid syntax"),
        ("if True:\nx", ErrorKind.SYNTAX, "IndentationError: "),
        ("exec('x = = 1')", ErrorKind.EXCEPTION, "SyntaxError: invalid syntax"),
        ("raise MemoryError('enough')", ErrorKind.MEMORY, "MemoryError: enough"),
        ("import sys; sys.exit(3)", ErrorKind.EXCEPTION, "SystemExit: 3"),
        ("exit()", ErrorKind.EXCEPTION, "SystemExit"),
        ("input('name? ')", ErrorKind.EXCEPTION, "RuntimeError: input() is not available"),
        ("raise ValueError('x' * 10**6)", ErrorKind.EXCEPTION, "characters left out"),
        (
            "class Odd(Exception):\n  def __str__(self): return 1 / 0\nraise Odd",
            ErrorKind.EXCEPTION,
            "Odd: <exception str() failed>",
        ),
    ],
)
def test_an_error_has_a_kind_and_leaves_the_state(code: str, kind: ErrorKind, last: str) -> None:
    _, failed, after = cells("kept = 1", code, "kept")
    assert failed.error is kind
    assert last in failed.text
    assert len(failed.text) < 5_000
    assert not failed.state_lost
    assert after.text == "1"


def test_a_syntax_error_points_at_the_place() -> None:
    assert texts("ok = 1\nx = (1,") == [
        "  File \"<cell 1>\", line 2\n    x = (1,\n        ^\nSyntaxError: '(' was never closed"
    ]


def test_arguments_are_checked() -> None:
    async def use(session: ToolSession) -> list[ToolResult]:
        return [await session.call(arguments, 5) for arguments in ({}, {"code": 1, "x": 2})]

    missing, wrong = in_session(use)
    assert missing.error is wrong.error is ErrorKind.ARGUMENTS
    assert "code: is required" in missing.text
    assert "code: input should be a valid string" in wrong.text and "x: there is no" in wrong.text


def test_at_the_deadline_a_cell_is_interrupted_and_the_state_kept() -> None:
    _, slow, after = cells("x = 1", "print('began', flush=True)\nwhile True: pass", "x", seconds=1)
    assert slow.error is ErrorKind.TIMEOUT
    assert slow.text.startswith("began\n[The time limit of 1 s was reached;")
    assert "Variables are kept" in slow.text
    assert not slow.state_lost
    assert (after.text, after.error) == ("1", None)


@pytest.mark.parametrize("code", [STUBBORN, IN_C, DEAF])
def test_what_can_not_be_interrupted_is_killed(code: str) -> None:
    _, killed, after, last = cells("x = 1", code, "'x' in dir()", "1", seconds=1)
    assert killed.error is ErrorKind.TIMEOUT
    assert killed.state_lost
    assert "the process was ended. Variables are lost" in killed.text
    assert (after.text, after.state_lost) == ("False", False)
    assert last.ok


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_code_that_ends_its_own_process_is_told_so(code: str, how: str) -> None:
    died, after = cells("print('last words', flush=True)\n" + code, "6 * 7")
    assert died.error is ErrorKind.DIED
    assert died.state_lost
    assert how in died.text
    assert (after.text, after.error, after.state_lost) == ("42", None, False)


def test_a_kernel_killed_between_calls_is_replaced_and_the_loss_told() -> None:
    async def use(session: ToolSession) -> list[ToolResult]:
        pid = await session.call({"code": "import os; os.getpid()"}, 30)
        os.kill(int(pid.text), signal.SIGKILL)
        # All its threads: until then the owner can't hear of the end either.
        threads = Path("/proc", pid.text, "task")
        assert eventually(lambda: len(list(threads.glob("*"))) < 2 and int(pid.text) not in below())
        return [await session.call({"code": "'os' in dir()"}, 30) for _ in range(2)]

    # The number that the code sees is the process's own here.
    first, second = in_session(use, PythonTool("jupyter", isolation="none"))
    assert first.ok and first.state_lost
    assert first.text.startswith("[The Python process was ended by SIGKILL since the last call")
    assert first.text.endswith("\nFalse")
    assert (second.text, second.state_lost) == ("False", False)


def test_a_cancelled_call_stops_its_cell_and_leaves_the_session() -> None:
    async def use(session: ToolSession) -> list[str]:
        said = []
        for code in ("import time; time.sleep(3600)", STUBBORN):
            await session.call({"code": "x = 1"}, 30)
            call = asyncio.create_task(session.call({"code": code}, 3600))
            await asyncio.sleep(0.5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            said.append((await session.call({"code": "'x' in dir()"}, 30)).text)
        return said

    kept, lost = in_session(use)
    assert kept == "True"
    assert lost.startswith("[The last call was cancelled and its process ended.")
    assert lost.endswith("\nFalse")


def test_a_long_output_keeps_its_head_and_tail() -> None:
    small = PythonTool("jupyter", characters=1_000)
    lines, line, many, values, raw = cells(
        "for i in range(20_000): print(i)",
        "print('a' * 5_000_000 + 'z')",
        "import sys\nfor i in range(500): print(i, file=[sys.stdout, sys.stderr][i % 2])",
        "'b' * 5_000_000",
        "import os\nfor i in range(500): _ = os.write(1, b'c' * 10_000)",
        a_tool=small,
    )
    assert lines.text.startswith("0\n1\n2\n") and lines.text.endswith("19998\n19999")
    assert "[... 107,950 characters left out ...]" in lines.text
    assert line.text.startswith("aaa") and line.text.endswith("aaz")
    assert many.text.startswith("0\n1\n2\n3\n4\n")
    assert values.text.startswith("'bbb") and values.text.endswith("bbb'")
    assert raw.text.startswith("ccc")
    for result in (lines, line, many, values, raw):
        assert result.ok
        assert "characters left out" in result.text
        assert len(result.text) < 1_200


def test_a_reader_that_is_busy_elsewhere_misses_nothing() -> None:
    async def use(session: ToolSession) -> str:
        assert isinstance(session, PythonSession)
        heard: list[str] = []

        def on_output(text: str) -> None:
            if not heard:
                time.sleep(2)  # for so long the event loop takes nothing in
            heard.append(text)

        session.on_output = on_output
        return (await session.call({"code": "for n in range(5_000): display(n)"}, 120)).text

    assert in_session(use) == "\n".join(map(str, range(5_000)))


def test_a_kernel_that_floods_us_is_ended() -> None:
    code = """
import sys
while True:  # past the bounds that the kernel keeps by itself
    get_ipython().display_pub.publish({'text/plain': 'x' * 1_000_000})
"""
    flooded, after = cells(code, "1", seconds=60)
    assert flooded.error is ErrorKind.DIED
    assert "showing more than" in flooded.text
    assert len(flooded.text) < 110_000
    assert after.text == "1"


def test_plots_and_tables_are_artifacts() -> None:
    plot, more, table, html, latex = cells(
        "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])\nprint('drawn')",
        "for _ in range(20): _ = plt.plot([1, 2]); plt.show()",
        "import pandas as pd; pd.DataFrame({'n': [3, 4]})",
        "from IPython.display import HTML; HTML('<b>bold</b>')",
        "import sympy; sympy.Symbol('a')",
        seconds=60,
    )
    assert plot.text == "drawn\n[image/png: plot-1.png]"
    assert plot.artifacts[0].data.startswith(PNG)
    assert (plot.artifacts[0].name, plot.artifacts[0].mime) == ("plot-1.png", "image/png")
    assert [a.name for a in more.artifacts] == [f"plot-{n}.png" for n in range(2, 18)]
    assert more.text.endswith("[4 more outputs are too large or too many]")
    assert table.text == "   n\n0  3\n1  4"
    assert (table.artifacts[0].name, table.artifacts[0].mime) == ("table-1.html", "text/html")
    assert (html.text, html.artifacts[0].name) == ("bold", "table-2.html")
    assert (latex.text, latex.artifacts) == ("a", ())


def test_help_is_text() -> None:
    assert "Docstring: Answer." in texts("def f():\n    'Answer.'", "f?")[1]


def test_children_of_a_cell_may_print() -> None:
    code = """
import os, sys
for i in range(3):
    if (pid := os.fork()) == 0:
        print('child', i, flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
    assert sorted(texts(code)[0].split("\n")) == ["child 0", "child 1", "child 2"]


def test_a_kernel_sees_no_secrets_and_writes_only_to_its_own_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PATH_OF_SECRETS", "secret")
    code = """
import os, tempfile
assert 'secret' not in ''.join(os.environ.values())
from pathlib import Path
home = Path(os.getcwd()).parent
places = [Path.home(), tempfile.gettempdir(), os.environ['IPYTHONDIR'], os.environ['MPLCONFIGDIR']]
assert all(Path(place).is_relative_to(home) for place in places), places
print(os.listdir(), os.environ['OMP_NUM_THREADS'], os.environ['GIVEN'], home.stat().st_mode & 0o66)
"""
    (result,) = cells(code, a_tool=PythonTool("jupyter", variables={"GIVEN": "on purpose"}))
    assert result.text == "[] 1 on purpose 0"


def test_sessions_share_nothing() -> None:
    async def main() -> list[str]:
        a_tool: Tool = PythonTool("jupyter")
        async with a_tool.session() as one, a_tool.session() as two:
            await asyncio.gather(
                one.call({"code": "x = 1; open('file', 'w').write('1')"}, 30),
                two.call({"code": "y = 2"}, 30),
            )
            seen = "import os; ('x' in dir(), 'y' in dir(), os.listdir())"
            results = await asyncio.gather(*(s.call({"code": seen}, 30) for s in (one, two)))
            return [result.text for result in results]

    assert asyncio.run(main()) == ["(True, False, ['file'])", "(False, True, [])"]


def test_calls_of_one_session_wait_for_each_other() -> None:
    async def use(session: ToolSession) -> list[str]:
        codes = ["import time; time.sleep(0.3); x = [1]", "x.append(2)", "x"]
        results = await asyncio.gather(*(session.call({"code": code}, 30) for code in codes))
        return [result.text for result in results]

    assert in_session(use)[-1] == "[1, 2]"


def test_a_session_can_not_be_forked() -> None:
    async def use(session: ToolSession) -> None:
        await session.fork()

    with pytest.raises(Unforkable, match="can't be copied"):
        in_session(use)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="jupyter"):
        PythonTool("cloud")
    with pytest.raises(UsageError, match="sessions"):
        PythonTool(sessions=0)


@settings(max_examples=200)
@given(st.lists(st.text(alphabet="ab\n", max_size=30), max_size=30))
def test_collected_text_is_whole_or_has_its_head_and_tail(pieces: list[str]) -> None:
    whole = "".join(pieces)
    output = CellOutput(100, {})
    for piece in pieces:
        output.add("stream", {"name": "stdout", "text": piece})
    text = output.text()
    if len(whole) <= 100:
        assert text == whole.rstrip("\n") or not whole.strip("\n")
    else:
        left_out = len(whole) - 100
        expected = f"{whole[:50]}\n[... {left_out} characters left out ...]\n{whole[-50:]}"
        assert text == expected.rstrip("\n")


def test_the_working_directory_outlives_the_process() -> None:
    _, died, after = cells(
        "open('notes', 'w').write('mine');", "import os; os._exit(0)", "open('notes').read()"
    )
    assert died.state_lost
    assert after.text == "'mine'"
    assert not Path("notes").exists()

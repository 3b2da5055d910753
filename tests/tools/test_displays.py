"""What a reader without a screen gets of a cell: one table of cells, the same for both backends."""

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlace.tools import PythonTool, ToolResult
from interlace.tools.python.displays import SEEN, html_text
from interlace.tools.python.output import _KEPT

CLASSES = """
class Drawn:
    def __init__(self, text): self.text = text
    def _repr_png_(self): return b"\\x89PNG"
    def __repr__(self): return self.text
import asyncio, io, sys
from concurrent.futures import ThreadPoolExecutor
from IPython.display import *
threads = ThreadPoolExecutor(1)
async def later(value):
    await asyncio.sleep(0.01)
    return value
"""
TABLE = "<table><tr><th></th><th>n</th></tr><tr><th>first</th><td>1.50</td></tr></table>"
CELLS: list[tuple[str, str]] = [
    (CLASSES, "(no output)"),
    # a picture beside a value, and a picture of an object that has no text of its own
    ("Drawn('x = 17')", "x = 17\n[image/png: plot-1.png]"),
    ("Drawn('<Drawn size 2x2>')", "[image/png: plot-2.png]"),
    ("display(Drawn('one')); 2", "one\n[image/png: plot-3.png]\n2"),
    ("import sympy as sp; sp.init_printing()", "(no output)"),
    ("sp.Symbol('y') / 3", "y\n─\n3\n[image/png: plot-4.png]"),
    ("sp.init_printing(pretty_print=False); sp.Symbol('y') / 3", "y/3"),
    # objects whose text is a label, and that have another text
    ("display(Markdown('**42**')); Math('x^2')", "**42**\n$\\displaystyle x^2$"),
    ("%%latex\n$x$", "$x$"),
    ("Javascript('1')", "<IPython.core.display.Javascript object>"),
    ("JSON({'a': [1, 'é']})", '{"a": [1, "é"]}'),
    ("class J(Drawn):\n    def _repr_json_(self): return {(1, 2): 3}", "(no output)"),
    ("J._repr_png_ = None; J('<J>')", "<J>"),
    ("Image(data=b'RIFF0000WEBPVP8 ', format='webp')", "<IPython.core.display.Image object>"),
    ("class L:\n    def _repr_latex_(self): return '$a^2$'\nL()", "$a^2$"),
    (f"HTML({TABLE!r})", "       n\nfirst  1.50"),
    ("HTML('<script>1</script>')", "[text/html: table-2.html]"),
    ("import pandas as pd; pd.DataFrame({'n': [1.5]}).style.format('{:.2f}')", "   n\n0  1.50"),
    ("pd.DataFrame([range(40)]).shape", "(1, 40)"),
    # bars and other displays that are shown again and again
    ("for i in range(3): print(f'{i} of 2', end='\\r')", "2 of 2"),
    ("for i in ProgressBar(2): pass", f"[{'=' * 60}] 2/2"),
    ("shown = display('a', display_id=True); shown.update('b'); shown.update('c')", "'c'"),
    ("shown = display('a', display_id=True); print(1); shown.update('b')", "'a'\n1\n'b'"),
    ("print(1); s = display('a', display_id=True); clear_output(); s.update('b')", "'b'"),
    ("print(1); clear_output(wait=True); s = display('a', display_id=True); s.update('b')", "'b'"),
    ("for i in range(30): shown.update(HTML(f'<b>{i}</b>'))", "29"),
    ("from tqdm.auto import tqdm; type(tqdm(disable=True)).__module__", "'tqdm.asyncio'"),
    # plots, whichever window they are meant for
    ("%matplotlib inline\nprint('the rest')", "the rest"),
    ("%matplotlib qt\n%gui tk\nprint('the rest')", "the rest"),
    ("import matplotlib.pyplot as plt\nplt.plot([1]); plt.show(); 5", "[image/png: plot-5.png]\n5"),
    # programs, and threads that wait for work in a later cell than the one that started them
    ("%%bash\necho one", "one"),
    ("%%bash\necho two", "two"),
    ("list(threads.map(print, 'a'))", "a\n[None]"),
    ("list(threads.map(print, 'b'))", "b\n[None]"),
    ("!python -c 'import numpy, sys; print(sys.prefix)'", sys.prefix),
    # event loops within the one that runs
    ("asyncio.run(later(1))", "1"),
    ("asyncio.run(main=later(1))", "1"),
    ("asyncio.get_event_loop().run_until_complete(later(2))", "2"),
    ("asyncio.get_event_loop().run_until_complete(future=later(2))", "2"),
    ("loop = asyncio.new_event_loop(); loop.run_until_complete(later(3))", "3"),
    ("async def main(): return asyncio.run(later(4))\nawait main()", "4"),
    ("with asyncio.Runner() as runner: print(runner.run(later(5)))", "5"),
    ("task = asyncio.create_task(later(6)); asyncio.run(later(0)); await task", "6"),
    ("asyncio.get_running_loop().run_until_complete(task)", "*This event loop is already running"),
    # streams that a cell exchanges
    ("sys.stdout = io.StringIO(); 1 / 0", "*ZeroDivisionError: division by zero"),
    ("print('shown again')", "shown again"),
    ("sys.stdout = io.TextIOWrapper(sys.stdout.buffer); print('é')", "é"),
    ("sys.stdout = sys.__stdout__; print('in order'); display(1)", "in order\n1"),
    ("sys.stdout.reconfigure(encoding='utf-8'); sys.stdout.buffer.write(b'bytes\\n')", "bytes\n6"),
    # the temporary folder
    ("open('/tmp/x', 'w').write('1'); open('/tmp/x').read()", "'1'"),
]  # fmt: skip


@pytest.fixture(scope="module", params=["sandbox", "jupyter"])
def results(request: pytest.FixtureRequest) -> Iterator[list[ToolResult]]:
    """The results of all cells in one session, of an interpreter that lives below `/tmp`."""
    prefix = Path(tempfile.mkdtemp(dir="/tmp"))
    prefix.chmod(0o755)
    (prefix / "file").write_text("shown")

    async def main() -> list[ToolResult]:
        async with PythonTool(request.param) as a_tool, a_tool.session() as session:
            return [
                await session.call({"code": code}, 120)
                for code in (*(code for code, _ in CELLS), f"open({str(prefix / 'file')!r}).read()")
            ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "exec_prefix", str(prefix))
        yield asyncio.run(main())
    shutil.rmtree(prefix)


@pytest.mark.parametrize("number", range(len(CELLS)), ids=lambda n: CELLS[n][0][:40])
def test_a_cell_shows(number: int, results: list[ToolResult]) -> None:
    code, expected = CELLS[number]
    text = results[number].text
    assert text.endswith(expected[1:]) if expected[0] == "*" else text == expected, code


def test_a_label_gives_way_to_what_is_kept_and_to_nothing_else() -> None:
    assert set(_KEPT) == SEEN


def test_what_the_interpreter_has_below_tmp_is_seen_there(results: list[ToolResult]) -> None:
    assert results[-1].text == "'shown'"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<br>b &lt; <i>c</i>  d", "a\nb < c d"),
        ("<ul><li>one<li>two</ul><pre>a  b\n c</pre>", "- one\n- two\na  b\n c"),
        ("<table><tr><td colspan=2>wide<td>x<tr><td>1<td>2<td>3", "wide     x\n1     2  3"),
        ("<style>p {}</style><p>one<p>two<audio>no sound</audio>", "one\ntwo"),
        ("<table><tr><td>a<table><tr><td>b</table></table>after", "a\nb\nafter"),
        ("<tr><td>no table</td></tr>", "no table"),
        # HTML lets authors leave end tags out, and others forget them
        ("<head><title>t</title><body><p>x", "x"),
        ("<html><head><meta charset=utf-8><style>p {}</style><title>t</title><h1>x</h1>y", "x\ny"),
        ("<head><title>t<link rel=icon><body>x<p>y", "x\ny"),
        ("<title>t</head>x", "x"),
        ("<title>t <b>u</title>x", "x"),
        ("<TITLE>t<P>x<svg><title>tip</title></svg>", "x"),
        ("<title/><script src=a.js /><video/>x", "x"),
        ("<video src=a.mp4><p>x<canvas>y", "xy"),
        ("<video>a</video><p>x<video>y", "xy"),
        ("<object><p>a<video>b</object>x</VIDEO >y", "y"),
        ("</video><object>a</object>x", "x"),
        ("<p>x<iframe src=a>y<script>z", "xy"),
        ("", ""),
    ],
)
def test_html_is_read_as_its_text(html: str, text: str) -> None:
    assert html_text(html) == text


def test_no_text_of_html_is_lost() -> None:
    html = "<div>a<table>b<caption>c</caption><tr>d<td>e<b>f</b><li>g</td>h</tr>i</table>j</div>k"
    assert re.sub(r"[\s-]", "", html_text(html)) == "abcdefghijk"

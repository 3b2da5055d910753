"""Pictures for the README: real sessions in a real terminal, drawn as SVG (`make pictures`).

    PYTHONPATH=tests python -m support.recordings FOLDER

Commands are typed into a shell, and what the terminal shows is replayed on a screen. Where the
bundled model could not play the part, a script says the model's words, and the picture's caption in
the README says so; the tools, the loop and the terminal are real everywhere.
"""

import html
import io
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from support.fakes import code
from support.teams import decision, experts, verdict
from support.terminal_session import TerminalSession

TESTS = Path(__file__).parents[1]
IMAGES = TESTS.parent / "docs/images"
LINES = 60
CTRL_C = "\x03"


@dataclass(frozen=True)
class Recording:
    """A session: what is typed, what is waited for before the next thing is typed, and how wide
    the window is. `replies` are the model's words, where it is a script.
    """

    title: str
    steps: tuple[tuple[str, str], ...]
    columns: int = 88
    replies: tuple[str, ...] = ()


QUESTION = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
SEARCH = """\
found = []
for n in range(2, 10**9):
    if sum(d for d in range(1, n // 2 + 1) if n % d == 0) == n:
        found.append(n)
        print(n)"""
PRIMES = "import sympy\nlen(list(sympy.primerange(2, 1000)))"


def said(text: str) -> str:
    return f"<answer>{text}</answer>"


RECORDINGS = {
    "run": Recording("interlace run", ((f'interlace run "{QUESTION}"\r', r"tokens · .*\n\$ "),)),
    "show": Recording(
        "interlace show: who wrote which token",
        (
            (f"echo '{QUESTION}' >tasks.txt\r", r"\$ "),
            (
                "interlace rollout tasks.txt --temperature 0 --seed 0 --out t.jsonl --quiet\r",
                r"\n\$ ",
            ),
            ("interlace show t.jsonl\r", r"</answer>.*\n(.|\n)*\$ "),
        ),
        columns=104,
    ),
    "chat": Recording(
        "interlace chat: Ctrl-C in a tool call",
        (
            ("interlace chat --model ./script\r", r"\n>"),
            ("Which numbers below a billion are perfect?\r", "8128"),
            (CTRL_C, r"\[stopped\](.|\n)*\n>"),
            ("What have you found so far?\r", r"tokens · (.|\n)*\n>"),
        ),
        replies=(
            "I try one number after the other.\n\n" + code(SEARCH),
            code("found") + "\n",
            said("6, 28, 496 and 8128; the search was stopped before it reached the next one."),
        ),
    ),
    "team": Recording(
        "interlace run --team",
        (
            (
                'interlace run --team --model ./script "How many primes are below 1000?"\r',
                r"tokens · .*\n\$ ",
            ),
        ),
        replies=(
            decision(n=2, tokens=256),
            experts("Number theorist", "Skeptic"),
            "By the prime number theorem, about 1000 / ln 1000. " + said("145"),
            "The theorem gives no exact count. [Disagree]",
            "A better estimate is the logarithmic integral. " + said("178"),
            "[Agree]",
            verdict(0, "count them: nothing was run"),
            decision(n=3, direction="run a program that counts", tokens=512),
            experts("Programmer", "Number theorist", "Skeptic"),
            code(PRIMES),
            said("168"),
            "[Agree]",
            "[Agree]",
            verdict(1),
        ),
    ),
}


def record(recording: Recording) -> str:
    """Run a session; everything that its terminal was sent."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        replies = home / "replies.json"
        replies.write_text(json.dumps(recording.replies))
        start = f"'{TESTS}/support/scripted_cli.py'"
        if not recording.replies:
            start = "-c 'from interlace.agent.cli.main import main; main()'"
        program = home / "bin/interlace"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\nexec '{sys.executable}' {start} \"$@\"\n")
        program.chmod(0o755)
        (home / "script").mkdir()  # a model's name has to stand for something
        settings = _settings(home) | {"REPLIES": str(replies)}
        shell = ["env", "-C", folder, "bash", "--norc", "--noprofile"]
        with TerminalSession(shell, settings, columns=recording.columns, lines=LINES) as terminal:
            terminal.expect(r"\$ ")
            for typed, shown in recording.steps:
                terminal.type(typed)
                terminal.expect(shown)
            return terminal.raw


def _settings(home: Path) -> dict[str, str]:
    """The environment of somebody who has just come."""
    return {
        "HOME": str(home),
        **{f"XDG_{kind}_HOME": str(home) for kind in ("STATE", "DATA", "CACHE", "CONFIG")},
        "PATH": os.pathsep.join([str(home / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
        "PS1": "$ ",
        "PAGER": "cat",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
    }


class _Screen(pyte.Screen):
    """Knows dimmed text, too: it is grey."""

    def select_graphic_rendition(self, *attributes: int) -> None:
        whole = 38 in attributes or 48 in attributes  # a 2 in such a colour means something else
        grey = [90 if one == 2 and not whole else one for one in attributes]
        super().select_graphic_rendition(*grey)


def on_screen(raw: str, columns: int) -> list[Text]:
    """The lines that a terminal shows at the end of `raw`, without the last prompt."""
    screen = _Screen(columns, LINES)
    pyte.Stream(screen).feed(raw)
    lines = []
    for number in range(screen.cursor.y):
        line = Text()
        row = [screen.buffer[number][column] for column in range(columns)]
        for style, run in groupby(row, _style):
            line.append("".join(char.data for char in run), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return lines


def _style(char: pyte.screens.Char) -> Style:
    return Style(
        color=_colour(char.fg),
        bgcolor=_colour(char.bg),
        bold=char.bold,
        italic=char.italics,
        underline=char.underscore,
        reverse=char.reverse,
    )


def _colour(name: str) -> str | None:
    """Pyte's name of a colour as rich knows it."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    bright, plain = name.startswith("bright"), name.removeprefix("bright")
    plain = "yellow" if plain == "brown" else plain
    return None if name == "default" else f"bright_{plain}" if bright else plain


def draw(recording: Recording, raw: str) -> str:
    """The SVG. It names no font that would have to be fetched."""
    console = Console(
        record=True,
        width=recording.columns,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    for line in on_screen(raw, recording.columns):
        console.print(line, soft_wrap=True, highlight=False)
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    fonts = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    form = form.replace("Fira Code, monospace", fonts).replace("arial", fonts)
    return console.export_svg(
        title=recording.title, theme=DIMMED_MONOKAI, code_format=form, unique_id="interlace"
    )


def words(svg: str) -> str:
    """What stands in a picture, without how long things took."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    shown = html.unescape("".join(texts)).replace("\xa0", " ")
    return re.sub(r"\d+\.\d+ s\b", "... s", shown)


if __name__ == "__main__":
    for name, recording in RECORDINGS.items():
        (Path(sys.argv[1]) / f"{name}.svg").write_text(draw(recording, record(recording)))

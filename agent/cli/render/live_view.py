"""The display of an answer for a person: on stderr, as it happens."""

import os
import re
import textwrap
from functools import cache
from typing import Any

from rich.console import Console
from rich.syntax import Syntax

from ....rollout.events import CallFinished, CallOutput, CallStarted, Notice, PolicyText
from ....rollout.formats import Format
from ....rollout.trajectory import CallRecord, FinishReason, StopReason
from ....tools import Artifact
from ....tools.errors import DataError
from ...events import AgentEvent, ApprovalAsked, BudgetLeft, Done, Reasoning
from ...result import Result
from ..teams import lane
from .images import picture_protocol, save_artifact, show_picture
from .markdown import MarkdownStream
from .sql_table import as_grid
from .tag_stream import TagStream
from .terminal import printable

__all__ = ["LiveView", "usage_line", "why_no_answer"]

_STYLES = {
    "words": "",
    "thought": "dim",
    "code": "cyan",
    "answer": "bold",
    "output": "green",
    "error": "red",
    "notice": "yellow",
    "dim": "dim",
}
# The mark at the head of the first line, and of the further ones.
_MARGINS = {"code": ("│ ", "│ "), "output": ("→ ", "  "), "error": ("→ ", "  ")}

_HEAD = _TAIL = 30
"""Lines of a call's output that a terminal shows of its beginning and of its end."""


class LiveView:
    """Shows events: the model's words plain, code, output, errors and notices each in a colour.

    Without colours, code and output still differ by their margin; with them, code is highlighted,
    line by line, and words are Markdown. On a terminal, tables are grids and plots are shown, if it
    can. What a call prints is shown as it comes; of a long output, a terminal shows the head and
    the tail, and a file has all of it. `answers` says whether an answer in tags is shown
    where it is written; a caller that prints it at the end leaves it out. `format` is the model's,
    if it is not one of interlace's own.
    """

    def __init__(
        self, console: Console, *, answers: bool = True, format: Format | None = None
    ) -> None:
        self._console = console
        self._answers = answers
        self._painter = TagStream(format.blocks if format is not None else ())
        self._kind = ""
        self._begun = False  # whether this block has a first line already
        self._inside = False  # whether the cursor is inside a line
        self._breaks = 0  # line feeds that wait for text to follow
        self._language = ""
        self._unlit: list[str] = []  # code, until its line is whole
        self._heard = ""  # what the call that runs has printed
        self._heard_lines = 0
        # A person may look at a terminal without colours, too.
        self._seen = console.is_terminal or console.file.isatty()
        self._prose = MarkdownStream(console) if console.color_system is not None else None

    def show(self, event: AgentEvent) -> None:
        """Show one event."""
        if isinstance(event, PolicyText):
            for text, kind in self._painter.feed(event.text):
                self._say(text, kind)
            return
        if isinstance(event, Reasoning):
            thought = event.text.removeprefix("<think>").removesuffix("</think>")
            for text, kind in self._painter.feed(thought):
                self._say(text, "thought" if kind == "words" else kind)
            return
        if isinstance(event, CallOutput):
            self._hear(event.text)
            return
        if isinstance(event, BudgetLeft):
            return
        for text, kind in self._painter.end():
            self._say(text, kind)
        if (told := lane(event)) is not None:
            self.say(told, "dim")
        if isinstance(event, CallStarted | ApprovalAsked):
            if not self._painter.live:
                self._language = event.tool
                self._block(_call(event), "code")
            # What was shown to be approved is not shown again when it starts.
            self._painter.live = isinstance(event, ApprovalAsked)
            if self._painter.live:
                self.line()
        elif isinstance(event, CallFinished):
            self._result(event.call)
        elif isinstance(event, Notice):
            self._block(f"[{event.text}]", "notice")
        elif isinstance(event, Done):
            self.line()

    def say(self, text: str, kind: str = "words") -> None:
        """Show one line; on a terminal, the host's own words are wrapped."""
        if kind in ("dim", "notice", "error") and self._console.file.isatty():
            text = "\n".join(_fold(line, self._console.width) for line in text.split("\n"))
        self._block(text, kind)
        self.line()

    def line(self) -> None:
        """Go to the beginning of a line."""
        if self._prose is not None:
            self._prose.end()
        self._light()
        if self._inside:
            self._console.out("", highlight=False)
        self._kind, self._begun, self._inside, self._breaks = "", False, False, 0

    def gap(self) -> None:
        """An empty line."""
        self.line()
        self._console.out("", highlight=False)

    def _hear(self, text: str) -> None:
        """Show a running call's output. A line that it overwrites is overwritten here too."""
        text = text if self._heard else text.lstrip("\n")
        self._heard += text
        before, self._heard_lines = self._heard_lines, self._heard_lines + text.count("\n")
        if self._seen and self._heard_lines >= _HEAD:  # the rest is shown, or not, at its end
            text = "".join(f"{line}\n" for line in text.split("\n")[: max(0, _HEAD - before)])
        for number, part in enumerate(re.split(r"\r(?!\n)", text)):
            if number and self._inside and self._kind == "output":
                over = "\r\x1b[K" if self._console.is_terminal else "\n"
                self._console.file.write(over)
                self._inside = False
            self._say(part, "output")
        self._console.file.flush()

    def _result(self, call: CallRecord) -> None:
        heard, self._heard = self._heard.strip("\n"), ""
        lines, self._heard_lines = self._heard_lines, 0
        if self._seen and lines >= _HEAD and heard.strip():
            self._fold_rest(call, heard)
        elif heard.strip():
            self._rest(call, heard)
        else:
            self._whole(call)
        if told := call.details.get("traceback"):  # of a function of the person's own
            self._block(str(told).rstrip(), "dim")
        for artifact in call.artifacts:
            self._artifact(artifact)

    def _rest(self, call: CallRecord, heard: str) -> None:
        """Show the rest of a call's output, after the part shown."""
        whole = (call.full_output or call.output).lstrip("\n")
        if not whole.startswith(heard):  # what was heard is not all, or was written over
            self._whole(call)
            return
        rest, kind = whole[len(heard) :], "error" if call.error else "output"
        if rest.strip():
            self._say("\n" if kind == self._kind else "", kind)
            self._say(rest.strip("\n"), kind)
        self._tell_read(call)

    def _whole(self, call: CallRecord) -> None:
        kind = "error" if call.error else "output"
        whole = (call.full_output or call.output).lstrip("\n")
        if self._seen and whole.count("\n") >= _HEAD + _TAIL:
            self._block("\n".join(_lines(whole)[:_HEAD]), kind)
            self._fold_rest(call, whole)
            return
        grid = (
            as_grid(call.output, self._console.width - 2) if self._seen and not call.error else None
        )
        self._block(grid or call.output, kind)

    def _fold_rest(self, call: CallRecord, heard: str) -> None:
        """Show the end of a long output whose first lines are shown, and where all of it is."""
        whole = (call.full_output or call.output).lstrip("\n")
        whole = whole if whole.startswith(heard) else heard
        lines = _lines(whole)[_HEAD:]
        if (hidden := len(lines) - _TAIL) > 0:
            try:
                where = str(save_artifact(Artifact("text/plain", whole.encode(errors="replace"))))
            except (OSError, DataError) as error:
                where = f"kept in the record; {error}"
            self._block(f"[… {hidden:,} lines: {where}]", "notice")
            lines = lines[-_TAIL:]
        if "".join(lines).strip():
            self._block("\n".join(lines), "error" if call.error else "output")
        self._tell_read(call)

    def _tell_read(self, call: CallRecord) -> None:
        if call.full_output is not None:
            read, of = len(call.output), len(call.full_output)
            self._block(f"[the model reads {read:,} of these {of:,} characters]", "notice")

    def _artifact(self, artifact: Artifact) -> None:
        protocol = picture_protocol(os.environ) if self._console.is_terminal else None
        if artifact.mime == "image/png" and protocol is not None:
            self.line()
            show_picture(self._console.file, artifact.data, protocol)
            return
        try:
            self._block(f"[{artifact.mime}: {save_artifact(artifact)}]", "notice")
        except (OSError, DataError) as error:
            self._block(f"[{artifact.mime}: kept in the record; {error}]", "notice")

    def _block(self, text: str, kind: str) -> None:
        self.line()
        self._say(text, kind)

    def _say(self, text: str, kind: str) -> None:
        if kind == "answer" and not self._answers:
            return
        if kind != self._kind:
            self.line()
            self._kind = kind
            if kind == "code" and self._painter.live:
                self._language = self._painter.language
        if kind == "words" and self._prose is not None:
            self._prose.feed(text)
            return
        style = _STYLES[kind]
        for number, part in enumerate(printable(text).split("\n")):
            if number:
                self._light()
                self._breaks += self._begun
            if not part or (not self._begun and not part.strip()):
                continue
            if self._breaks:
                self._console.out("\n" * min(self._breaks, 2), end="", highlight=False)
                self._breaks, self._inside = 0, False
            if not self._inside:
                margin = _MARGINS.get(kind, ("", ""))[self._begun]
                self._console.out(margin, style="dim", end="", highlight=False)
            if kind == "code" and self._console.color_system is not None:
                self._unlit.append(part)
            else:
                self._console.out(part, style=style, end="", highlight=False)
            self._begun = self._inside = True

    def _light(self) -> None:
        """Print the line of code that is whole now, highlighted."""
        line, self._unlit = "".join(self._unlit), []
        if not line:
            return
        lexer = _lexer(self._language)
        if lexer is None:
            self._console.out(line, style=_STYLES["code"], end="", highlight=False)
            return
        text = lexer.highlight(line)
        text.rstrip()
        self._console.print(text, end="", soft_wrap=True, highlight=False)


def _lines(text: str) -> list[str]:
    """The lines of an output, each as it was when it was last written over."""
    return [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\n").split("\n")]


def _fold(line: str, width: int) -> str:
    """The line in as many as the window needs, further ones indented a little more."""
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return (
        textwrap.fill(
            line,
            width,
            subsequent_indent=indent,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        if len(line) > width > len(indent) + 2
        else line
    )


@cache
def _lexer(language: str) -> Any:
    """The highlighter of a language, or None if it is not code."""
    if language not in ("python", "sql"):
        return None

    return Syntax("", language, theme="ansi_dark", background_color="default")


def _call(event: CallStarted | ApprovalAsked) -> str:
    """A call as a person reads it: its code, or its name and arguments."""
    if len(event.arguments) == 1:
        name, value = next(iter(event.arguments.items()))
        if name in ("code", "query") and isinstance(value, str):
            return value
    arguments = ", ".join(f"{name}={value!r}" for name, value in event.arguments.items())
    return f"{event.tool}({arguments})"


def usage_line(result: Result) -> str:
    """The usage: `12 tokens · 1 call · 0.8 s`."""
    usage = result.usage
    calls = f"{usage.calls} call{'' if usage.calls == 1 else 's'}"
    about = "about " if usage.estimated else ""
    return f"{about}{usage.tokens} tokens · {calls} · {usage.seconds:.1f} s"


def why_no_answer(result: Result) -> str:
    """One sentence for a question that ended without an answer, with the option that would help."""
    turns = result.trajectory.turns
    filtered = bool(turns) and turns[-1].finish is FinishReason.FILTERED
    return {
        StopReason.ENDED: "no answer: a filter of the model's server ended the reply"
        if filtered
        else "no answer: the model ended without one",
        StopReason.TURNS: "no answer: the limit of turns is reached (--max-turns)",
        StopReason.LENGTH: "no answer: the limit of tokens is reached (--max-tokens), or the "
        "model's context is full",
        StopReason.TIMEOUT: "no answer: the time is up (--timeout)",
        StopReason.BUDGET: "no answer: the budget is spent (--budget)",
        StopReason.CANCELLED: "stopped",
        StopReason.INFRASTRUCTURE: f"failed on our side: {result.error}",
        StopReason.ANSWERED: "answered",
    }[result.stop]

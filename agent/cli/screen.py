"""What a person sees while a question is answered: on stderr, as it happens."""

from typing import TYPE_CHECKING

from ...rollout.events import CallFinished, CallStarted, Notice, PolicyText
from ...rollout.trajectory import CallRecord, StopReason
from ..result import AgentEvent, Done, Result
from .paint import Painter
from .terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Screen", "usage_line", "why_no_answer"]

_STYLES = {
    "words": "",
    "code": "cyan",
    "answer": "bold",
    "output": "green",
    "error": "red",
    "notice": "yellow",
    "dim": "dim",
}
# The mark at the head of the first line, and of the further ones.
_MARGINS = {"code": ("│ ", "│ "), "output": ("→ ", "  "), "error": ("→ ", "  ")}


class Screen:
    """Shows events: the model's words plain, code, output, errors and notices each in a colour.

    Without colours, code and output still differ by their margin. `answers` says whether an answer
    in tags is shown where it is written; whoever prints it at the end anyway leaves it out.
    """

    def __init__(self, console: "Console", *, answers: bool = True) -> None:
        self._console = console
        self._answers = answers
        self._painter = Painter()
        self._kind = ""
        self._begun = False  # whether this block has a first line already
        self._inside = False  # whether the cursor stands inside a line
        self._breaks = 0  # line feeds that wait for text to follow

    def show(self, event: AgentEvent) -> None:
        """Show one event."""
        if isinstance(event, PolicyText):
            for text, kind in self._painter.feed(event.text):
                self._say(text, kind)
            return
        for text, kind in self._painter.end():
            self._say(text, kind)
        if isinstance(event, CallStarted):
            if not self._painter.live:
                self._block(_call(event), "code")
        elif isinstance(event, CallFinished):
            self._result(event.call)
        elif isinstance(event, Notice):
            self._block(f"[{event.text}]", "notice")
        elif isinstance(event, Done):
            self.line()

    def say(self, text: str, kind: str = "words") -> None:
        """A line of its own."""
        self._block(text, kind)
        self.line()

    def line(self) -> None:
        """Go to the beginning of a line."""
        if self._inside:
            self._console.out("", highlight=False)
        self._kind, self._begun, self._inside, self._breaks = "", False, False, 0

    def gap(self) -> None:
        """An empty line."""
        self.line()
        self._console.out("", highlight=False)

    def _result(self, call: CallRecord) -> None:
        self._block(call.output, "error" if call.error else "output")
        if call.artifacts:
            kinds = ", ".join(artifact.mime for artifact in call.artifacts)
            self._block(f"[{kinds}: kept in the record]", "notice")

    def _block(self, text: str, kind: str) -> None:
        self.line()
        self._say(text, kind)

    def _say(self, text: str, kind: str) -> None:
        if kind == "answer" and not self._answers:
            return
        if kind != self._kind:
            self.line()
            self._kind = kind
        style = _STYLES[kind]
        for number, part in enumerate(printable(text).split("\n")):
            if number:
                self._breaks += self._begun
            if not part or (not self._begun and not part.strip()):
                continue
            if self._breaks:
                self._console.out("\n" * min(self._breaks, 2), end="", highlight=False)
                self._breaks, self._inside = 0, False
            if not self._inside:
                margin = _MARGINS.get(kind, ("", ""))[self._begun]
                self._console.out(margin, style="dim", end="", highlight=False)
            self._console.out(part, style=style, end="", highlight=False)
            self._begun = self._inside = True


def _call(event: CallStarted) -> str:
    """A call as a person reads it: its code, or its name and arguments."""
    if len(event.arguments) == 1:
        name, value = next(iter(event.arguments.items()))
        if name in ("code", "query") and isinstance(value, str):
            return value
    arguments = ", ".join(f"{name}={value!r}" for name, value in event.arguments.items())
    return f"{event.tool}({arguments})"


def usage_line(result: Result) -> str:
    """What it took: `12 tokens · 1 call · 0.8 s`."""
    usage = result.usage
    calls = f"{usage.calls} call{'' if usage.calls == 1 else 's'}"
    return f"{usage.tokens} tokens · {calls} · {usage.seconds:.1f} s"


def why_no_answer(result: Result) -> str:
    """One sentence for a question that ended without an answer, with the option that would help."""
    return {
        StopReason.ENDED: "no answer: the model ended without one",
        StopReason.TURNS: "no answer: the limit of turns is reached (--max-turns)",
        StopReason.LENGTH: "no answer: the limit of tokens is reached (--max-tokens), or the "
        "model's context is full",
        StopReason.TIMEOUT: "no answer: the time is up (--timeout)",
        StopReason.CANCELLED: "stopped",
        StopReason.INFRASTRUCTURE: f"failed on our side: {result.error}",
        StopReason.ANSWERED: "answered",
    }[result.stop]

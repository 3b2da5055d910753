"""The output of a cell: text and artifacts, bounded while it is collected."""

import base64
import binascii
import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..base import Artifact

__all__ = ["CellOutput", "as_text", "one_line"]

MAX_ARTIFACTS = 16
"""Artifacts kept of one cell."""
MAX_ARTIFACT_BYTES = 8_000_000
"""Bytes of all artifacts kept of one cell."""

_KEPT = {
    "image/png": ("plot", "png"),
    "image/jpeg": ("plot", "jpg"),
    "image/gif": ("plot", "gif"),
    "image/svg+xml": ("plot", "svg"),
    "text/html": ("table", "html"),
    "application/pdf": ("document", "pdf"),
}
"""What becomes an artifact, the best first: how it is called, and how its file's name ends."""
_PLAIN = ("text/plain", "text/markdown", "text/latex", "application/json")
_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\ud800-\udfff]")


class CellOutput:
    """Collects one cell's output messages, as a notebook would show them as text.

    stdout, stderr and displays come in the order in which they arrived, then the value of the
    last expression, then the error. Of a text longer than `characters` the head and the tail are
    kept. A picture is a line such as `[image/png: plot-1.png]`, below the object's text if it has
    one, and an artifact of that name; an object that has both a text and an HTML form is read as
    its text, and the HTML is kept. displays.py finds an object's text, where the object is.
    """

    def __init__(
        self,
        characters: int,
        numbers: dict[str, int],
        on_output: Callable[[str], None] | None = None,
    ) -> None:
        """`numbers` counts the names given so far in the session, and is updated. `on_output` gets
        what is printed and displayed as it comes in, without colours.
        """
        self.on_output = on_output
        self._characters = characters
        self._shown = _HeadAndTail(characters)
        self._value = ""
        self._error = ""
        self._numbers = numbers
        self._clear_first = False
        self.artifacts: list[Artifact] = []
        self.received = 0
        """Characters that came in so far, kept or not."""
        self._artifact_bytes = self._artifacts_left_out = self._writes = 0
        self._last_display: _LastDisplay | None = None

    def text(self, error: str = "") -> str:
        """All that was shown so far, with `error` as its end."""
        parts = [_as_on_screen(self._shown.text()), _as_on_screen(self._bounded(self._value))]
        if self._artifacts_left_out:
            parts.append(f"[{self._artifacts_left_out} more outputs are too large or too many]")
        parts.append(_as_on_screen(self._bounded(error)))
        return "\n".join(part.rstrip("\n") for part in parts if part.strip("\n"))

    def add(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take in one message of the kernel's output channel."""
        if kind == "stream":
            self._write(as_text(content.get("text", "")))
        elif kind in ("display_data", "update_display_data"):
            self._show(content, update=kind == "update_display_data")
        elif kind == "execute_result":
            self._value = self._display(content.get("data"))
        elif kind == "clear_output":
            self._clear_first = bool(content.get("wait"))
            if not self._clear_first:
                self._clear()

    def _show(self, content: Mapping[str, Any], update: bool) -> None:
        """Add a display; in the place of the last one, if that is what it updates."""
        if self._clear_first:  # before what is shown is remembered for updates
            self._clear()
        transient = content.get("transient")
        display = as_text(transient.get("display_id", "")) if isinstance(transient, Mapping) else ""
        last = self._last_display
        if update and display and last and (last.id, last.writes) == (display, self._writes):
            self._shown = last.shown
            self._artifact_bytes, self._artifacts_left_out = last.artifact_bytes, last.left_out
            while len(self.artifacts) > last.artifacts:
                name = self.artifacts.pop().name.partition("-")[0]
                self._numbers[name] -= 1
        shown, artifacts = copy.copy(self._shown), len(self.artifacts)
        counts = self._artifact_bytes, self._artifacts_left_out
        self._write_line(self._display(content.get("data")))
        self._last_display = _LastDisplay(display, self._writes, shown, artifacts, *counts)

    def page(self, text: str) -> None:
        """Take in what a notebook would show in its pager, such as the answer to `name?`."""
        self._write_line(text)

    def _bounded(self, text: str) -> str:
        kept = _HeadAndTail(self._characters)
        kept.add(text)
        return kept.text()

    def _clear(self) -> None:
        self._shown.clear()
        self._last_display = None
        self._clear_first = False

    def _write(self, text: str) -> None:
        self.received += len(text)
        self._writes += 1
        if self._clear_first:
            self._clear()
        self._shown.add(text)
        if self.on_output is not None and text:
            self.on_output(_ESCAPE_SEQUENCE.sub("", text))

    def _write_line(self, text: str) -> None:
        if text:
            start = "" if self._shown.at_line_start else "\n"
            self._write(start + text + "\n")

    def _display(self, data: object) -> str:
        if not isinstance(data, Mapping):
            return ""
        plain = next((as_text(data[mime]) for mime in _PLAIN if mime in data), "")
        for mime, (name, ending) in _KEPT.items():
            if mime in data:
                line = self._keep(mime, data[mime], name, ending)
                if not plain:
                    return line
                return f"{plain}\n{line}" if line and mime.startswith("image/") else plain
        return plain

    def _keep(self, mime: str, value: object, name: str, ending: str) -> str:
        """Keep an artifact; the line that stands for it in the text."""
        data = _bytes(mime, value)
        self.received += len(data)
        size = self._artifact_bytes + len(data)
        if len(self.artifacts) == MAX_ARTIFACTS or size > MAX_ARTIFACT_BYTES:
            self._artifacts_left_out += 1
            return ""
        self._artifact_bytes = size
        self._numbers[name] = self._numbers.get(name, 0) + 1
        self.artifacts.append(Artifact(mime, data, f"{name}-{self._numbers[name]}.{ending}"))
        return f"[{mime}: {self.artifacts[-1].name}]"


class _LastDisplay(NamedTuple):
    """A display, and the state of its `CellOutput` before it, to which an update returns."""

    id: str
    writes: int
    """The count of writes right after it: at any other count, it is not the last output."""
    shown: "_HeadAndTail"
    artifacts: int
    artifact_bytes: int
    left_out: int


class _HeadAndTail:
    """A text of which at most `characters` are held, half at either end."""

    def __init__(self, characters: int) -> None:
        self._half = characters // 2
        self.clear()

    def clear(self) -> None:
        self._head = self._tail = ""
        self._left_out = 0
        self.at_line_start = True

    def add(self, text: str) -> None:
        if not text:
            return
        self.at_line_start = text.endswith("\n")
        room = self._half - len(self._head)
        self._head += text[:room]
        tail = self._tail + text[room:]
        self._left_out += max(0, len(tail) - self._half)
        self._tail = tail[-self._half :]

    def text(self) -> str:
        if not self._left_out:
            return self._head + self._tail
        return f"{self._head}\n[... {self._left_out:,} characters left out ...]\n{self._tail}"


def one_line(value: object) -> str:
    """The words of code about itself, as one short line for messages and logs."""
    words = _as_on_screen(as_text(value)[:2_000]).split()
    return " ".join(words)[:300]


def as_text(value: object) -> str:
    """The value as text; it was sent by code that may mean no good."""
    try:
        return value if isinstance(value, str) else str(value)
    except RecursionError:
        return "[a display that is nested too deep to be shown]"


def _bytes(mime: str, value: object) -> bytes:
    text = as_text(value)
    if mime.startswith("text/") or mime.endswith("+xml"):
        return text.encode(errors="replace")
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return text.encode(errors="replace")


def _as_on_screen(text: str) -> str:
    r"""The text as a terminal would leave it: no colours, carriage returns and backspaces done.

    What no terminal shows (NUL, lone surrogates) is written as an escape such as `\x00`.
    """
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n")
    if "\r" in text or "\b" in text:
        text = "\n".join(_overwritten(line) for line in text.split("\n"))
    return _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], text)


def _overwritten(line: str) -> str:
    if "\b" in line:
        kept: list[str] = []
        for character in line:
            if character != "\b":
                kept.append(character)
            elif kept and kept[-1] != "\r":
                kept.pop()
        line = "".join(kept)
    screen = ""
    for part in reversed(line.split("\r")):
        screen += part[len(screen) :]  # what is written later stands over what was there
    return screen

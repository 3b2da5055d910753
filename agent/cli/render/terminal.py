"""Terminal output: text safe to print, and colours."""

import os
import re
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["escape_json", "is_plain", "make_console", "printable"]

# C0 and C1 controls but tab and line feed; marks that turn the direction of text around; what has
# no UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Text that can't move the cursor, set colours or hide: controls are shown, not obeyed.

    What models and tools write goes through here on its way to a terminal.

    Example:
        >>> printable("\x1b[31mred\x07")
        '␛[31mred␇'
    """
    return _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))


def escape_json(line: str) -> str:
    """The same JSON with every such character written as an escape."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def _visible(match: "re.Match[str]") -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\\u{code:04x}"


def is_plain(stream: IO[str]) -> bool:
    """True if colours are off: not a terminal, a dumb one, or `NO_COLOR` is set."""
    dumb = os.environ.get("TERM", "") in ("", "dumb")
    return not stream.isatty() or dumb or bool(os.environ.get("NO_COLOR"))


def make_console(stream: IO[str], **settings: Any) -> "Console":
    """A console for that stream, without any escape sequence where colours don't belong.

    `settings` are rich's, for a stream with colours.
    """
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Raise it: `exit_codes` ends the command, with an exit code of ours."""
            raise BrokenPipeError

    if is_plain(stream) and not settings.get("force_terminal"):
        return Quiet(file=stream, color_system=None, force_terminal=False, highlight=False)
    return Quiet(file=stream, highlight=False, **settings)

"""A program in a real pseudo-terminal: what it shows, what is typed."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from support import warm

PATIENCE = 180.0
"""Seconds; with nothing else to do, a machine needs two or three."""
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>])")


class TerminalSession:
    """`command` with a terminal of its own, which does not outlive the block."""

    def __init__(
        self,
        command: Sequence[str],
        settings: Mapping[str, str],
        *,
        columns: int = 100,
        lines: int = 40,
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        # No answers to questions about the cursor come from here.
        rest = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        how: dict[str, Any] = {
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            # The size is the terminal's; pytest-xdist names another one.
            "env": rest | {k: v for k, v in settings.items() if k not in ("COLUMNS", "LINES")},
        }
        self.process: subprocess.Popen[Any]
        if command[0] == sys.executable:
            self.process = warm.Popen(command, terminal=True, **how)
        else:
            self.process = subprocess.Popen(
                command,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C reaches it
                **how,
            )
        os.close(theirs)
        self.raw = ""
        """Everything that was shown, escape sequences included."""
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait until it is shown, behind what was waited for before; what came until then."""
        end = time.monotonic() + PATIENCE
        while True:
            shown = _SEQUENCES.sub("", self.raw).replace("\r", "")
            found = re.search(pattern, shown[self._read :])
            if found:
                start, self._read = self._read, self._read + found.end()
                return shown[start : self._read]
            left = end - time.monotonic()
            assert left > 0, f"{pattern!r} never came after:\n{shown[self._read :]}"
            if not self._more(min(left, 1.0)) and self.process.poll() is not None:
                raise AssertionError(f"it ended before {pattern!r} came:\n{shown[self._read :]}")

    def end(self) -> int:
        """Wait until it has ended; its exit code."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < end:
            self._more(0.5)
        while self._more(0.1):
            pass
        return self.process.wait(1)

    def _more(self, seconds: float) -> bool:
        """Read what there is."""
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data.decode("utf-8", "replace")
        return bool(data)

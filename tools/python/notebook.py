"""The notebook that a model sees: what both backends show of a cell, and call it.

It is imported in the processes that run cells (jupyter/kernel.py, sandbox/worker.py), over a bare
package (programs.py): so it imports the standard library alone, and quickly.
"""

# IPython's classes are changed here, and typed differently from version to version.
# mypy: disable-error-code="attr-defined,assignment,misc"

import asyncio
import functools
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

MESSAGE_CHARACTERS = 2_000
FRAMES = 6
"""Frames shown at either end of a long traceback."""
WAITING_FOR_WORK = ("concurrent.futures.thread", "multiprocessing.pool", "asyncio.base_events")
"""Modules whose threads outlive the cell that first needs them; `%%bash` works in one as well."""


class Cell:
    """The cell that runs, the cells that threads belong to, and the folder that cells work in."""

    current = 0
    workdir = ""
    """A path without links: frames of files in it are the user's own."""

    @staticmethod
    def of_thread() -> int:
        """The cell in which the current thread was started; the current one, in the main thread
        and in those that wait for work (of a pool, an event loop), whichever cell gives it.
        """
        return getattr(threading.current_thread(), "_cell", Cell.current)

    @staticmethod
    def follow_threads() -> None:
        """Let every thread that is started from now on know its cell."""
        start = threading.Thread.start

        def start_and_remember(thread: threading.Thread) -> None:
            if getattr(thread._target, "__module__", "") not in WAITING_FOR_WORK:
                thread._cell = Cell.of_thread()
            start(thread)

        threading.Thread.start = start_and_remember


class NotebookShell:
    """Mixed into IPython's shells: how cells end and fail, and what they can't do."""

    showtraceback: Any
    system_raw: Any

    def showsyntaxerror(self, *args: object, **options: object) -> None:
        """Show it as every other error is shown."""
        self.showtraceback()

    def showindentationerror(self) -> None:
        """Show it as every other error is shown."""
        self.showtraceback()

    def _format_exception_for_storage(self, *_: object, **__: object) -> dict[str, Any]:
        return {}  # a history of tracebacks that nobody reads, and that is slow to make

    def ask_exit(self) -> None:
        """End the cell, as sys.exit() does, not the process."""
        raise SystemExit

    def enable_matplotlib(self, gui: str | None = None) -> Any:
        """Draw into the output, whichever window a cell asks for: there is no screen."""
        return super().enable_matplotlib("inline")

    def enable_gui(self, gui: str | None = None) -> None:
        """Do nothing: there is no screen."""

    def system(self, cmd: str) -> None:
        """Run a shell command over pipes: behind walls there is no terminal."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        self.system_raw(cmd)


class CellNames:
    """Mixed into IPython's compilers: names cells as a reader would."""

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """The name that is in tracebacks in a file's place."""
        return f"<cell {number}>"


def no_input(prompt: object = "") -> str:
    """In the place of `input`."""
    raise RuntimeError("input() is not available: there is nobody to type an answer")


def no_getpass(prompt: str = "", stream: object = None) -> str:
    """In the place of `getpass.getpass`."""
    raise RuntimeError("getpass() is not available: there is nobody to type an answer")


def give_back(streams: dict[str, Any]) -> None:
    """Set the streams that show what is printed again, whatever a cell left in their place: a cell
    that failed between exchanging them and setting them back would have silenced all later ones.
    """
    for name, stream in streams.items():
        with suppress(Exception):
            getattr(sys, name).flush()
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class RawStream(io.RawIOBase):
    """`sys.stdout.buffer`, of a stream that has none: the bytes are shown as the text they are."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def write(self, data: Any) -> int:
        """Show the bytes."""
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def writable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Do nothing: a wrapper that is thrown away closes what it wraps."""


def let_loops_nest() -> None:
    """Let a cell run an event loop, as a script does, though its own is run by one already.

    The loop that runs is set aside for as long. It can't be run by one of its own callbacks; so
    what it is asked to run to the end (`get_event_loop().run_until_complete(...)`) runs in a new
    one, if it is a coroutine.
    """

    def aside(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            outer = asyncio._get_running_loop()
            if outer is None:
                return function(*args, **options)
            if args and args[0] is outer:
                work = args[1] if len(args) > 1 else options.get("future")
                if asyncio.iscoroutine(work):
                    return asyncio.run(work)
                return function(*args, **options)  # which says why it can't
            asyncio._set_running_loop(None)
            try:
                return function(*args, **options)
            finally:
                asyncio._set_running_loop(outer)
                asyncio.set_event_loop(outer)

        return run

    asyncio.run = aside(asyncio.run)
    for owner, name in (
        (asyncio.Runner, "run"),
        (asyncio.Runner, "close"),
        (asyncio.BaseEventLoop, "run_until_complete"),
        (asyncio.BaseEventLoop, "run_forever"),
    ):
        setattr(owner, name, aside(getattr(owner, name)))


def sendable(text: str) -> str:
    """The text, with what UTF-8 can't hold (lone surrogates) written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def cut(text: str, characters: int) -> str:
    """The text, or its head and tail with a note of what was left out between them."""
    if len(text) <= characters:
        return sendable(text)
    half = characters // 2
    note = f"\n[... {len(text) - 2 * half:,} characters left out ...]\n"
    return sendable(text[:half] + note + text[len(text) - half :])


def describe(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> str:
    """A traceback of the user's own frames, with the line that failed, and `Type: message` last."""
    try:
        report = traceback.TracebackException(kind, error, trace, lookup_lines=False, compact=True)
        keep_own_frames(report)
        lines = [cut(line, MESSAGE_CHARACTERS) for line in report.format()]
    except Exception:
        return f"{kind.__name__}: {shown(error)}"
    if not report.stack and lines and lines[0].startswith("Traceback"):
        lines = lines[1:]
    return "".join(lines).rstrip("\n")


class ShortStack(traceback.StackSummary):
    """Frames of which, where they are many, the first and the last are shown."""

    def format(self, **options: Any) -> list[str]:
        """One text a frame; repetitions are counted, not shown."""
        lines = super().format(**options)
        more = len(lines) - 2 * FRAMES
        if more <= 0:
            return lines
        return [*lines[:FRAMES], f"  ... {more} more ...\n", *lines[-FRAMES:]]


def keep_own_frames(report: traceback.TracebackException) -> None:
    """Drop the frames of libraries, here and in chained exceptions, and chains without any left."""
    own = [
        traceback.FrameSummary(frame.filename, frame.lineno, frame.name, line=frame.line)
        for frame in report.stack
        if is_own(frame.filename)
    ]
    report.stack = ShortStack(own)
    for name in ("__cause__", "__context__"):
        chained = getattr(report, name)
        if chained is not None:
            keep_own_frames(chained)
            if not chained.stack:
                setattr(report, name, None)
    for part in report.exceptions or ():
        keep_own_frames(part)


def is_own(filename: str) -> bool:
    """True if a frame is from a cell or from a file in the session's working directory."""
    return filename.startswith("<cell ") or (
        os.path.isabs(filename) and os.path.realpath(filename).startswith(Cell.workdir + os.sep)
    )


def shown(error: BaseException) -> str:
    """The exception's message, even where its own `__str__` fails."""
    try:
        return cut(str(error), MESSAGE_CHARACTERS)
    except Exception:
        return ""

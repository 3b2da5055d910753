"""The program inside the kernel process: ipykernel, showing what is worth a model's tokens.

Run as `python kernel.py CONNECTION_FILE CHARACTERS`. It imports nothing of this package, so that
it starts quickly in any environment that has ipykernel. What it changes of ipykernel:

- cells are called `<cell 1>`, `<cell 2>`, ..., and a traceback holds only the user's own frames;
- a cell's output is bounded where it is written: the head is sent at once, the tail at the end;
- what a program writes to the file descriptors 1 and 2 is in the output before the cell ends;
- output is neither kept once it is sent nor dropped where its reader is slow;
- `input()` says why there is none;
- a cell that leaves no `sys.stdout` does so for itself alone;
- the process dies with its parent, and keeps its own children findable.

Nothing here is a wall: the code that runs in this process can undo all of it.
"""

# How far ipykernel is typed differs from version to version, and its classes are changed here.
# mypy: disable-error-code="no-untyped-call,override,assignment,misc,attr-defined"

import asyncio
import codecs
import codeop
import ctypes
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import threading
import time
import traceback
import warnings
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MESSAGE_CHARACTERS = 2_000
DISPLAY_BYTES = 8_000_000
NOTE_CHARACTERS = 60
"""Room for the line that says how much was left out."""
WAITING = 32
"""Messages of output that may wait at each stage of their way out."""
WAKE_SECONDS = 0.2
FRAMES = 6
"""Frames shown at either end of a long traceback."""


def main() -> None:
    """Start the kernel and serve it until the process is killed."""
    connection_file, characters = Path(sys.argv[1]), int(sys.argv[2])
    die_with_parent()
    try:
        # The debugger costs a fifth of the start-up time and nobody attaches it here.
        sys.modules["debugpy"] = None
        sys.path.insert(0, "")  # the session's files can be imported
        app = make_app(connection_file, characters)
        del sys.modules["debugpy"]
    except BaseException:
        connection_file.with_name("failure").write_text(traceback.format_exc())
        raise
    app.start()


def die_with_parent() -> None:
    """Ask the system to kill this process with the thread that started it."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ.get("JPY_PARENT_PID", os.getppid())):
        os._exit(1)  # the parent died before the line above
    # A program that the user's code detaches stays this process's child, and is found and killed.
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def make_app(connection_file: Path, characters: int) -> Any:
    """An initialised `IPKernelApp` with the changes that the module's docstring lists."""
    from ipykernel import iostream, ipkernel
    from ipykernel.compiler import XCachingCompiler
    from ipykernel.kernelapp import IPKernelApp
    from ipykernel.zmqshell import ZMQInteractiveShell
    from zmq import RCVHWM, SNDHWM, XPUB_NODROP

    own_streams: dict[str, Any] = {}

    class Stream(BoundedStream, iostream.OutStream):
        head_characters = tail_characters = (characters - NOTE_CHARACTERS) // 2

    class Compiler(XCachingCompiler):
        def __init__(self) -> None:
            super().__init__()
            # Say what is wrong with an unfinished cell, not that there could be more of it.
            self.flags &= ~codeop.PyCF_ALLOW_INCOMPLETE_INPUT

        def get_code_name(self, raw_code: str, code: str, number: int) -> str:
            return f"<cell {number}>"

    class Shell(ZMQInteractiveShell):
        def showtraceback(self, exc_tuple: Any = None, *args: object, **options: object) -> None:
            kind, error, trace = self._get_exc_info(exc_tuple)
            self._showtraceback(kind, shown(error), [describe(kind, error, trace)])

        def showsyntaxerror(self, *args: object, **options: object) -> None:
            self.showtraceback()

        def showindentationerror(self) -> None:
            self.showtraceback()

        def _format_exception_for_storage(self, *_: object, **__: object) -> dict[str, Any]:
            return {}  # a history of tracebacks that nobody reads, and that is slow to make

        def ask_exit(self) -> None:  # exit() ends the cell, as sys.exit() does, not the kernel
            raise SystemExit

        def system(self, cmd: str) -> None:  # over pipes: behind walls there is no terminal
            if cmd.rstrip().endswith("&"):
                raise OSError("Background processes not supported.")
            self.system_raw(cmd)

        def _tee(self, channel: str) -> Any:  # IPython keeps all that is ever printed, unless told
            return nullcontext()

    class App(IPKernelApp):
        def init_iopub(self, context: Any) -> None:
            # A slow reader makes the cell wait: nothing is dropped, and little is held.
            for option, value in ((SNDHWM, WAITING), (RCVHWM, WAITING), (XPUB_NODROP, 1)):
                context.setsockopt(option, value)
            super().init_iopub(context)

    class Kernel(ipkernel.IPythonKernel):
        def raw_input(self, prompt: str = "") -> str:
            raise RuntimeError("input() is not available: there is nobody to type an answer")

        def getpass(self, prompt: str = "", stream: object = None) -> str:
            raise RuntimeError("getpass() is not available: there is nobody to type an answer")

        def start(self) -> None:
            super().start()
            # An interrupt is only seen when the event loop wakes: while a cell awaits, that may
            # be never.
            loop = asyncio.get_event_loop()

            def wake() -> None:
                loop.call_later(WAKE_SECONDS, wake)

            wake()

        async def do_execute(self, *args: Any, **options: Any) -> dict[str, Any]:
            Cell.current += 1
            streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, Stream)]
            for stream in streams:
                stream.open_cell()
            try:
                reply: dict[str, Any] = await super().do_execute(*args, **options)
            except (Exception, asyncio.CancelledError) as error:
                # An exception whose own __str__ raises; or an interrupt while the cell awaited.
                name = type(error).__name__
                reply = {"status": "error", "ename": name, "evalue": "", "traceback": []}
            finally:
                for stream in streams:
                    stream.close_cell()
                give_back(own_streams)
                Cell.current += 1  # what comes between two cells belongs to neither
            return reply

    Kernel.shell_class = Shell
    Kernel.compiler_class = ipkernel.XCachingCompiler = Compiler  # ipykernel 7, ipykernel 6
    iostream.OutStream = Stream
    app = App.instance(kernel_class=Kernel)
    app.initialize(["-f", str(connection_file), "--HistoryManager.enabled=False"])
    own_streams.update(stdout=sys.stdout, stderr=sys.stderr)
    bound_displays(app.shell, characters)
    Cell.follow_threads()
    # Neither is the doing of the user's code: the threads are the kernel's.
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
    return app


def bound_displays(shell: Any, characters: int) -> None:
    """Bound the text of displayed objects before it is sent."""
    format_object = shell.display_formatter.format

    def bounded(*args: Any, **options: Any) -> Any:
        data, metadata = format_object(*args, **options)
        for mime, text in list(data.items()):
            if mime == "text/plain" and isinstance(text, str):
                data[mime] = cut(text, characters)
            elif isinstance(text, str | bytes) and len(text) > DISPLAY_BYTES:
                del data[mime]
            elif isinstance(text, str):
                data[mime] = sendable(text)
        return data, metadata

    shell.display_formatter.format = bounded


class Cell:
    """The cell that runs, and the cells that threads belong to."""

    current = 0

    @staticmethod
    def of_thread() -> int:
        """The cell in which the current thread was started; the current one, in the main thread."""
        return getattr(threading.current_thread(), "_cell", Cell.current)

    @staticmethod
    def follow_threads() -> None:
        """Let every thread that is started from now on know its cell."""
        start = threading.Thread.start

        def start_and_remember(thread: threading.Thread) -> None:
            thread._cell = Cell.of_thread()
            start(thread)

        threading.Thread.start = start_and_remember


# -- output --------------------------------------------------------------------------------------


def give_back(streams: dict[str, Any]) -> None:
    """Set the streams again of which a cell left none: or nothing would be shown from then on."""
    for name, stream in streams.items():
        if not all(callable(getattr(getattr(sys, name, 0), do, 0)) for do in ("write", "flush")):
            setattr(sys, name, stream)


class BoundedStream:
    """Mixed into ipykernel's `OutStream`: of a long output, the head and the tail are sent."""

    head_characters = tail_characters = 0
    last: "BoundedStream | None" = None
    """The stream that was written to last, of all of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._guard = threading.RLock()
        self._reading = threading.Lock()
        self._drained = 0.0
        self._sent = self._left_out = self._kept = 0
        self._tail: deque[str] = deque()
        super().__init__(*args, **options)

    def open_cell(self) -> None:
        """Start counting anew."""
        with self._guard:
            self._sent = self._left_out = self._kept = 0
            self._tail.clear()

    def close_cell(self) -> None:
        """Send what was written last, with a line that says how much was left out before it."""
        self._drain(0.5)
        with self._guard:
            tail = "".join(self._tail)
            self._left_out += max(0, len(tail) - self.tail_characters)
            note = f"\n[... {self._left_out:,} characters left out ...]\n" if self._left_out else ""
            if tail:
                super().write(note + sendable(tail[-self.tail_characters :]))
            self._sent = self._left_out = self._kept = 0
            self._tail.clear()
        self.flush()

    def write(self, string: str) -> int:
        """Send the string, as far as it is within the head; remember the rest."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string).__name__}")
        if Cell.of_thread() != Cell.current:
            return len(string)  # a thread of an earlier cell
        if threading.current_thread() is not getattr(self, "watch_fd_thread", None):
            now = time.monotonic()
            if now - self._drained > 0.0005:  # no program runs and ends in less
                self._drain(0.05)  # what it wrote comes before this line
            self._drained = now
        with self._guard:
            room = self.head_characters - self._sent
            if room > 0:
                self._keep_order()
                super().write(sendable(string[:room]))
                self._sent += min(room, len(string))
            if len(string) > room:
                self._remember(string[max(room, 0) :])
        return len(string)

    def _keep_order(self) -> None:
        """Send what the other stream holds before this one's text is sent."""
        other, BoundedStream.last = BoundedStream.last, self
        if other is not None and other is not self:
            other.flush()

    def _remember(self, string: str) -> None:
        if len(string) > self.tail_characters:
            self._left_out += len(string) - self.tail_characters
            string = string[-self.tail_characters :]
        self._tail.append(string)
        self._kept += len(string)
        while self._kept - len(self._tail[0]) >= self.tail_characters:
            dropped = len(self._tail.popleft())
            self._kept -= dropped
            self._left_out += dropped

    def _watch_pipe_fd(self) -> None:
        """Read what programs write to the file descriptor (a thread runs this).

        Unlike the original it never cuts a character in two, and holds a lock between reading
        and writing, so that the end of a cell can wait for it.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pipe: int = self._fid
        while self._should_watch:
            select.select([pipe], [], [])
            with self._reading:
                data = os.read(pipe, 65_536)
                if not data:
                    return
                self.write(decoder.decode(data))

    def _drain(self, seconds: float) -> None:
        """Wait until what was written to the file descriptor is in the stream."""
        pipe = getattr(self, "_fid", None)
        if pipe is None:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._reading:
                waiting = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
            if struct.unpack("i", waiting)[0] == 0:
                return
            time.sleep(0.001)


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


# -- errors --------------------------------------------------------------------------------------


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


class Frames(traceback.StackSummary):
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
    report.stack = Frames(own)
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
        os.path.isabs(filename) and os.path.realpath(filename).startswith(WORK + os.sep)
    )


def shown(error: BaseException) -> str:
    """The exception's message, even where its own `__str__` fails."""
    try:
        return cut(str(error), MESSAGE_CHARACTERS)
    except Exception:
        return ""


WORK = os.path.realpath(os.getcwd())

if __name__ == "__main__":
    main()

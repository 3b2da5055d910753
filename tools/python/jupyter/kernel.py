"""The program inside the kernel process: ipykernel, showing what is worth a model's tokens.

It is started over a bare package (programs.py), or called where the walls stand already
(enclosed.py), whence nothing more of this package can be imported. What it changes of ipykernel:

- cells are called `<cell 1>`, `<cell 2>`, ..., and a traceback holds only the user's own frames;
- a cell's output is bounded where it is written: the head is sent at once, the tail at the end;
- what a program writes to the file descriptors 1 and 2 is in the output before the cell ends;
- output is neither kept once it is sent nor dropped where its reader is slow;
- `input()` says why there is none;
- a cell that exchanges `sys.stdout` does so for itself alone;
- the process dies with its parent, and keeps its own children findable.

Nothing here is a wall: the code that runs in this process can undo all of it.
"""

# How far ipykernel is typed differs from version to version, and its classes are changed here.
# mypy: disable-error-code="no-untyped-call,override,assignment,misc,attr-defined,union-attr"

import asyncio
import codecs
import codeop
import fcntl
import os
import select
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
from typing import Any

from .. import displays, notebook
from ..notebook import Cell
from ..walls import walls

__all__ = ["WAITING", "main"]

NOTE_CHARACTERS = 60
"""Room for the line that says how much was left out."""
WAITING = 32
"""Messages of output that may wait at each stage of their way out."""
WAKE_SECONDS = 0.2


def main(connection_file: str, characters: str) -> None:
    """Start the kernel that works in the current folder; serve it until the process is killed."""
    sys.argv = ["kernel.py", connection_file, characters]
    walls.die_with(int(os.environ["JPY_PARENT_PID"]))
    Cell.workdir = os.path.realpath(os.getcwd())
    try:
        # The debugger costs a fifth of the start-up time and nobody attaches it here.
        sys.modules["debugpy"] = None
        sys.path.insert(0, "")  # the session's files can be imported
        app = make_app(connection_file, int(characters))
        del sys.modules["debugpy"]
    except BaseException:
        Path(connection_file).with_name("failure").write_text(traceback.format_exc())
        raise
    app.start()


def make_app(connection_file: str, characters: int) -> Any:
    """An initialised `IPKernelApp` with the changes that the module's docstring lists."""
    from ipykernel import iostream, ipkernel
    from ipykernel.compiler import XCachingCompiler
    from ipykernel.kernelapp import IPKernelApp
    from ipykernel.zmqshell import ZMQInteractiveShell
    from zmq import RCVHWM, SNDHWM, XPUB_NODROP

    own_streams: dict[str, Any] = {}

    class KernelStream(BoundedStream, iostream.OutStream):
        head_characters = tail_characters = (characters - NOTE_CHARACTERS) // 2

    class KernelCompiler(notebook.CellNames, XCachingCompiler):
        def __init__(self) -> None:
            super().__init__()
            # Say what is wrong with an unfinished cell, not that there could be more of it.
            self.flags &= ~codeop.PyCF_ALLOW_INCOMPLETE_INPUT

    class KernelShell(notebook.NotebookShell, ZMQInteractiveShell):
        def showtraceback(self, exc_tuple: Any = None, *args: object, **options: object) -> None:
            kind, error, trace = self._get_exc_info(exc_tuple)
            text = notebook.describe(kind, error, trace)
            self._showtraceback(kind, notebook.shown(error), [text])

        def _tee(self, channel: str) -> Any:  # IPython keeps all that is ever printed, unless told
            return nullcontext()

    class KernelApp(IPKernelApp):
        def init_iopub(self, context: Any) -> None:
            # A slow reader makes the cell wait: nothing is dropped, and little is held.
            for option, value in ((SNDHWM, WAITING), (RCVHWM, WAITING), (XPUB_NODROP, 1)):
                context.setsockopt(option, value)
            super().init_iopub(context)

    class ModelKernel(ipkernel.IPythonKernel):
        raw_input = staticmethod(notebook.no_input)
        getpass = staticmethod(notebook.no_getpass)

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
            streams = own_streams.values()
            for stream in streams:
                stream.open_cell()
            try:
                reply: dict[str, Any] = await super().do_execute(*args, **options)
            except (Exception, asyncio.CancelledError) as error:
                # An exception whose own __str__ raises; or an interrupt while the cell awaited.
                name = type(error).__name__
                reply = {"status": "error", "ename": name, "evalue": "", "traceback": []}
            finally:
                notebook.give_back(own_streams)
                for stream in streams:
                    stream.close_cell()
                Cell.current += 1  # what comes between two cells belongs to neither
            return reply

    ModelKernel.shell_class = KernelShell
    ModelKernel.compiler_class = ipkernel.XCachingCompiler = (
        KernelCompiler  # ipykernel 7, ipykernel 6
    )
    iostream.OutStream = KernelStream
    app = KernelApp.instance(kernel_class=ModelKernel)
    app.initialize(["-f", connection_file, "--HistoryManager.enabled=False"])
    own_streams.update(stdout=sys.stdout, stderr=sys.stderr)
    displays.bound_displays(app.shell, characters)
    Cell.follow_threads()
    notebook.let_loops_nest()
    # tqdm.auto takes these for signs of a notebook, and would show its bars as widgets, not text.
    app.shell.config.pop("IPKernelApp", None)
    sys.modules.pop("ipykernel.zmqshell", None)
    # Neither is the doing of the user's code: the threads are the kernel's.
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
    return app


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
        self.buffer = notebook.RawStream(self)

    def reconfigure(self, **options: object) -> None:
        """Do nothing: what is written is text, and sent as it is."""

    def open_cell(self) -> None:
        """Start counting again."""
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
                super().write(note + notebook.sendable(tail[-self.tail_characters :]))
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
                super().write(notebook.sendable(string[:room]))
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

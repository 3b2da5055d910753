"""The end of a command: exit codes, signals, and one sentence if something went wrong."""

import asyncio
import errno
import io
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any, TextIO, TypeVar

import typer

from .. import JSON_VERSION
from .render.terminal import escape_json, printable

__all__ = [
    "EXIT_CODES",
    "Exit",
    "Terminated",
    "catch_sigterm",
    "eprint",
    "exit_codes",
    "open_streams",
    "print_json",
    "run_to_end",
]

T = TypeVar("T")


class Exit(IntEnum):
    """The exit codes of all commands. They never change their meaning."""

    DONE = 0
    BUG = 1
    USAGE = 2
    NO_ANSWER = 3
    BUDGET = 4
    APPROVAL = 5
    MODEL = 6
    UNAVAILABLE = 7
    THRESHOLD = 8
    DATA = 9
    INTERRUPTED = 130
    UNREAD = 141
    TERMINATED = 143


EXIT_CODES = """\
Exit codes:
  0    done; for a question: answered
  1    a bug in interlace
  2    invalid command line, or an optional dependency is missing
  3    no answer: the model ended without one, or a limit was reached
  4    no answer: a budget is spent
  5    no answer: a call was not approved
  6    the model: unknown, broken, too large for this machine
  7    a tool or the engine failed, not the model
  8    an evaluation is below its threshold
  9    a data file is missing, unreadable or corrupt
  130  stopped with Ctrl-C
  141  the reader of the output has gone (`| head -1`)
  143  stopped with SIGTERM"""


class Terminated(BaseException):
    """SIGTERM came."""


_SYSTEM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_SYSTEM |= {errno.EIO, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE}
"""Errors of the system that are nobody's bug: full or broken disks, missing rights, limits."""


class _Output(io.TextIOWrapper):
    """stdout: if its disk is full, the command ends with one sentence."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            _silence(self)
            error.filename = "can't write the output"  # which opens the sentence about it
        raise error


class _Notices(_Output):
    """stderr: notices that can't be written are lost, and never end the work."""

    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error


def open_streams() -> None:
    """Prepare the standard streams: a closed one leads nowhere, and a character that a terminal
    can't show is shown as its number.
    """
    while (lowest := os.open(os.devnull, os.O_RDWR)) < 3:
        # Otherwise the next file that this process, or one started by it, opens would be a stream.
        os.set_inheritable(lowest, True)
    os.close(lowest)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = _reopened(1, sys.stdout, _Output), _reopened(2, sys.stderr, _Notices)


def _reopened(number: int, stream: Any, kind: type[_Output]) -> _Output:
    return kind(
        open(number, "wb", closefd=False),
        encoding=getattr(stream, "encoding", None),
        errors="backslashreplace",
        # PYTHONUNBUFFERED and `python -u` set write_through, which ends at our own buffer.
        line_buffering=number == 2 or os.isatty(number) or getattr(stream, "write_through", False),
    )


def catch_sigterm() -> None:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that everything is cleaned up."""

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


def run_to_end(work: Coroutine[Any, Any, T], *, interrupt: bool = True) -> T:
    """Run `work` in an event loop. Ctrl-C and SIGTERM cancel it; once it has cleaned up,
    KeyboardInterrupt or `Terminated` is raised. A second Ctrl-C does not wait for that. Without
    `interrupt`, Ctrl-C is the work's own business.
    """
    signals = (signal.SIGINT, signal.SIGTERM) if interrupt else (signal.SIGTERM,)
    return asyncio.run(_watched(work, signals))


async def _watched(work: Coroutine[Any, Any, T], signals: Sequence[int]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    caught: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in signals}

    def stop(signum: int) -> None:
        caught.append(signum)
        loop.remove_signal_handler(signum)
        if signum == signal.SIGTERM:
            catch_sigterm()
        task.cancel()

    for signum in signals:
        loop.add_signal_handler(signum, stop, signum)
    try:
        result = await task
    except asyncio.CancelledError:
        if not caught:
            raise
    finally:
        for signum, handler in before.items():
            loop.remove_signal_handler(signum)
            signal.signal(signum, handler)
    if caught:
        raise Terminated if caught[0] == signal.SIGTERM else KeyboardInterrupt
    return result


@contextmanager
def exit_codes(*, json: bool = False, debug: bool = False) -> Iterator[None]:
    """Turn an error that a command raises into its exit code and one sentence on stderr.

    With `json`, an error other than a bug is an object on stdout as well. With `debug`, the
    traceback comes before the sentence.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except SystemExit as end:
        if end.code == 1 and _silence_unread():  # the library's own, while it printed a help text
            raise typer.Exit(Exit.UNREAD) from None
        raise
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
    except Terminated:
        raise typer.Exit(Exit.TERMINATED) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _silence_unread():
            raise typer.Exit(Exit.UNREAD) from None
        if debug:
            traceback.print_exc()
        raise typer.Exit(_report(error, json=json, debug=debug)) from None


def _silence_unread() -> bool:
    """Silence stdout and stderr if their reader is gone, and return True if either was silenced.
    Text still buffered for them must not be written again at exit.
    """
    unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream.fileno())]
    for stream in unread:
        _silence(stream)
    return bool(unread)


def _silence(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _is_unread(descriptor: int) -> bool:
    """True if the descriptor is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)  # the errors are always reported
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _report(error: Exception, *, json: bool, debug: bool) -> int:
    """Print an error in one sentence and return its exit code."""
    from ...tools.errors import (
        DataError,
        InterlaceError,  # here: it takes the tools along, a fifth of a second
    )

    if isinstance(error, OSError) and error.errno in _SYSTEM:
        where = f"{error.filename}: " if error.filename else ""
        error = DataError(f"{where}{error.strerror}")
    if not isinstance(error, InterlaceError):
        more = "" if debug else " (please report it with what --debug prints)"
        eprint(f"a bug in interlace: {type(error).__name__}: {error}{more}")
        return Exit.BUG
    eprint(str(error))
    if json:
        print_json({"answer": None, "stop": None, "error": str(error)})
    return error.exit_code


def eprint(sentence: str) -> None:
    """Print one sentence on stderr."""
    print(f"interlace: {printable(sentence)}", file=sys.stderr, flush=True)


def print_json(fields: dict[str, Any]) -> None:
    """One object, one line, on stdout; nothing in it can act on a terminal."""
    line = json.dumps({"schema_version": JSON_VERSION, **fields}, ensure_ascii=False)
    print(escape_json(line), flush=True)

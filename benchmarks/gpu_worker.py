"""Rows of a table that can't take the table down: each runs in a process that may be killed.

Rows of one subject share a process, so that a model is loaded once. A row that fails, hangs or
dies is reported with its reason, and a fresh process takes up the rest.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Figure", "Found", "Row", "Subject", "measure"]


@dataclass(frozen=True)
class Figure:
    """One line of the table. `state`: ok, n/a, not installed, failed, not begun, missing; where it
    is not ok, `reason` says why.
    """

    row: str
    model: str
    name: str
    value: float | str | None = None
    unit: str = ""
    state: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """What a row measured: a number with its unit, or a word."""

    name: str
    value: float | str | None
    unit: str = ""
    state: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """What is measured, in `seconds` at most: `function`, given its subject.

    `function` is named as `module:function`, so that only its process imports it; it yields what it
    has `Found`. A row that `needs` another of its model is not begun where that one failed, nor one
    whose `package` is not installed.
    """

    name: str
    model: str
    subject: "Subject"
    function: str
    seconds: float
    needs: str | None = None
    package: str | None = None


@dataclass(frozen=True, eq=False)
class Subject:
    """What rows are about: `make`, named as `module:function`, is called with `given`, once in each
    process; rows with the same subject share one.
    """

    make: str
    given: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _End:
    """The row is over; `state` is not ok where it failed."""

    state: str = "ok"
    reason: str = ""


def measure(rows: Sequence[Row], seconds: float) -> Iterator[Figure]:
    """The figures of all rows, as they come, within so many seconds in all."""
    until = time.monotonic() + seconds
    failed: set[tuple[str, str]] = set()
    worker: _Worker | None = None
    try:
        for row in rows:
            end = _End()
            left = until - time.monotonic()
            if row.needs is not None and (row.model, row.needs) in failed:
                end = _End("not begun", f"it needs {row.needs!r}, which failed")
            elif row.package is not None and find_spec(row.package) is None:
                end = _End("not installed")
            elif left <= 0:
                end = _End("not begun", f"the {seconds:g} seconds were over")
            else:
                if worker is None or worker.subject is not row.subject:
                    if worker is not None:
                        worker.kill()
                    worker = _Worker(row.subject)
                for said in worker.ask(row.function, min(row.seconds, left)):
                    if isinstance(said, _End):
                        end = said
                    else:
                        yield Figure(row.name, row.model, **vars(said))
                if end.state != "ok":
                    worker.kill()
                    worker = None
            if end.state != "ok":
                failed.add((row.model, row.name))
                yield Figure(row.name, row.model, "", state=end.state, reason=end.reason)
    finally:
        if worker is not None:
            worker.kill()


class _Worker:
    """A process with a subject in it."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        context = get_context("spawn")  # a forked process could not use the card
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, subject))
        self._process.start()
        there.close()  # so that the pipe ends with the process

    def ask(self, function: str, seconds: float) -> Iterator[Found | _End]:
        """What a row measures, and its end."""
        until = time.monotonic() + seconds
        try:
            self._here.send(function)
            while self._here.poll(max(0.0, until - time.monotonic())):
                said = self._here.recv()
                yield said
                if isinstance(said, _End):
                    return
        except (EOFError, OSError):
            self._process.join(5)
            yield _End("failed", f"its process died (exit code {self._process.exitcode})")
            return
        yield _End("failed", f"it took more than {seconds:.0f} seconds")

    def kill(self) -> None:
        """End the process and all that it has started."""
        pid = self._process.pid
        assert pid is not None
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # dead, or killed before it had a group of its own
            self._process.kill()
        self._process.join()
        self._here.close()


def _serve(pipe: Connection, subject: Subject) -> None:
    """The process: make the subject, then answer row by row until it is killed."""
    os.setsid()  # Ctrl-C is the table's; and whoever is started here dies with us
    os.dup2(2, 1)  # what libraries print is not the table's
    made: Any = None
    while True:
        try:
            function = pipe.recv()
        except EOFError:  # the table's process is gone
            return
        try:
            made = _named(subject.make)(*subject.given) if made is None else made
            for found in _named(function)(made):
                pipe.send(found)
            pipe.send(_End())
        except BaseException as error:  # whatever a card, a driver or a library says
            said = (str(error).strip() or "nothing").splitlines()[0]
            pipe.send(_End("failed", f"{type(error).__name__}: {said}"))


def _named(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found

r"""Whether two mathematical answers are equal: as text, as numbers, else through math-verify.

math-verify is asked in processes of their own (`math_worker`), which a hostile expression can hang
or crash without harm: `\boxed{9^{9^{9^9}}}` is then simply wrong.
"""

import contextlib
import importlib.util
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...rollout.task import equal_answers
from ...tools.errors import MissingExtra
from .base import Unscored

__all__ = ["MathVerify", "plain_math"]

_SCRIPT = Path(__file__).with_name("math_worker.py")
_LONGEST = 2000
"""Characters of an answer that is looked at; the longest gold answers have some hundreds."""
_PATIENCE = 300.0
"""Seconds of wall time for a process to start or to answer: what ends a computation is its CPU
time, so this only finds a process that sleeps, or a machine with no time at all for us."""
_LOST_OVER_IT = (signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT)
"""How a process ends over an expression: out of time, or out of stack or memory inside C."""
_HARMLESS = "0.12345"
_KEPT = 4096
"""Verdicts that are remembered: the answers of a group are often the same."""


class MathVerify:
    """Compares mathematical answers, in processes that start at the first need and are kept.

    `seconds` of CPU time is what a pair of answers may take (a busy machine so never makes a right
    answer wrong), `memory` the bytes of address space a process may take. Thread-safe: each
    thread that asks at the same time has a process of its own. Close it, or use `with`.

    Raises MissingExtra where math-verify is needed and not installed.
    """

    def __init__(self, *, seconds: float = 5.0, memory: int = 4 << 30) -> None:
        self.seconds = seconds
        self.memory = memory
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._kept: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._sound: set[str] = set()  # gold answers that can be worked out
        weakref.finalize(self, _close_all, self._idle)

    def equal(self, gold: str, answer: str) -> bool:
        r"""Whether `answer` equals `gold`: `14/3` equals `\frac{14}{3}`, `2, 1` equals `\{1,2\}`.

        An answer that can't be read within the limits is wrong. Words (`East`) are compared as
        text. Raises Unscored where it is the gold answer that can't be compared.
        """
        if len(answer) > _LONGEST:
            return False
        gold_text, text = plain_math(gold), plain_math(answer)
        if not text:
            return False
        if text == gold_text or equal_answers(text, gold_text):
            return True
        if _is_word(gold_text) or not _is_expression(text):
            return False
        pair = (gold_text, text)
        with self._lock:
            if pair in self._kept:
                return self._kept[pair]
        verdict = self._ask(gold_text, text)
        with self._lock:
            self._kept[pair] = verdict
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return verdict

    def close(self) -> None:
        """End the processes that are not in use."""
        with self._lock:
            _close_all(self._idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, gold: str, answer: str) -> bool:
        verdict = self._verdict(gold, answer)
        if verdict is None and gold not in self._sound:
            # Lost over the answer, or over the gold one? That shows beside a harmless one.
            if self._verdict(gold, _HARMLESS) is None:
                raise Unscored(f"the answer {gold!r} of the task can't be worked out")
            self._sound.add(gold)
        return bool(verdict)

    def _verdict(self, gold: str, answer: str) -> bool | None:
        """Whether they are equal; None where the process was lost over it."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self.seconds, self.memory)
        verdict = None
        try:
            verdict = worker.equal(gold, answer)
        finally:
            if verdict is None:
                worker.close()
            else:
                with self._lock:
                    self._idle.append(worker)
        return verdict


class _Worker:
    """One process of math-verify."""

    def __init__(self, seconds: float, memory: int) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("comparing mathematical answers", "train")
        self._process = subprocess.Popen(
            # -P: the script's own folder holds a file that is named like the standard `math`.
            [sys.executable, "-P", str(_SCRIPT), str(seconds), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in a terminal is for us
        )
        self._read = b""
        try:
            if self._receive() is None:
                raise Unscored("the process of math-verify does not start")
        except Unscored:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def equal(self, gold: str, answer: str) -> bool | None:
        """Whether they are equal; None where the process is lost over it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([gold, answer]).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Unscored("the process of math-verify is gone") from None
        first = self._receive()
        if first is None or not first.get("gold"):
            raise Unscored(f"the answer {gold!r} of the task can't be read as mathematics")
        reply = self._receive()
        if reply is None:
            if -self._process.wait() not in _LOST_OVER_IT:
                raise Unscored("the process of math-verify was ended")
            return None
        return bool(reply["equal"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not written yet has no reader
                    pipe.close()

    def _receive(self) -> dict[str, Any] | None:
        """The next reply; None where the process ends. Raises Unscored where patience does."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(_PATIENCE):
                    raise Unscored("the machine is too busy for math-verify")
                data = os.read(self._process.stdout.fileno(), 4096)
                if not data:
                    return None
                self._read += data
        line, _, self._read = self._read.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _close_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().close()


# -- text ----------------------------------------------------------------------------------------

_SPACING = re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[!,;: ]|~")
_STYLED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|textrm)\s*\{([^{}\\]*)\}")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def plain_math(text: str) -> str:
    r"""An answer without what says nothing about its value: spacing, styles, `$` around it.

    Example:
        >>> plain_math(r"$\left( 3, \dfrac{\pi}{2} \right)$"), plain_math(r"\text{East}.")
        ('( 3, \\frac{\\pi}{2} )', 'East')
    """
    text = _FRACTION.sub(r"\\frac", _SPACING.sub(" ", text))
    text = " ".join(_STYLED.sub(r" \1 ", text).split()).rstrip(".")
    for mark in ("$$", "$"):
        inner = text[len(mark) : -len(mark)].strip()
        if inner and text.startswith(mark) and text.endswith(mark) and "$" not in inner:
            text = inner
    return text.removeprefix(r"\$").strip()


def _is_word(text: str) -> bool:
    """Whether it is a word or a name. As a product of its letters, `act` would equal `cat`."""
    return re.fullmatch(r"[^\W\d_]{3,}([ .'-]+[^\W\d_]+)*", text) is not None


def _is_expression(text: str) -> bool:
    r"""Whether it may stand in one `\boxed{}`: braces in pairs, and no box of its own.

    `4} \boxed{3` would be two answers.
    """
    depth = 0
    for match in _BRACES.finditer(text):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth < 0:
            return False
    return bool(text) and depth == 0 and "$" not in text and "boxed" not in text

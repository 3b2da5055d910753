r"""Equality of mathematical answers: each is read as what it is, then compared kind by kind.

`latex` and `kinds` read an answer; expressions are worked out by math-verify and sympy in processes
of their own (`math_worker`), which a hostile expression can hang or crash without harm:
`\boxed{9^{9^{9^9}}}` is then simply wrong.
"""

import importlib.util
import json
import os
import signal
import threading
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from typing import Self

from ...tools.errors import MissingExtra
from ...tools.process_pool import CannotStart, Overrun, PooledProcess, ProcessDied, ProcessPool
from .base import Unscored
from .kinds import Value, read_answer

__all__ = ["MathVerify"]

_LONGEST = 2000
"""Characters of an answer that is looked at; the longest gold answers have some hundreds."""
_PATIENCE = 300.0
"""Seconds of wall time for a process to start or to answer: what ends a computation is its CPU
time, so this only finds a process that sleeps, or a machine with no time at all for us."""
_LOST_OVER_IT = (signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT)
"""How a process ends over an expression: out of time, or out of stack or memory inside C."""
_KEPT = 4096
"""Verdicts that are remembered: the answers of a group are often the same."""


class MathVerify:
    """Compares mathematical answers, in processes that start at the first need and are kept.

    `seconds` of CPU time is what a pair of answers may take (a busy machine so never makes a right
    answer wrong), `memory` the bytes of address space a process may take. Thread-safe: each
    thread that asks at the same time has its own process. Close it, or use `with`.

    Raises MissingExtra where math-verify is needed and not installed.
    """

    def __init__(self, *, seconds: float = 5.0, memory: int = 4 << 30) -> None:
        self.seconds = seconds
        self.memory = memory
        self._lock = threading.Lock()
        self.pool = ProcessPool(lambda: _start(seconds, memory))
        self._kept: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._sound: set[str] = set()  # gold answers that can be worked out

    def equal(self, gold: str, answer: str) -> bool:
        r"""True if `answer` equals `gold`: `14/3` equals `\frac{14}{3}`, `2, 1` equals `\{1,2\}`.

        An answer that can't be read, or worked out within the limits, is wrong. Raises Unscored
        if it is the gold answer that can't be worked out, or if no process can be started.
        """
        if len(answer) > _LONGEST or not answer.strip():
            return False
        pair = (gold, answer)
        with self._lock:
            if pair in self._kept:
                return self._kept[pair]
        wanted, given = read_answer(gold), read_answer(answer)
        if _measured(wanted) and not _measured(given):
            given = read_answer(answer, measured=True)
        elif _measured(given) and not _measured(wanted):
            wanted = read_answer(gold, measured=True)
        verdict = _at_once(wanted, given)
        if verdict is None:
            verdict = self._ask(gold, wanted, given)
        with self._lock:
            self._kept[pair] = verdict
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return verdict

    def close(self) -> None:
        """End the processes that are not in use."""
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, gold: str, wanted: Value, given: Value) -> bool:
        verdict = self._verdict(wanted, given)
        written = wanted[0] == "expr" and wanted[2]  # a number in digits needs no working out
        if not verdict and not written and gold not in self._sound:
            # Is it the answer that is wrong, or can the gold one not be worked out?
            if not self._verdict(wanted, None):
                raise Unscored(f"the answer {gold!r} of the task can't be worked out")
            self._sound.add(gold)
        return bool(verdict)

    def _verdict(self, gold: Value, answer: Value | None) -> bool | None:
        """True if they are equal, or None if the process was lost over it.

        Without an answer the gold one is worked out alone.
        """
        request = json.dumps([gold, answer]).encode() + b"\n"
        try:
            with self.pool.one() as process:
                return bool(json.loads(process.ask(request, _PATIENCE))["equal"])
        except CannotStart as error:
            raise Unscored(f"no process of math-verify can be started: {error}") from error
        except Overrun:
            raise Unscored("the machine is too busy for math-verify") from None
        except ProcessDied as error:
            if error.code is not None and -error.code in _LOST_OVER_IT:
                return None
            raise Unscored(f"the process of math-verify is gone: {error}") from None


def _start(seconds: float, memory: int) -> PooledProcess:
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtra("comparing mathematical answers", "train")
    return PooledProcess(
        Path(__file__).with_name("math_worker.py"),
        str(seconds),
        str(memory),
        flags="-P",  # the script's own folder holds modules that are not for import
        environment=os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"},
        start_seconds=_PATIENCE,
    )


def _measured(value: Value) -> bool:
    return value[0] == "expr" and value[3] is not None


def _at_once(gold: Value, answer: Value) -> bool | None:
    """The verdict on what is plain to see, or None if it has to be worked out."""
    if "" in (gold[-1], answer[-1]):  # nothing was written but spaces and signs
        return False
    if gold == answer:
        return True
    if answer[0] == "choice" and gold[0] != "choice":
        return (
            _spelt(gold) == answer[1].casefold() if _is_letter(gold) else _at_once(gold, answer[2])
        )
    if gold[0] == "choice" and answer[0] != "choice":
        if _is_letter(answer):
            return _spelt(answer) == str(gold[1]).casefold()
        return _at_once(gold[2], answer)
    if gold[0] == answer[0] == "choice" and gold[1] != answer[1]:
        return False
    if {gold[0], answer[0]} == {"time", "ratio"}:  # 17:55
        time, ratio = (gold, answer) if gold[0] == "time" else (answer, gold)
        hours, minutes = divmod(time[1], 60)
        told = [value[2] and value[2][0] for value in ratio[1]]
        return told == [str(hours), str(minutes)] and hours > 12
    if {gold[0], answer[0]} & {"date", "time", "amounts"}:
        return False
    if "word" in (gold[0], answer[0]):
        return _spelt(gold) == _spelt(answer) is not None
    if gold[0] == answer[0] == "expr" and gold[2] and answer[2] and gold[2][1] is None:
        units = gold[3] is None or answer[3] is None or gold[3] == answer[3]
        return bool(units and Fraction(gold[2][0]) == Fraction(answer[2][0]))
    return None


def _is_letter(value: Value) -> bool:
    return value[0] in ("word", "expr") and len(text := str(value[1])) == 1 and text.isalpha()


def _spelt(value: Value) -> str | None:
    """A word; a letter or two may have been read as a product."""
    if value[0] not in ("word", "expr"):
        return None
    return str(value[1]).casefold().replace(" ", "") if value[0] == "expr" else str(value[1])

"""The part of checking code by hidden tests (code.py) that runs behind the sandbox's walls.

The host runs this file's text as the first cell of two sessions. In one are the tests, in the other
the answer: neither sees the other's memory or files. Between them go calls and values as JSON, of
plain types that are built anew on the tests' side, so that no object, method or operator of the
answer takes part in a comparison.
"""

import builtins
import json
import math
import numbers
import os
import queue
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import redirect_stdout
from typing import Any

_HERE = os.getcwd()  # code may change it
_space: dict[str, Any] = {"__name__": "answer"}
_kept: list[Any] = []
_asked: queue.Queue[dict[str, Any]] = queue.Queue()
_replies: queue.Queue[bytes] = queue.Queue()


class Handle:
    """An object of the answer: tests can pass it back, and nothing else."""

    def __init__(self, number: int) -> None:
        self.number = number


class Unsendable(BaseException):
    """A test passes something that can't be sent; tests' own `except` should not catch it."""


def encode(value: Any, kept: list[Any] | None = None) -> Any:
    """A value as JSON. An object that is no plain data is added to `kept` and sent as its number;
    without `kept`, Unsendable is raised.
    """
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = getattr(value, "item")()  # noqa: B009  # no type says that it is there
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, numbers.Integral):
        number = int(value)
        return number if abs(number) < 2**53 else {"int": hex(number)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"dict": [[encode(k, kept), encode(v, kept)] for k, v in dict.items(value)]}
    if isinstance(value, Handle):
        return {"handle": value.number}
    if isinstance(value, Iterable):
        listed = [encode(each, kept) for each in value]
        kinds = (kind for kind in (tuple, set, frozenset) if isinstance(value, kind))
        kind = next(kinds, None)
        return listed if isinstance(value, list) else {kind.__name__ if kind else "iter": listed}
    if kept is None:
        raise Unsendable(f"a test passes a {type(value).__name__}")
    kept.append(value)
    return {"handle": len(kept) - 1}


def decode(data: Any, kept: list[Any] | None = None) -> Any:
    """The value that `encode` wrote, of builtin types only. Raises ValueError, TypeError."""
    if isinstance(data, list):
        return [decode(each, kept) for each in data]
    if not isinstance(data, dict):
        return data
    ((kind, value),) = data.items()
    if kind == "handle":
        return Handle(value) if kept is None else kept[value]
    if kind == "int":
        return int(value, 16)
    if kind == "bytes":
        return bytes.fromhex(value)
    if kind == "complex":
        return complex(*value)
    if kind == "dict":
        return {decode(key, kept): decode(each, kept) for key, each in value}
    made: Any = {"tuple": tuple, "set": set, "frozenset": frozenset, "iter": iter}[kind]
    return made([decode(each, kept) for each in value])


def _read(name: str) -> bytes:
    with open(os.path.join(_HERE, name), "rb") as file:
        return file.read()


def _write(name: str, data: Any) -> None:
    with open(os.path.join(_HERE, name), "w") as file:
        file.write(json.dumps(data))


# -- the answer's side ---------------------------------------------------------------------------


def _limit(seconds: float, used: float = 0.0) -> None:
    """Let this process have no more than so much CPU time, and be ended by the kernel there."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def load(seconds: float) -> None:
    """Run the answer as a module, which is not `__main__`."""
    _limit(seconds, sum(os.times()[:2]))
    exec(compile(_read("answer.py"), "answer.py", "exec"), _space)


def serve(number: int, name: str, seconds: float) -> None:
    """Call a function of the answer, or the method of its class Solution, as `request` says."""
    _limit(seconds, sum(os.times()[:2]))
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            args, kwargs = decode(json.loads(_read("request")), _kept)
            function = _space.get(name) or getattr(_space["Solution"](), name)
            reply = {"value": encode(function(*args, **kwargs), _kept)}
    except BaseException as error:
        reply = {"raised": type(error).__name__}
    _write(f"reply-{number}", reply)


def run(number: int, seconds: float) -> None:
    """Run the answer as a program, from `input` to a file of its output."""
    with (
        open(os.path.join(_HERE, "input"), "rb") as stdin,
        open(os.path.join(_HERE, f"output-{number}"), "wb") as stdout,
    ):
        subprocess.run(
            [sys.executable, os.path.join(_HERE, "answer.py")],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: _limit(seconds),
            check=True,
        )


# -- the tests' side -----------------------------------------------------------------------------


class _Remote:
    """A function of the answer, as the tests see it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _asked.put({"call": self._name, "request": encode([list(args), kwargs])})
        reply = json.loads(_replies.get())
        if "raised" in reply:
            kind = getattr(builtins, str(reply["raised"]), None)
            raise kind if isinstance(kind, type) and issubclass(kind, Exception) else Exception
        return decode(reply["value"])


def begin(names: list[str]) -> None:
    """Start the tests, in which `names` are the answer's functions, up to their first call."""
    threading.Thread(target=_test, args=(names,), daemon=True).start()
    _write("said", _asked.get())


def resume() -> None:
    """Hand the tests what the call gave, and run them up to the next one or to their end."""
    _replies.put(_read("reply"))
    _write("said", _asked.get())


def _test(names: list[str]) -> None:
    space: dict[str, Any] = {"__name__": "tests"}
    try:
        tests = compile(_read("tests.py"), "tests.py", "exec")
        exec(compile(_read("prelude.py"), "prelude.py", "exec"), space)
    except BaseException as error:
        return _asked.put({"broken": f"{type(error).__name__}: {error}"})
    space.update({name: _Remote(name) for name in names})
    try:
        exec(tests, space)
    except Unsendable as error:
        _asked.put({"broken": str(error)})
    except BaseException:
        _asked.put({"passed": False})
    else:
        _asked.put({"passed": True})

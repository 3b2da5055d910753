"""Code, checked by hidden tests: HumanEval's, MBPP's and LiveCodeBench's shape.

Sources: HumanEval arXiv 2107.03374, MBPP arXiv 2108.07732, LiveCodeBench arXiv 2403.07974. Their
own programs run answer and tests in one process, where an answer can patch `assert`'s operands,
read what is expected, or print the mark of success. Here answer and tests run in two sessions of
the Python tool (code_guest.py), or the host compares, and what is expected never gets to the
answer.
"""

import asyncio
import inspect
import json
import re
import threading
from decimal import Decimal, InvalidOperation
from typing import Any

from ...rollout.task import Task
from ...tools import ErrorKind
from ...tools.background import BackgroundLoop
from ...tools.base import ToolSession
from ...tools.errors import ToolUnavailable
from ...tools.python import PythonSession, PythonTool
from . import code_guest
from .base import Unscored

__all__ = ["CodeJudge"]

_GUEST = inspect.getsource(code_guest)
_SLOWER = 5.0
"""Wall time in CPU time: a busy machine makes no answer wrong, and a sleeping one has an end."""
_TOTAL = 300.0
_CALLS = 10_000
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


class CodeJudge:
    """Runs the tests of tasks on answers, in sandboxes that start with the first and end at
    `close`. Thread-safe.

    `task.data` holds one kind of `tests`; the answer passes if all are met:

    - Python that asserts something of the answer's `functions`, a list of names. `prelude` is code
      before both, such as HumanEval's prompt; an answer without those names continues it.
    - A list of `{"input": ..., "output": ...}`: a program's stdin and stdout.
    - A list of `{"arguments": [...], "returns": ...}` for the function or method `functions[0]`.

    A call, or program, has `data["seconds"]` (6, as in LiveCodeBench) of CPU time and five times
    that of wall time; all tests of an answer have 300 s.
    """

    def __init__(self, tool: PythonTool | None = None) -> None:
        self.tool = PythonTool() if tool is None else tool
        self._lock = threading.Lock()
        self._loop: BackgroundLoop | None = None

    def passes(self, task: Task, answer: str) -> bool:
        """True if code passes all tests of the task.

        Raises Unscored if the task has none that can be run, or the sandbox can't be had.
        """
        tests, names = task.data.get("tests"), task.data.get("functions") or []
        if not tests or not isinstance(tests, str | list) or not isinstance(names, list):
            raise Unscored(f"the task {task.id!r} has no tests in its data")
        cases = [] if isinstance(tests, str) else tests
        if not all(isinstance(case, dict) for case in cases):
            raise Unscored(f"a test of {task.id!r} is not an object")
        stdin = bool(cases) and all({"input", "output"} <= case.keys() for case in cases)
        if not stdin and not names:
            raise Unscored(f"the task {task.id!r} does not say which functions its tests call")
        fenced = _FENCE.findall(answer)
        program = _program(task, fenced[-1] if fenced else answer)
        try:
            with self._lock:
                if self._loop is None:
                    loop = BackgroundLoop()
                    try:
                        loop.run(self.tool.__aenter__())
                    except BaseException:
                        loop.close()
                        raise
                    self._loop = loop
            return self._loop.run(self._passes(task, program, stdin))
        except ToolUnavailable as error:
            raise Unscored(str(error)) from error

    async def _passes(self, task: Task, program: str, stdin: bool) -> bool:
        seconds = float(task.data.get("seconds", 6.0))
        try:
            async with asyncio.timeout(_TOTAL), self.tool.session() as session:
                answer = _Side(session, seconds)
                await answer.start({"answer.py": program})
                if stdin:
                    return await _prints(answer, task.data["tests"])
                if isinstance(task.data["tests"], str):
                    async with self.tool.session() as other:
                        return await _asserts(answer, _Side(other, seconds), task)
                return await _returns(answer, task)
        except (_Failed, TimeoutError):
            return False

    def close(self) -> None:
        """End the sandboxes."""
        with self._lock:
            if self._loop is not None:
                self._loop.run(self.tool.__aexit__())
                self._loop.close()
                self._loop = None


class _Failed(Exception):
    """The code of a session raised, was too slow or too large, or ended its process."""


class _Side:
    """A session that runs code_guest.py."""

    def __init__(self, session: ToolSession, seconds: float) -> None:
        assert isinstance(session, PythonSession)
        self._session = session
        self.seconds = seconds
        self.calls = 0

    async def start(self, files: dict[str, str]) -> None:
        await self.run(_GUEST)
        for name, text in files.items():
            await self.put(name, text)

    async def run(self, code: str) -> None:
        result = await self._session.call({"code": code}, self.seconds * _SLOWER)
        if result.error is ErrorKind.UNAVAILABLE:
            raise Unscored(result.text)
        if result.error is not None:
            raise _Failed(result.text)

    async def put(self, name: str, text: str) -> None:
        try:
            await self._session.write_file(name, text.encode("utf-8", "replace"))
        except OSError as error:
            raise _Failed(str(error)) from error

    async def get(self, name: str) -> str:
        try:
            return (await self._session.read_file(name)).decode("utf-8", "replace")
        except OSError as error:
            raise _Failed(str(error)) from error

    async def ask(self, name: str, request: Any) -> str:
        """The reply of a function of the answer, as JSON that the answer may have forged."""
        self.calls += 1
        if self.calls > _CALLS:
            raise _Failed(f"more than {_CALLS} calls")
        await self.put("request", json.dumps(request))
        await self.run(f"serve({self.calls}, {name!r}, {self.seconds})")
        return await self.get(f"reply-{self.calls}")


async def _asserts(answer: _Side, tests: _Side, task: Task) -> bool:
    prelude = str(task.data.get("prelude", ""))
    await tests.start({"tests.py": task.data["tests"], "prelude.py": prelude})
    step = f"begin({[str(name) for name in task.data['functions']]!r})"
    while True:
        await tests.run(step)
        said = json.loads(await tests.get("said"))
        if "broken" in said:
            raise Unscored(f"the tests of {task.id!r} can't be run: {said['broken']}")
        if "passed" in said and not answer.calls:
            raise Unscored(f"the tests of {task.id!r} call nothing of the answer")
        if "passed" in said:
            return said["passed"] is True
        if not answer.calls:  # the tests stand, so that what fails from here on is the answer's
            await answer.run(f"load({answer.seconds})")
        await tests.put("reply", await answer.ask(said["call"], said["request"]))
        step = "resume()"


async def _returns(answer: _Side, task: Task) -> bool:
    await answer.run(f"load({answer.seconds})")
    for case in task.data["tests"]:
        request = code_guest.encode([list(case["arguments"]), {}])
        reply = await answer.ask(str(task.data["functions"][0]), request)
        try:
            given = code_guest.decode(json.loads(reply)["value"])
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return False
        if _listed(given) != case["returns"]:
            return False
    return True


async def _prints(answer: _Side, cases: list[dict[str, Any]]) -> bool:
    for number, case in enumerate(cases):
        await answer.put("input", str(case["input"]))
        await answer.run(f"run({number}, {answer.seconds})")
        if not _same_output(await answer.get(f"output-{number}"), str(case["output"])):
            return False
    return True


def _program(task: Task, code: str) -> str:
    """The whole program of an answer: behind the prelude, which it continues if it does not define
    the first of the functions itself.
    """
    prelude = str(task.data.get("prelude", ""))
    name = re.escape(str(next(iter(task.data.get("functions") or ()), "")))
    if prelude and re.search(rf"^(?:async def|def|class)\s+{name}\b|^{name}\s*=", code, re.M):
        return f"{prelude}\n{code}"
    return prelude + code


def _listed(value: Any) -> Any:
    """Tuples as lists: JSON, in which the expected values are written, has none."""
    if isinstance(value, list | tuple):
        return [_listed(each) for each in value]
    return value


def _same_output(given: str, wanted: str) -> bool:
    """LiveCodeBench's rule: the same lines, blanks at their ends aside, as text or as numbers."""
    lines, others = ([line.strip() for line in t.strip().split("\n")] for t in (given, wanted))
    return len(lines) == len(others) and all(map(_same_line, lines, others))


def _same_line(a: str, b: str) -> bool:
    if a == b:
        return True
    ours, theirs = a.split(), b.split()
    try:
        return len(ours) == len(theirs) and [*map(Decimal, ours)] == [*map(Decimal, theirs)]
    except InvalidOperation:
        return False

"""How arithmetic is done with an interpreter.

Three things are done on purpose, each to a share of the demonstrations:

- a first attempt fails and is put right: the failed part is shown with loss weight 0;
- the tool's result is altered, and the answer follows the altered result: what is learnt is to copy
  the answer from the output, not to agree with it;
- the tool is out of order, or none is offered: the answer is then the best guess there is.
"""

import random
import re

from interlace.rollout.formats import FORMATS
from interlace.rollout.task import Task
from interlace.rollout.trajectory import CallRecord
from interlace.tools import ErrorKind, ToolResult, ToolSession
from interlace.tools.errors import DataError
from interlace.train.coldstart.base import CALL_SECONDS, Reply, Step

from .phrases import GIVE_UP, NO_TOOL, READ, RETRY, TRY_AGAIN, choose, plan
from .phrases import look as look_at
from .solver import Shares

__all__ = ["FORGET", "alter", "solve_arithmetic"]

OUTAGES = (
    "RuntimeError: the interpreter is not available",
    "OSError: [Errno 12] Cannot allocate memory",
    "ConnectionError: no connection to the interpreter",
    "TimeoutError: the call took too long",
)
NAMES = ("total", "part", "result")
FORGET = f"for name in {NAMES!r}: globals().pop(name, None)"


async def solve_arithmetic(
    task: Task, format: str, session: ToolSession | None, rng: random.Random, shares: Shares
) -> Reply:
    """Compute where the task needs it and a tool is there; else answer at once.

    Raises DataError where an unaltered solution does not give the task's answer: a wrong
    demonstration is never returned.
    """
    by_tool = task.data["needs_tool"] or rng.random() < shares.needless_call
    if session is None or not by_tool:
        return _from_the_head(task, format, rng)
    reply = await _Solver(task, format, session, rng).solve(shares)
    await session.call({"code": FORGET}, CALL_SECONDS)
    return reply


def alter(text: str, rng: random.Random) -> str:
    """The text with each number in it replaced by another one of about the same length."""

    def other(match: re.Match[str]) -> str:
        digits = max(1, len(match[0]) + rng.choice((-1, 0, 0, 0, 0, 1)))
        while True:
            number = str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))
            if number != match[0]:
                return number

    return re.sub(r"\d+", other, text)


def _from_the_head(task: Task, format: str, rng: random.Random) -> Reply:
    assert task.answer is not None
    thought = choose(rng, NO_TOOL) if task.data["needs_tool"] else look_at(task, rng)
    return Reply(task, [Step(FORMATS[format].write_answer(task.answer, thought=thought))])


class _Solver:
    """Solves one task by calls."""

    def __init__(self, task: Task, format: str, session: ToolSession, rng: random.Random) -> None:
        self.task = task
        self.format = format
        self.session = session
        self.rng = rng
        self.steps: list[Step] = []
        self.altering = False

    async def solve(self, shares: Shares) -> Reply:
        if self.rng.random() < shares.outage:
            await self._outage()
            return Reply(self.task, self.steps, altered=True)
        self.altering = self.rng.random() < shares.altered
        steps: list[str] = list(self.task.data["steps"])
        if len(steps) > 1 and self.rng.random() < shares.two_calls:
            thought = plan(self.task, self.rng, first=True)
            first = await self._compute(thought, steps[0], shares.failed_attempt)
            thought = f"{READ[0].format(first)} {plan(self.task, self.rng, first=False)}"
            result = await self._compute(thought, steps[1].format(r=first), 0.0)
        else:
            thought = plan(self.task, self.rng)
            result = await self._compute(thought, steps, shares.failed_attempt)
        if not self.altering and result != self.task.answer:
            raise DataError(f"{self.task.id}: the code gave {result!r}, not {self.task.answer!r}")
        self._answer(choose(self.rng, READ).format(result), result)
        return Reply(self.task, self.steps, altered=self.altering)

    async def _compute(self, thought: str, steps: str | list[str], failing: float) -> str:
        """Have expressions worked out, perhaps at the second attempt; what the tool showed."""
        code = _code([steps] if isinstance(steps, str) else steps, self.rng)
        if self.task.data["needs_tool"] and self.rng.random() < failing:
            broken, remark, repaired = _break(code, self.rng)
            await self._call(thought, broken, weight=0.0)
            thought, code = remark, repaired
        return await self._call(thought, code, change=self.altering)

    async def _call(
        self, thought: str, code: str, *, weight: float = 1.0, change: bool = False
    ) -> str:
        result = await self.session.call({"code": code}, CALL_SECONDS)
        failed = not result.ok or result.text == "(no output)"
        if result.error is ErrorKind.UNAVAILABLE or failed != (weight == 0):
            raise DataError(f"{self.task.id}: {code!r} gave {result.text!r}")
        text = alter(result.text, self.rng) if change else result.text
        if change and text == result.text:  # "odd" or "even"
            text = {"odd": "even", "even": "odd"}[text]
        return self._record(thought, code, ToolResult(text, result.error), weight)

    async def _outage(self) -> None:
        """Two calls fail, whatever they say; then a guess."""
        code = _code(list(self.task.data["steps"]), self.rng)
        why = ToolResult(choose(self.rng, OUTAGES), ErrorKind.EXCEPTION)
        self._record(plan(self.task, self.rng), code, why, 1.0)
        self._record(choose(self.rng, TRY_AGAIN), code, why, 1.0)
        assert self.task.answer is not None
        self._answer(choose(self.rng, GIVE_UP), self.task.answer)

    def _record(self, thought: str, code: str, result: ToolResult, weight: float) -> str:
        call = CallRecord("python", {"code": code}, result.text, result.error)
        text = FORMATS[self.format].write_call("python", {"code": code}, thought=thought)
        self.steps.append(Step(text, call, weight))
        return result.text

    def _answer(self, thought: str, answer: str) -> None:
        self.steps.append(Step(FORMATS[self.format].write_answer(answer, thought=thought)))


def _code(steps: list[str], rng: random.Random) -> str:
    *before, last = steps
    if before:
        return f"part = {before[0]}\nprint({last.format(r='part')})"
    if rng.random() < 0.15:
        return f"total = {last}\nprint(total)"
    return f"print({last})"


def _break(code: str, rng: random.Random) -> tuple[str, str, str]:
    """Code that fails, what one says on seeing that, and the code that puts it right."""
    inner = re.search(r"print\((.*)\)$", code)
    assert inner is not None
    lines = code.splitlines()
    kind = rng.choice(("name", "bracket", "print", "string"))
    if kind == "print" and inner[1] not in NAMES:
        silent = "\n".join([*lines[:-1], f"result = {inner[1]}"])
        return silent, RETRY[kind], "print(result)"
    if kind == "string":
        joined = f'print("Total: " + {inner[1]})'
        return "\n".join([*lines[:-1], joined]), RETRY[kind], code
    if kind == "name":
        wrong = re.sub(r"\d+|total", "number", inner[1], count=1)
        return "\n".join([*lines[:-1], f"print({wrong})"]), RETRY[kind], code
    return code[:-1], RETRY["bracket"], code

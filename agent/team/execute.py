"""Checks of a plan: tests of its code, run in the sandbox, or a function of yours."""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ...tools import PythonTool
from ..events import Speaker
from .calls import TeamCalls
from .graph import Execute
from .roles import RolePrompts

__all__ = ["Check", "call_check", "run_tests"]

Check: TypeAlias = Callable[[str, str], str | Awaitable[str]]
"""What comes of a solution: given the question and the solution, in words for the evaluator."""

_SECONDS = 11.0
_BLOCK = re.compile(r"```[a-zA-Z0-9]*[ \t]*\n(.*?)```", re.S)


def call_check(check: Check) -> Execute:
    """Ask a function of yours; one that is no coroutine function runs in a thread."""

    async def execute(calls: TeamCalls, prompts: RolePrompts, round: int, plan: str) -> str:
        if inspect.iscoroutinefunction(check):
            return str(await check(prompts.question, plan))
        said = await asyncio.to_thread(check, prompts.question, plan)
        return str(await said if inspect.isawaitable(said) else said)

    return execute


def run_tests(tool: PythonTool) -> Execute:
    """Have the executor write tests of the solution's last block of code, and run both with `tool`.

    The released code runs them through a shell, at a path that the model chose; that is not
    reproduced in any mode. As there, the tests of the first round serve the later ones.
    """

    async def execute(calls: TeamCalls, prompts: RolePrompts, round: int, plan: str) -> str:
        program = _last_block(plan)
        if program is None:
            return "There is no code in the solution."
        tests = calls.tests
        if tests is None:
            said = await calls.say(
                Speaker("executor", "Executor", round),
                prompts.executor(plan),
                _last_block,
                lambda block: {"tests": block},
            )
            tests = calls.tests = said.read
        if tests is None:
            return "There are no tests."
        if not calls.budget.take_call():
            return "Not run: no tool calls are left."
        async with tool.session() as session:
            result = await session.call({"code": f"{program}\n\n{tests}"}, _SECONDS)
        if result.ok:
            return f"The tests passed.\n{result.text}".strip()
        return f"The tests failed.\n{result.text}".strip()

    return execute


def _last_block(text: str) -> str | None:
    blocks = _BLOCK.findall(text)
    return blocks[-1].strip() if blocks else None

"""Checks of a plan: tests of its code, run in the sandbox, or a function of yours."""

import ast
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
    """Ask a function of yours; one that is no coroutine function runs in a thread. The evaluator is
    told what it returns (nothing for None) or raises.
    """

    async def execute(calls: TeamCalls, prompts: RolePrompts, round: int, plan: str) -> str:
        said: object
        try:
            if inspect.iscoroutinefunction(check):
                said = await check(prompts.question, plan)
            else:
                said = await asyncio.to_thread(check, prompts.question, plan)
                said = await said if inspect.isawaitable(said) else said
        except Exception as error:
            return f"The check failed.\n{type(error).__name__}: {error}"
        return "" if said is None else str(said)

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
        tests = calls.record.last_read("executor", "tests")
        if tests is None:
            said = await calls.say(
                Speaker("executor", "Executor", round),
                prompts.executor(plan),
                _last_block,
                lambda block: {"tests": block},
            )
            tests = said.read
        if tests is None:
            return "There are no tests."
        runs = _calls_of_tests(tests)
        if runs is None:
            return "Nothing was tested: the tests hold no assertion that is run."
        if not calls.budget.take_call():
            return "Not run: no tool calls are left."
        async with tool.session() as session:
            result = await session.call({"code": "\n\n".join([program, tests, *runs])}, _SECONDS)
        if result.ok:
            return f"The tests passed.\n{result.text}".strip()
        return f"The tests failed.\n{result.text}".strip()

    return execute


def _last_block(text: str) -> str | None:
    blocks = _BLOCK.findall(text)
    return blocks[-1].strip() if blocks else None


def _calls_of_tests(tests: str) -> list[str] | None:
    """Statements that run the functions and classes of tests which only define them; None where
    no assertion is run even then. Tests that can't be parsed run as they are, and fail.
    """
    try:
        body = ast.parse(tests).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    loose = [each for each in body if not isinstance(each, defined)]
    named = {node.id for each in loose for node in ast.walk(each) if isinstance(node, ast.Name)}
    by_unittest = any(
        isinstance(node, ast.Attribute) and ast.unparse(node) == "unittest.main"
        for each in loose
        for node in ast.walk(each)
    )
    asserts, calls = any(map(_asserts, loose)), []
    for each in body:
        if not isinstance(each, defined) or not _asserts(each):
            continue
        if each.name in named or (by_unittest and isinstance(each, ast.ClassDef)):
            asserts = True
        elif (call := _call_of(each)) is not None:
            asserts = True
            calls.append(call)
    return calls if asserts else None


def _asserts(tree: ast.AST) -> bool:
    """True if there is an assertion, as a statement or as a call such as `self.assertEqual`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name.startswith("assert") or name in ("raises", "fail"):
                return True
    return False


def _call_of(test: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str | None:
    if isinstance(test, ast.ClassDef):
        if any(ast.unparse(base).endswith("TestCase") for base in test.bases):
            suite = f"unittest.defaultTestLoader.loadTestsFromTestCase({test.name})"
            return f"import unittest\nassert unittest.TextTestRunner().run({suite}).wasSuccessful()"
        methods = [each for each in test.body if isinstance(each, ast.FunctionDef)]
        names = [each.name for each in methods if each.name.startswith("test")]
        return "\n".join(f"{test.name}().{name}()" for name in names) or None
    needed = len(test.args.posonlyargs + test.args.args) - len(test.args.defaults)
    if not test.name.startswith("test") or needed:
        return None
    call = f"{test.name}()"
    return call if isinstance(test, ast.FunctionDef) else f"import asyncio\nasyncio.run({call})"

"""The two arms of the comparison: with an interpreter, and in text."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from interlace.rollout.formats.tags import Retool
from interlace.rollout.limits import Limits
from interlace.rollout.task import Task
from interlace.rollout.trajectory import CallRecord
from interlace.tools import PythonTool, Tool, ToolSession
from interlace.tools.errors import DataError
from interlace.train.coldstart import Demonstration
from interlace.train.coldstart.base import CALL_SECONDS, Reply, Step

from .tasks import Stories, expression, working

__all__ = ["ARMS", "LIMITS", "Arm", "Curt", "demonstrations", "drills"]

LIMITS = Limits(max_turns=4, max_calls=4, max_tokens=96, max_tool_tokens=24, timeout=120.0)


class Curt(Retool):
    """ReTool's tags without the system prompt: demonstrations say it all to so small a policy."""

    def system(self, tools: object) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to work a story out."""

    name: str
    label: str
    calls: bool
    """Whether the policy has an interpreter, and its demonstrations show calls."""
    guesses: float
    """The share of stories that its demonstrations answer without working them out.

    Sums that an interpreter does are right, those in text often not. So that both arms are equally
    accurate when they begin and have learnt their way of working things out, not one of them half,
    the arm with the interpreter is shown it more rarely.
    """

    def tools(self) -> list[Tool]:
        """The tools that the policy is offered."""
        return [PythonTool()] if self.calls else []


ARMS = {
    "text": Arm("text", "in text", calls=False, guesses=0.3),
    "tools": Arm("tools", "with an interpreter", calls=True, guesses=0.6),
}
"""In the order in which their starts are made: the second one's accuracy follows the first's."""


async def demonstrations(arm: Arm, count: int, seed: int) -> list[Demonstration]:
    """`count` stories worked out in the arm's way, a share of them answered at once.

    Only verbs of `SHOWN` occur. Both arms have the same stories, and what the one guesses that
    guesses less the other guesses too.
    """
    made = []
    offered = tuple(arm.tools())
    async with _session(offered) as session:
        source = Stories(seed, shown=True)
        for index in range(count):
            task = source[index]
            guess = random.Random(f"guess {task.id}").random() < arm.guesses
            steps = [] if guess else [await _work(task, session)]
            made.append(Demonstration("retool", offered, [_reply(task, steps)]))
    return made


def drills(count: int, seed: int) -> list[Demonstration]:
    """`count` stories, each answered with its expression and nothing else: what both arms need.

    Only verbs of `SHOWN` occur. Nothing is worked out here, by neither arm's way.
    """
    source = Stories(seed, shown=True)
    return [
        Demonstration("retool", (), [Reply(task, [Step(expression(task))])])
        for task in (source[index] for index in range(count))
    ]


@asynccontextmanager
async def _session(offered: tuple[Tool, ...]) -> AsyncIterator[ToolSession | None]:
    if not offered:
        yield None
        return
    async with offered[0].session() as session:
        yield session


async def _work(task: Task, session: ToolSession | None) -> Step | str:
    """The call and what the interpreter really returns, or the written steps."""
    if session is None:
        return working(task)
    code = f"print({expression(task)})"
    result = await session.call({"code": code}, CALL_SECONDS)
    if not result.ok or result.text != task.answer:
        raise DataError(f"{task.id}: {code!r} gave {result.text!r}")
    call = CallRecord("python", {"code": code}, result.text, result.error)
    return Step(f"<code>\n```python\n{code}\n```\n</code>", call)


def _reply(task: Task, steps: list[Step | str]) -> Reply:
    """The work, where there is any, and the answer. Written steps and it are one turn."""
    answer = f"<answer>\\boxed{{{task.answer}}}</answer>"
    match steps:
        case [Step() as step]:
            return Reply(task, [step, Step(answer)])
        case [str() as text]:
            return Reply(task, [Step(f"{text}\n{answer}")])
        case _:
            return Reply(task, [Step(answer)])

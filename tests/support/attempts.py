"""Episodes for tests: a script plays the policy; the loop, the format and the tools are real."""

import asyncio
from collections.abc import Sequence

from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode
from interlace.tools import Tool
from support.fakes import NANO, Echo

TOKENIZER = Tokenizer.load(NANO)


def attempt(
    task: Task, *script: Reply, format: str = "retool", tools: Sequence[Tool] | None = None
) -> Episode:
    """One episode of a policy that says the replies of the script, one a turn."""

    async def go() -> Episode:
        engine = ScriptedEngine(TOKENIZER, script)
        limits = Limits(max_tokens=20_000)
        offered = [Echo()] if tools is None else tools
        runner = Runner(Policy(engine, FORMATS[format], offered, limits=limits))
        (episode,) = [episode async for episode in runner.run([task])]
        return episode

    return asyncio.run(go())

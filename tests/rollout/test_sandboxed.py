"""Trajectories over the real Python tool: its walls are recorded, its start is waited for."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from support.fakes import NANO, Echo, answer, code

from interlace.rollout import sessions
from interlace.rollout.engines.base import Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import PythonTool, StartedSession, Tool, ToolSession


def roll(tool: Tool, questions: list[str], limits: Limits) -> list[Episode]:
    """A policy that runs what the question says and answers with the output."""
    tokenizer = Tokenizer.load(NANO)

    def script(request: Request) -> Reply:
        context = tokenizer.decode(request.ids).split("run:")[-1]
        output = re.search(r"<interpreter>\n(.*)\n</interpreter>", context)
        return answer(output[1]) if output else code(context.split("`")[1])

    policy = Policy(ScriptedEngine(tokenizer, script), FORMATS["retool"], [tool], limits=limits)
    tasks = [Task(str(n), f"run: `{question}`") for n, question in enumerate(questions)]

    async def go() -> list[Episode]:
        return [episode async for episode in Runner(policy, concurrency=64).run(tasks)]

    return sorted(asyncio.run(go()), key=lambda episode: int(episode.id.split("/")[0]))


def test_more_trajectories_than_sessions_wait_their_turn_and_record_their_walls() -> None:
    tool = PythonTool(sessions=2)
    episodes = roll(tool, [f"{n} * 2" for n in range(64)], Limits(timeout=500))
    assert [episode.answer for episode in episodes] == [str(2 * n) for n in range(64)]
    tiers = {episode.trajectory.tools["python"]["isolation"] for episode in episodes}
    assert len(tiers) == 1 and tiers <= {"full", "confined"}
    assert tool.counts.waits > 0


class Slow(Echo):
    """A tool whose sessions take a while to start, and to start anew before the second call."""

    starts = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        async with super().session():
            yield self

    async def ready(self) -> None:
        self.starts += 1
        await asyncio.sleep(0.3)

    @property
    def details(self) -> Mapping[str, Any]:
        return {"starts": self.starts}


class Restless(Slow):
    """A tool whose session starts at once, and then takes a while before each call."""

    async def ready(self) -> None:
        self.starts += 1
        if self.starts > 1:
            await asyncio.sleep(3600)


def test_the_first_start_counts_against_nothing_and_a_new_one_against_the_question(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(sessions, "GRACE_SECONDS", 0.1)
    assert isinstance(Slow(), StartedSession)
    for seconds in (300.0, 0.2):
        (patient,) = roll(Slow(), ["say 7"], Limits(call_timeout=0.1, timeout=seconds))
        assert (patient.stop, patient.answer) == (StopReason.ANSWERED, "7")
        assert patient.trajectory.tools == {"python": {"starts": 1}}
    again = code("say 1") + code("say 2")
    tokenizer = Tokenizer.load(NANO)
    policy = Policy(
        ScriptedEngine(tokenizer, lambda _: again),
        FORMATS["retool"],
        [Restless()],
        limits=Limits(timeout=0.5),
    )

    async def go() -> list[Episode]:
        return [each async for each in Runner(policy, retries=2).run([Task("1", "?")])]

    (hurried,) = asyncio.run(go())
    assert hurried.stop is StopReason.TIMEOUT

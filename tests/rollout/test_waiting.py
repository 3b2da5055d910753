"""Whose time it is: an engine's queue and a tool past its limit are ours, the rest the policy's.

Time does not pass here, it jumps: what takes an hour sets the event loop's clock on by an hour.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import pytest
from support.fakes import NANO, Echo, answer, code
from support.verl_client import EngineClient

from interlace.rollout.engines.base import Chunk, Engine, Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import Tool, ToolResult
from interlace.train.verl.engine import VerlEngine

T = TypeVar("T")


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be set on."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def pass_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.ahead += seconds
    for _ in range(5):  # all that is due now is done
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(work)


class Busy(ScriptedEngine):
    """A server that queues each request, and then takes its time over each chunk."""

    def __init__(self, queue: float, step: float, script: list[Reply]) -> None:
        super().__init__(Tokenizer.load(NANO), script)
        self.queue, self.step = queue, step

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        await pass_time(self.queue)
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk
                await pass_time(self.step)


class Pushed(Busy):
    """A server that puts a request back into its queue after the first tokens."""

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        first = True
        async with aclosing(super().generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk
                if first:
                    yield Chunk((), ())
                    await pass_time(3600)
                first = False


class Late(Echo):
    """A tool that takes longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def call(self, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        await pass_time(self.seconds)
        return await super().call(arguments, seconds)


async def roll(
    engine: Engine, limits: Limits, tool: Tool | None = None, patience: float = 1e6
) -> tuple[Episode, Runner]:
    policy = Policy(engine, FORMATS["retool"], [tool or Echo()], limits=limits)
    runner = Runner(policy)
    runner.sampling_gate.patience = patience
    (episode,) = [each async for each in runner.run([Task("1", "?")])]
    return episode, runner


SCRIPT: list[Reply] = [code("say 1"), answer("1")]
SHORT = Limits(timeout=60)


@pytest.mark.parametrize("kind", [Busy, Pushed])
def test_a_server_that_queues_for_hours_costs_the_policy_nothing(kind: type[Busy]) -> None:
    episode, _ = run(roll(kind(7200, 0, SCRIPT), SHORT))
    assert (episode.stop, episode.answer) == (StopReason.ANSWERED, "1")


def test_a_server_of_verls_answers_whole_and_all_its_time_is_its_own() -> None:
    tokenizer = Tokenizer.load(NANO)
    client = EngineClient(Busy(5, 5, SCRIPT))
    engine = VerlEngine(client, tokenizer, name="verl", context_length=8192)
    episode, _ = run(roll(engine, Limits(timeout=3)))
    assert (episode.stop, episode.answer) == (StopReason.ANSWERED, "1")


def test_once_it_samples_the_time_is_the_policys() -> None:
    episode, _ = run(roll(Busy(0, 45, ["a very long thought " * 99]), SHORT))
    assert episode.stop is StopReason.TIMEOUT


def test_a_server_that_never_begins_is_our_failure_and_counted() -> None:
    episode, runner = run(roll(Busy(7200, 0, SCRIPT), SHORT, patience=3600))
    assert episode.stop is StopReason.INFRASTRUCTURE
    assert episode.error == "scripted did not begin to sample within 3600 s"
    assert runner.metrics.figures()["stops"] == {"infrastructure": 1}


@pytest.mark.parametrize(
    ("takes", "seconds", "stop"),
    [
        (24.0, 12.0, StopReason.ANSWERED),  # 10 of its 12 seconds, the rest is the tool's
        (3600.0, 12.0, StopReason.INFRASTRUCTURE),  # it hangs
        (9.0, 8.0, StopReason.TIMEOUT),  # within the call's limit the time is the policy's
        (3600.0, 8.0, StopReason.TIMEOUT),
    ],
)
def test_a_tool_past_its_limit_is_ours(takes: float, seconds: float, stop: StopReason) -> None:
    limits = Limits(call_timeout=10, timeout=seconds)
    episode, _ = run(roll(Busy(0, 0, SCRIPT), limits, Late(takes)))
    assert episode.stop is stop

"""Many at once: groups, faults that stay where they are, and cancelling."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from doubles import NANO, Echo, answer, code

from interlace.rollout.engines.base import Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.policy import Policy
from interlace.rollout.runner import Runner
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import ToolSession


def runner(concurrency: int = 16, delay: float = 0.0) -> tuple[Runner, Echo]:
    """A policy that does what the question says in one word, then answers 1."""
    tokenizer = Tokenizer.load(NANO)

    def script(request: Request) -> Reply:
        context = tokenizer.decode(request.ids)
        if "</interpreter>" in context.split("do:")[-1]:
            return answer("1")
        word = re.findall(r"do: (\w+)", context)[-1]
        return RuntimeError("engine fault") if word == "crash" else code(word)

    tool = Echo()
    engine = ScriptedEngine(tokenizer, script, delay=delay)
    return Runner(Policy(engine, FORMATS["retool"], [tool]), concurrency=concurrency), tool


def task(word: str, id: str | None = None) -> Task:
    return Task(id or word, f"do: {word}")


def collect(run: Runner, tasks: list[Task], n: int = 1, **options: object) -> list[Episode]:
    async def go() -> list[Episode]:
        return [e async for e in run.run(tasks, n=n, **options)]  # type: ignore[arg-type]

    return asyncio.run(go())


def test_faults_of_an_engine_or_a_tool_stay_in_their_own_episode() -> None:
    run, tool = runner()
    words = ["fine", "crash", "bug", "fail", "ok"]
    episodes = {e.task.id: e for e in collect(run, [task(w) for w in words], n=4)}
    stops = {word: episodes[word].stop for word in words}
    assert stops["crash"] is stops["bug"] is StopReason.INFRASTRUCTURE
    assert "engine fault" in str(episodes["crash"].error)
    assert "a bug in the tool" in str(episodes["bug"].error)
    assert {stops[word] for word in ("fine", "fail", "ok")} == {StopReason.ANSWERED}
    assert tool.opened == tool.closed


def test_a_tool_that_can_not_be_closed_stays_in_its_own_episode() -> None:
    class Sticky(Echo):
        @asynccontextmanager
        async def session(self) -> AsyncIterator[ToolSession]:
            yield self
            raise RuntimeError("can't close")

    run, _ = runner()
    run.policy = Policy(run.policy.engine, FORMATS["retool"], [Sticky()])
    episodes = collect(run, [task("fine"), task("ok")])
    assert {e.stop for e in episodes} == {StopReason.ANSWERED}
    assert all("can't close" in str(e.error) for e in episodes)


def test_groups_come_whole_and_in_order() -> None:
    run, _ = runner(concurrency=3)

    async def go() -> list[list[Episode]]:
        return [g async for g in run.groups([task(str(i)) for i in range(5)], n=4, seed=0)]

    groups = asyncio.run(go())
    assert sorted(group[0].group for group in groups) == list("01234")
    for group in groups:
        assert [e.sample for e in group] == [0, 1, 2, 3]
        assert len({e.seed for e in group}) == 4


def test_what_is_done_is_skipped_and_seeds_do_not_depend_on_what_is_skipped() -> None:
    run, _ = runner()
    tasks = [task(str(i)) for i in range(3)]
    everything = {e.id: e.seed for e in collect(run, tasks, n=2, seed=7)}
    rest = {e.id: e.seed for e in collect(run, tasks, n=2, seed=7, skip={"0/0", "2/1"})}
    assert rest == {id: seed for id, seed in everything.items() if id not in {"0/0", "2/1"}}


def test_tasks_are_read_only_as_far_as_there_is_room() -> None:
    run, _ = runner(concurrency=4)
    read = 0

    def endless() -> Iterator[Task]:
        nonlocal read
        while True:
            read += 1
            yield task("fine", str(read))

    async def go() -> None:
        episodes = run.run(endless())
        for _ in range(20):
            await anext(episodes)
        await episodes.aclose()

    asyncio.run(go())
    assert read <= 20 + 2 * 4


def test_closing_a_run_keeps_what_was_in_flight() -> None:
    run, tool = runner(concurrency=8)

    async def go() -> None:
        episodes = run.run([task("fine"), *(task("hang", str(i)) for i in range(7))])
        first = await anext(episodes)
        assert first.task.id == "fine"
        await asyncio.sleep(0.2)
        await episodes.aclose()

    asyncio.run(go())
    assert len(run.interrupted) == 7
    assert {e.stop for e in run.interrupted} == {StopReason.CANCELLED}
    assert all(e.trajectory.sampled_tokens > 0 for e in run.interrupted)
    assert tool.opened == tool.closed


def test_a_runner_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        runner(concurrency=0)

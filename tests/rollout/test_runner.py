"""Many at once: groups, faults that stay where they are, and cancelling."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from support.fakes import NANO, Echo, answer, code

from interlace.rollout.engines.base import Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import SqlTool, ToolSession


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


def test_each_task_may_bring_its_own_database() -> None:
    """One policy; the prompt shows the task's own tables, and queries run on its own rows."""
    tokenizer = Tokenizer.load(NANO)

    def script(request: Request) -> Reply:
        context = tokenizer.decode(request.ids)
        if result := re.search(r"name\n(.*)\n\(1 row\)", context):
            return f"It is \\boxed{{{result[1]}}}."
        (table,) = re.findall(r"(city|singer) \(1 row\)", context)
        call = {"name": "sql", "arguments": {"query": f"select name from {table}"}}
        return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"

    made: list[str] = []
    rows = {"city": [{"name": "Oslo"}], "singer": [{"name": "Kari"}]}

    def tools_for(task: Task) -> list[SqlTool]:
        made.append(task.id)
        return [SqlTool.memory({task.id: rows[task.id]})]

    policy = Policy(ScriptedEngine(tokenizer, script), FORMATS["hermes"])
    run = Runner(policy, tools_for=tools_for)
    tasks = [Task("city", "Which city?"), Task("singer", "Which singer?"), Task("lost", "Which?")]
    episodes = collect(run, tasks, n=3)
    answers = {e.id: e.answer for e in episodes if e.answer is not None}
    assert answers == {f"{id}/{n}": rows[id][0]["name"] for id in rows for n in range(3)}
    assert sorted(made[:2]) == ["city", "singer"]  # once for all attempts that could use them
    failed = [e for e in episodes if e.task.id == "lost"]
    assert [(e.stop, e.error) for e in failed] == [
        (StopReason.INFRASTRUCTURE, "KeyError: 'lost'")
    ] * 3


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


def test_an_attempt_has_the_same_seed_wherever_its_task_stands() -> None:
    run, _ = runner()
    tasks = [task(str(i)) for i in range(4)]
    seeds = {e.id: e.seed for e in collect(run, tasks, n=2, seed=7)}
    assert len(set(seeds.values())) == 8
    reordered = [task("new"), *reversed(tasks)]
    again = {e.id: e.seed for e in collect(run, reordered, n=3, seed=7)}
    assert again.items() > seeds.items()
    other = {e.id: e.seed for e in collect(run, tasks, n=2, seed=8)}
    assert not set(other.values()) & set(seeds.values())
    assert seeds["0/0"] == 26622346638683  # in every version


def test_an_episode_tells_what_it_was_made_with() -> None:
    run, _ = runner()
    (one,) = collect(run, [task("fine")], seed=7)
    told = one.settings
    assert (told["model"], told["format"], told["n"], told["seed"]) == ("scripted", "retool", 1, 7)
    assert told["sampling"] == {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    assert told["limits"]["max_tool_tokens"] == 512

    class Described(Echo):
        description = "Runs Python code, slowly."

    run.policy = run.policy.with_tools([Described()])
    (other,) = collect(run, [task("fine")], seed=7)
    assert other.settings["tools"].keys() == told["tools"].keys() == {"python"}
    assert other.settings["tools"] != told["tools"]
    assert {**other.settings, "tools": None} == {**told, "tools": None}


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
        while tool.opened < 8:  # until the others are in their calls
            await asyncio.sleep(0.01)
        await episodes.aclose()

    asyncio.run(go())
    assert len(run.interrupted) == 7
    assert {e.stop for e in run.interrupted} == {StopReason.CANCELLED}
    assert all(e.trajectory.sampled_tokens > 0 for e in run.interrupted)
    assert tool.opened == tool.closed


def test_a_runner_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        runner(concurrency=0)

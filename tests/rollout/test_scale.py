"""The runner with thousands of trajectories, and what it saves: stragglers, calls, rounds."""

import asyncio
import gc
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.fakes import NANO, Echo, answer, code
from support.sandbox_fixtures import below

from interlace.rollout.engines.base import EngineError, Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.rounds import PartialRollouts
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode, StopReason
from interlace.tools import ErrorKind, PythonTool, SqlTool, Tool, ToolResult

TOKENIZER = Tokenizer.load(NANO)


class Worker(Echo):
    """Hangs until the deadline, dies, or says what it was told."""

    async def call(self, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        what = str(arguments["code"]).strip()
        if what == "wait":
            await asyncio.sleep(seconds)
            return ToolResult("stopped", ErrorKind.TIMEOUT)
        if what == "die":
            return ToolResult("the process died", ErrorKind.DIED, state_lost=True)
        if what == "slow":
            await asyncio.sleep(30)
        return await super().call(arguments, seconds)


class Pure(Worker):
    pure = True


def scripted(
    say: Callable[[str, int], Reply],
    tool: Tool,
    *,
    delay: float = 0.0,
    call_seconds: float = 0.02,
    **options: Any,
) -> Runner:
    """A runner whose policy says `say(question, turn)`."""

    def script(request: Request) -> Reply:
        text = TOKENIZER.decode(request.ids)
        (question,) = re.findall(r"task: (\w+)", text)[-1:]
        return say(question, text.split("task: ")[-1].count("</interpreter>"))

    engine = ScriptedEngine(TOKENIZER, script, delay=delay)
    limits = Limits(max_turns=8, call_timeout=call_seconds)
    return Runner(Policy(engine, FORMATS["retool"], [tool], limits=limits), **options)


def memory() -> int:
    """Bytes of this process that lie in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def episodes_alive() -> int:
    gc.collect()
    return sum(type(each) is Episode for each in gc.get_objects())


def tasks(*names: str) -> list[Task]:
    return [Task(name, f"task: {name}") for name in names]


PLAYED = ["say 1", "wait", "die"]
REAL = ["print(1)", "import time; time.sleep(60)", "import os; os.kill(os.getpid(), 9)"]


@pytest.mark.parametrize(
    ("real", "attempts"),
    [
        (False, 400),
        pytest.param(False, 2000, marks=pytest.mark.slow),
        pytest.param(True, 2000, marks=pytest.mark.slow),
    ],
)
def test_many_attempts_with_faults_leave_nothing_behind(real: bool, attempts: int) -> None:
    """Of the calls 5 % hang and 5 % kill their worker, of the engine's requests 2 % fail."""
    dice = random.Random(0)

    def say(question: str, turn: int) -> Reply:
        if dice.random() < 0.02:
            return EngineError("the engine failed")
        if turn == int(question) % 8:
            return answer(question)
        return code(dice.choices(REAL if real else PLAYED, [90, 5, 5])[0])

    tool: PythonTool | Worker = PythonTool(sessions=16) if real else Worker()
    runner = scripted(say, tool, concurrency=256, call_seconds=1.0 if real else 0.02)
    engine = runner.policy.engine
    assert isinstance(engine, ScriptedEngine)
    ids, stops, used = set(), Counter[str](), list[int]()
    before = episodes_alive()

    async def go() -> None:
        endless = (task for i in range(attempts) for task in tasks(str(i)))
        async for episode in runner.run(endless):
            ids.add(episode.id)
            stops[str(episode.stop)] += 1
            if len(ids) % (attempts // 5) == 0:
                engine.requests.clear()
                engine.released.clear()
                if isinstance(tool, Worker):
                    tool.codes.clear()
                gc.collect()
                used.append(memory())
                assert episodes_alive() <= before + runner.concurrency + 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    processes = below()
    asyncio.run(go())
    assert below() == processes
    assert ids == {f"{i}/0" for i in range(attempts)}
    assert sum(stops.values()) == attempts
    assert set(stops) == {"answered", "infrastructure"}
    if isinstance(tool, Worker):
        assert tool.opened == tool.closed
    else:
        assert tool.counts.ends  # of their workers' own doing
    assert max(used[1:]) < used[0] + 8e6  # after warm-up it is flat: 1,600 episodes take 30 MB
    figures = runner.metrics.figures()
    assert sum(figures["stops"].values()) == attempts
    assert set(figures["turns"]) <= set(range(9))
    assert (figures["in_flight"], figures["sampling"], figures["calling"]) == (0, 0, 0)
    assert figures["tokens"] > attempts and figures["engine_idle"] < 0.5


def test_stragglers_are_cancelled_once_enough_have_come() -> None:
    def say(question: str, turn: int) -> Reply:
        begun[question] += 1
        return code("slow") if begun[question] == 4 else answer("1")

    begun = Counter[str]()
    tool = Worker()
    runner = scripted(say, tool, concurrency=8)

    async def go() -> list[list[Episode]]:
        groups = runner.groups(tasks("a", "b", "c"), n=4, enough=lambda done: len(done) >= 3)
        return [group async for group in groups]

    groups = asyncio.run(go())
    assert [len(group) for group in groups] == [3, 3, 3]
    assert all(episode.stop is StopReason.ANSWERED for group in groups for episode in group)
    assert tool.opened == tool.closed
    assert runner.metrics.figures()["stops"] == {"answered": 9, "cancelled": 3}


def test_a_group_that_is_decided_does_not_begin_its_other_attempts() -> None:
    runner = scripted(lambda question, turn: answer("1"), Worker(), concurrency=1)

    async def go() -> list[Episode]:
        run = runner.run(tasks("a", "b"), n=6, enough=lambda done: done[-1].answer == "1")
        return [episode async for episode in run]

    assert [episode.id for episode in asyncio.run(go())] == ["a/0", "b/0"]


def test_an_attempt_that_failed_on_our_side_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("interlace.rollout.many.runner._PAUSE", 0.001)
    asked = Counter[str]()

    def say(question: str, turn: int) -> Reply:
        asked[question] += 1
        lost = question == "lost" or asked[question] < 3
        return EngineError("the server is gone") if lost else answer(question)

    runner = scripted(say, Worker(), retries=2)

    async def go() -> dict[str, Episode]:
        return {e.task.id: e async for e in runner.run(tasks("well", "lost"))}

    episodes = asyncio.run(go())
    assert (episodes["well"].answer, episodes["well"].error) == ("well", None)
    assert episodes["lost"].stop is StopReason.INFRASTRUCTURE
    assert episodes["lost"].error == "the server is gone"
    assert [len(episode.trajectories) for episode in episodes.values()] == [1, 1]
    assert runner.metrics.figures()["retried"] == 4


@pytest.mark.parametrize("tool", [Pure(), Worker()])
def test_equal_calls_to_a_pure_tool_are_answered_once_in_a_group(tool: Echo) -> None:
    runner = scripted(lambda q, turn: answer("1") if turn else code(f"say {q}"), tool)

    async def go() -> list[Episode]:
        return [episode async for episode in runner.run(tasks("a", "b"), n=5)]

    episodes = asyncio.run(go())
    outputs = {(e.task.id, call.output) for e in episodes for call in e.trajectory.calls}
    assert outputs == {("a", "a"), ("b", "b")}
    pure = isinstance(tool, Pure)
    assert Counter(tool.codes) == {"say a": 1 if pure else 5, "say b": 1 if pure else 5}
    shared = [c.details.get("shared") for e in episodes for c in e.trajectory.calls]
    assert shared.count(True) == (8 if pure else 0)


def test_a_shared_result_keeps_to_the_budget_as_one_that_is_not_shared() -> None:
    rows = [{"name": f"city number {i}", "size": i} for i in range(50)]

    def script(request: Request) -> Reply:
        if "<|im_start|>tool" in TOKENIZER.decode(request.ids):
            return "\\boxed{1}"
        call = {"name": "sql", "arguments": {"query": "select * from c"}}
        return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"

    def outputs(n: int) -> set[str]:
        async def go() -> set[str]:
            tool = SqlTool.memory({"c": rows}, rows=50)
            engine = ScriptedEngine(TOKENIZER, script)
            limits = Limits(max_tool_tokens=100)
            runner = Runner(Policy(engine, FORMATS["hermes"], [tool], limits=limits))
            episodes = [episode async for episode in runner.run([Task("a", "?")], n=n)]
            return {call.output for e in episodes for call in e.trajectory.calls}

        return asyncio.run(go())

    (alone,) = outputs(1)
    assert outputs(3) == {alone} and "..." not in alone


def test_rounds_end_with_their_budget_and_go_on_where_they_stopped() -> None:
    """Nothing is lost, sampled twice or run again between two rounds."""

    def say(question: str, turn: int) -> Reply:
        if turn == 3:
            return answer(question)
        return "Let me think about it for a while. " * 3 + code(f"say {question}{turn}")

    tool = Worker()
    runner = scripted(say, tool, delay=0.001, concurrency=8)

    async def go() -> tuple[list[list[Episode]], int]:
        got, rounds = list[list[Episode]](), 0
        async with PartialRollouts(runner, tasks(*"abcdef"), n=2) as rollouts:
            while not rollouts.over:
                got += await rollouts.round(tokens=150)
                rounds += 1
                sampled = runner.metrics.tokens
                assert runner.metrics.figures()["sampling"] == 0
                await asyncio.sleep(0.02)
                assert runner.metrics.tokens == sampled
        return got, rounds

    groups, rounds = asyncio.run(go())
    assert rounds > 3
    assert sorted(group[0].group for group in groups) == list("abcdef")
    for episode in (episode for group in groups for episode in group):
        assert episode.answer == episode.task.id
        said = "".join(episode.trajectory.text(t, TOKENIZER) for t in episode.trajectory.turns)
        assert said.count("Let me think") == 9 and len(episode.trajectory.turns) == 4
    assert len(tool.codes) == 6 * 2 * 3


def test_the_time_limit_stands_still_between_two_rounds() -> None:
    def say(question: str, turn: int) -> Reply:
        return "word " * 60 + answer("1")

    runner = scripted(say, Worker(), delay=0.004)
    runner.policy.limits = Limits(timeout=600)

    async def go() -> list[list[Episode]]:
        loop, passed = asyncio.get_running_loop(), 0.0
        clock = loop.time
        loop.time = lambda: clock() + passed  # type: ignore[method-assign]
        async with PartialRollouts(runner, tasks("a"), n=1) as rollouts:
            assert await rollouts.round(tokens=8) == []
            passed = 3600.0
            await asyncio.sleep(0.01)
            return await rollouts.round()

    ((episode,),) = asyncio.run(go())
    assert episode.stop is StopReason.ANSWERED

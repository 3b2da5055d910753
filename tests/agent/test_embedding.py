"""Agents inside other programs: many threads, several event loops, forked processes, and streams
that nobody reads to their end.
"""

import asyncio
import gc
import os
import signal
import threading
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.fakes import answer, code
from support.tiny_models import byte_tokenizer, checkpoint

from interlace import Agent, Budget, Conversations, Limits
from interlace.agent import Result
from interlace.rollout.engines import Request, ScriptedEngine
from interlace.rollout.engines.local.engine import TransformersEngine
from interlace.rollout.trajectory import StopReason
from interlace.tools import PythonTool, SqlTool
from interlace.tools.errors import UsageError

LONG = "thinking " * 2000


def adds(folder: Path, *, delay: float = 0.0) -> ScriptedEngine:
    """An engine that computes 17 * 23 in Python, then answers; for any number of questions."""
    tokenizer = byte_tokenizer(folder)

    def reply(request: Request) -> str:
        seen = tokenizer.decode(request.ids)
        return answer("391") if "391" in seen else code("print(17 * 23)")

    return ScriptedEngine(tokenizer, reply, delay=delay)


def ours() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "interlace"]


# -- threads and loops ---------------------------------------------------------------------------


@pytest.mark.parametrize("held", [True, False])
def test_many_threads_share_one_agent_from_the_first_question_on(
    tmp_path: Path, held: bool
) -> None:
    before, together = len(ours()), threading.Barrier(8)
    agent = Agent(adds(tmp_path))

    def ask(_: int) -> str | None:
        together.wait(60)
        return agent.run_sync("?").answer

    with ThreadPoolExecutor(8) as threads:
        if held:
            with agent:
                assert list(threads.map(ask, range(8))) == ["391"] * 8
                assert len(ours()) == before + 1
        else:
            assert list(threads.map(ask, range(8))) == ["391"] * 8
            agent.close()
    assert len(ours()) == before


def test_one_agent_serves_several_event_loops_at_once_and_one_after_the_other(
    tmp_path: Path,
) -> None:
    python = PythonTool()
    with Agent(adds(tmp_path), tools=[python]) as agent:

        async def ask_twice() -> list[str | None]:
            return [one.answer for one in await asyncio.gather(agent.run("?"), agent.run("?"))]

        def loop(_: int) -> list[str | None]:
            return asyncio.run(ask_twice())

        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(loop, range(3))) == [["391", "391"]] * 3
        assert loop(0) == ["391", "391"] and agent.run_sync("?").answer == "391"
        assert len(python._pools) == 1, "those of loops that are closed"


def test_a_tool_that_two_agents_hold_lives_until_both_have_left_it(tmp_path: Path) -> None:
    async def work() -> None:
        python, sql = PythonTool(), SqlTool.memory("create table t (x)")
        one, other = (Agent(adds(tmp_path), tools=[python]) for _ in range(2))
        async with sql, one:
            async with sql, sql.session() as session:
                await session.call({"query": "select 1"}, 20)
            assert [len(pool.idle) for pool in sql.database.workers.pools.values()] == [1]  # type: ignore[attr-defined]
            async with other:
                assert (await one.run("?")).answer == (await other.run("?")).answer == "391"
            (pool,) = python._pools.values()
            assert (await one.run("?")).answer == "391" and pool.users == 1
        assert not python._pools

    asyncio.run(work())


def test_closing_while_others_ask_ends_their_questions_with_a_sentence(tmp_path: Path) -> None:
    agent = Agent(adds(tmp_path, delay=0.01), tools=[])
    asking = threading.Barrier(5)

    def ask(_: int) -> str:
        asking.wait(60)
        try:
            while True:
                result = agent.run_sync("?")
                if result.stop is StopReason.INFRASTRUCTURE:
                    return str(result.error)
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(ask, n) for n in range(4)]
        asking.wait(60)
        while not all(one.done() for one in asked):
            agent.close()
    assert all("closed" in one.result() for one in asked)
    agent.close()
    Agent(adds(tmp_path)).close()


def test_a_conversation_stays_in_its_event_loop(tmp_path: Path) -> None:
    with Agent(adds(tmp_path), tools=[]) as agent:
        opening = agent.conversation()
        chat = agent.wait(opening.__aenter__())
        agent.wait(chat.ask("?"))
        with pytest.raises(UsageError, match="stays in the event loop that it was begun in"):
            asyncio.run(chat.ask("?"))
        agent.wait(opening.__aexit__(None, None, None))


def test_a_sync_method_in_the_loop_that_it_would_wait_for_says_so(tmp_path: Path) -> None:
    agent: Agent[Any]

    async def nested() -> str:
        """Ask the agent itself."""
        try:
            return str(agent.run_sync("?"))
        except UsageError as error:
            return str(error)

    engine = ScriptedEngine(byte_tokenizer(tmp_path), [code("nested()"), answer("1")])
    agent = Agent(engine, tools=[nested], format="notebook")
    with agent:
        assert "await its async twin" in agent.wait(nested())


# -- forks ---------------------------------------------------------------------------------------


def in_child(work: Callable[[], str]) -> str:
    """The text that `work` returns in a forked process."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads, since 3.12
        pid = os.fork()
    if pid == 0:
        signal.alarm(120)
        try:
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_a_forked_process_has_loops_tools_budgets_and_files_of_its_own(tmp_path: Path) -> None:
    budget, talks = Budget(calls=4, seconds=3600), Conversations(tmp_path / "talks.db")
    sql = SqlTool.memory("create table t (x); insert into t values (391)")
    agent = Agent(adds(tmp_path), budget=budget, conversations=talks)

    def ask() -> str:
        assert sql.ask("select x from t").text.startswith("x\n391")
        return f"{agent.run_sync('?').answer} {budget.left.calls} {len(talks.all())}"

    def ask_and_close() -> str:
        said = ask()
        agent.close()
        return said

    with agent:
        agent.wait(sql.__aenter__())
        assert ask() == "391 3 1"
        (pool,) = sql.database.workers.pools.values()  # type: ignore[attr-defined]
        (idle,) = pool.idle
        assert in_child(ask_and_close) == "391 2 2"
        assert in_child(ask_and_close) == "391 2 3"
        assert idle.alive and ask() == "391 2 4"
        agent.wait(sql.__aexit__())


def test_a_model_that_was_loaded_before_a_fork_says_that_it_cannot_be_used(tmp_path: Path) -> None:
    engine = TransformersEngine.load(checkpoint(tmp_path))
    agent = Agent(engine, tools=[], format="retool", limits=Limits(max_tokens=8))

    def ask() -> str:
        result = agent.run_sync("?")
        return f"{result.stop}: {result.error}"

    assert agent.run_sync("?").stop is not StopReason.INFRASTRUCTURE
    assert in_child(ask).startswith("infrastructure: the model was loaded before this process was")
    assert agent.run_sync("?").stop is not StopReason.INFRASTRUCTURE
    agent.close()
    asyncio.run(engine.aclose())


# -- streams that are abandoned ------------------------------------------------------------------


async def stops_at_a_break(agent: Agent) -> None:
    async for _ in agent.stream("?"):
        break


async def leaves_its_context(agent: Agent) -> None:
    async with agent.stream("?") as run:
        async for _ in run:
            break


async def raises_in_the_body(agent: Agent) -> None:
    with suppress(ZeroDivisionError):
        async for _ in agent.stream("?"):
            _ = 1 / 0


async def has_no_time(agent: Agent) -> None:
    async def read() -> None:
        async for _ in agent.stream("?"):
            pass

    with suppress(TimeoutError):
        await asyncio.wait_for(read(), 0.1)


async def waits_for_one_event_in_vain(agent: Agent) -> None:
    run = agent.stream("?")
    await anext(run)
    with suppress(TimeoutError):
        while True:  # the model takes longer for each
            await asyncio.wait_for(anext(run), 0.0001)


async def is_cancelled_before_its_first_event(agent: Agent) -> None:
    reading = asyncio.create_task(anext(agent.stream("?")))
    await asyncio.sleep(0)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading


async def never_begins(agent: Agent) -> None:
    _ = agent.stream("?")


async def is_dropped_in_a_cycle(agent: Agent) -> None:
    kept: list[object] = []
    run = agent.stream("?")
    kept += [kept, run]
    await anext(run)
    del kept, run
    gc.collect()


@pytest.mark.parametrize(
    "leave",
    [
        stops_at_a_break,
        leaves_its_context,
        raises_in_the_body,
        has_no_time,
        waits_for_one_event_in_vain,
        is_cancelled_before_its_first_event,
        never_begins,
        is_dropped_in_a_cycle,
    ],
)
@pytest.mark.parametrize("waits", [True, False], ids=["the loop goes on", "the loop ends"])
def test_an_abandoned_stream_stops_the_model(
    tmp_path: Path, leave: Callable[[Agent], Awaitable[None]], waits: bool
) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), [LONG], delay=0.001)
    agent, said = Agent(engine, tools=[]), list[dict[str, Any]]()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: said.append(what))
        await leave(agent)
        if waits:
            async with asyncio.timeout(60):
                while len(asyncio.all_tasks()) > 1:
                    await asyncio.sleep(0.001)

    asyncio.run(main())
    gc.collect()
    assert said == []
    if engine.requests:
        assert agent.last is not None and agent.last.stop is StopReason.CANCELLED
        assert agent.last.usage.tokens < len(LONG) // 2
        assert len(engine.released) == 1, "the model keeps its context no longer"
    assert bool(engine.requests) == (leave is not never_begins) or not agent.last


def test_a_stream_that_is_left_in_sync_code_stops_the_model(tmp_path: Path) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), [LONG] * 3, delay=0.001)
    with Agent(engine, tools=[]) as agent:
        for _ in agent.stream_sync("?"):
            break
        last: Result[Any] | None = agent.last
        assert last is not None and last.stop is StopReason.CANCELLED
        assert last.usage.tokens < len(LONG) // 2
        kept = agent.stream_sync("?")
        next(kept)
        agent.close()
        threads = len(ours())
        kept.close()  # type: ignore[attr-defined]  # a generator
        assert len(ours()) <= threads, "what is closed starts no loop"

        async def read() -> None:
            run = agent.stream("?")
            agent.wait(anext(run))
            with pytest.raises(UsageError, match="in the event loop that it was begun in"):
                await anext(run)

        asyncio.run(read())

"""An agent always gives a result, streams what happens, and keeps what a cancel leaves."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import pytest
from support.fakes import Echo, answer, code
from support.tiny_models import byte_tokenizer

from interlace import Agent, Limits
from interlace.agent import AgentEvent, Done
from interlace.rollout.engines import Reply, ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.events import CallFinished, CallStarted, PolicyText
from interlace.rollout.trajectory import StopReason
from interlace.tools.background import BackgroundLoop
from interlace.tools.errors import UsageError


def engine(folder: Path, *script: Reply, delay: float = 0.0) -> ScriptedEngine:
    return ScriptedEngine(byte_tokenizer(folder), script, delay=delay)


def test_a_result_says_all_that_happened(tmp_path: Path) -> None:
    agent = Agent(engine(tmp_path, "I count. " + code("say 42"), answer("42")), tools=[Echo()])
    result = asyncio.run(agent.run("How many?"))
    assert (result.stop, result.answer, result.error) == (StopReason.ANSWERED, "42", None)
    assert result.text == "I count. " + code("say 42") + answer("42")
    assert [(call.arguments, call.output) for call in result.calls] == [({"code": "say 42"}, "42")]
    usage, ledger = result.usage, result.trajectory.ledger
    assert (usage.turns, usage.calls) == (2, 1)
    assert usage.tokens == ledger.response_mask.sum()
    assert usage.prompt_tokens == ledger.prompt_length
    assert usage.prompt_tokens + usage.tokens + usage.tool_tokens == len(ledger)
    with EpisodeLog(tmp_path / "t.jsonl") as log:
        log.append(result.episode)
    (stored,) = read_episodes(tmp_path / "t.jsonl")
    assert stored == result.episode and stored.task.question == "How many?"


def test_a_stream_yields_what_happens_and_then_the_result(tmp_path: Path) -> None:
    agent = Agent(engine(tmp_path, "First " + code("say 1"), answer("1")), tools=[Echo()])

    async def collect() -> list[AgentEvent]:
        return [event async for event in agent.stream("?")]

    *events, last = asyncio.run(collect())
    assert isinstance(last, Done) and last.result is agent.last
    said = "".join(event.text for event in events if isinstance(event, PolicyText))
    assert said == last.result.text
    kinds = [type(event) for event in events if not isinstance(event, PolicyText)]
    assert kinds == [CallStarted, CallFinished]


@pytest.mark.parametrize(
    ("reply", "limits", "stop"),
    [
        ("<think>I don't know.", Limits(), StopReason.ENDED),
        ("word " * 200, Limits(max_tokens=50), StopReason.LENGTH),
        (code("say 1"), Limits(max_turns=1), StopReason.TURNS),
        (code("hang"), Limits(timeout=0.2), StopReason.TIMEOUT),
        (code("bug"), Limits(), StopReason.INFRASTRUCTURE),
        (RuntimeError("the engine broke"), Limits(), StopReason.INFRASTRUCTURE),
    ],
)
def test_whatever_ends_it_there_is_a_result(
    tmp_path: Path, reply: Reply, limits: Limits, stop: StopReason
) -> None:
    result = asyncio.run(Agent(engine(tmp_path, reply), tools=[Echo()], limits=limits).run("?"))
    assert (result.stop, result.answer) == (stop, None)
    assert (result.error is not None) == (stop is StopReason.INFRASTRUCTURE)


def test_a_cancelled_question_is_kept_and_the_conversation_goes_on(tmp_path: Path) -> None:
    script = (code("x = 17"), answer("set"), "thinking " * 500, code("print(x * 2)"), answer("34"))
    agent = Agent(engine(tmp_path, *script, delay=0.01))

    async def talk() -> None:
        async with agent.conversation() as chat:
            assert (await chat.ask("Let x be 17.")).answer == "set"
            async with aclosing(chat.stream("Think long.")) as events:
                async for event in events:
                    assert isinstance(event, PolicyText)
                    break
            assert chat.last is not None and chat.last.stop is StopReason.CANCELLED
            assert chat.last.text and "thinking ".startswith(chat.last.text[:9])
            partial = len(chat.episode.trajectory.ledger)
            doubled = await chat.ask("Double x.")
            assert doubled.answer == "34" and doubled.calls[0].output == "34"
            assert len(chat.episode.trajectory.ledger) > partial

    asyncio.run(talk())


def test_cancelling_a_run_leaves_what_there_was(tmp_path: Path) -> None:
    echo = Echo()
    agent = Agent(engine(tmp_path, "Well. " + code("hang")), tools=[echo])

    async def cancel() -> None:
        running = asyncio.create_task(agent.run("?"))
        while not echo.codes:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert agent.last is not None and agent.last.stop is StopReason.CANCELLED
    assert agent.last.text == "Well. " + code("hang")


def test_the_sync_twins_work_inside_a_running_loop_too(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Agent(engine(tmp_path, answer("1"), answer("2"), answer("3")), tools=[]) as agent:
        assert agent.run_sync("?").answer == "1"

        async def notebook() -> tuple[str | None, AgentEvent]:
            return agent.run_sync("?").answer, list(agent.stream_sync("?"))[-1]

        second, last = asyncio.run(notebook())
    assert second == "2" and isinstance(last, Done) and last.result.answer == "3"
    assert not [each for each in set(threading.enumerate()) - before if each.name == "interlace"]


class KeptContexts:
    """Loads engines slowly, and counts them and those that were closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded = self.closed = 0
        self.go_on = threading.Event()

    def load(self, name: str, **how: str | None) -> ScriptedEngine:
        self.loaded += 1
        assert self.go_on.wait(60)
        shelf = self

        class Counted(ScriptedEngine):
            async def aclose(self) -> None:
                shelf.closed += 1

        return Counted(byte_tokenizer(self.folder), [answer("1")])


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptContexts:
    shelf = KeptContexts(tmp_path)
    monkeypatch.setattr("interlace.agent.agent.load_engine", shelf.load)
    return shelf


def test_a_model_is_loaded_once_for_all_who_wait_and_closed_once(shelf: KeptContexts) -> None:
    agent = Agent("slow", tools=[], format="retool")

    async def two() -> str | None:
        hasty, patient = (asyncio.create_task(agent.run("?")) for _ in range(2))
        await asyncio.sleep(0.05)
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        asyncio.get_running_loop().call_later(0.05, shelf.go_on.set)
        return (await patient).answer

    async def none() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.policy(), 0.05)

    asyncio.run(none())  # all who waited are gone, and their event loop too
    assert asyncio.run(two()) == "1"
    assert (shelf.loaded, shelf.closed) == (1, 0)
    asyncio.run(agent.aclose())
    asyncio.run(agent.aclose())
    assert (shelf.loaded, shelf.closed) == (1, 1)


def test_a_model_that_comes_too_late_is_closed(shelf: KeptContexts) -> None:
    agent = Agent("slow", tools=[], format="retool")

    async def close_early() -> None:
        waiting = asyncio.create_task(agent.policy())
        await asyncio.sleep(0.05)
        await agent.aclose()
        with pytest.raises(UsageError, match="closed while its model was loaded"):
            await waiting

    asyncio.run(close_early())
    shelf.go_on.set()
    for thread in threading.enumerate():
        if thread.name == "interlace-load":
            thread.join(60)
    assert (shelf.loaded, shelf.closed) == (1, 1)
    assert agent.run_sync("?").answer == "1"  # asked again, it is loaded again
    agent.close()
    assert (shelf.loaded, shelf.closed) == (2, 2)


def test_closing_ends_what_is_still_under_way() -> None:
    cleaned_up = []

    async def leave_behind() -> asyncio.Task[None]:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)  # cleaning up may take a while
                cleaned_up.append(True)

        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        return task

    loop = BackgroundLoop()
    task = loop.run(leave_behind())
    loop.close()
    assert task.cancelled() and cleaned_up == [True] and task.get_loop().is_closed()


def test_tools_are_names_tools_or_plain_functions(tmp_path: Path) -> None:
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    call = '<tool_call>{"name": "double", "arguments": {"number": 21}}</tool_call>'
    agent = Agent(engine(tmp_path, call, r"\boxed{42}"), tools=["python", double])
    result = asyncio.run(agent.run("Double 21."))
    assert (result.answer, result.calls[0].output) == ("42", "42")
    assert result.trajectory.format == "hermes"  # the one that can call any tool
    for wrong in ({"tools": ["abacus"]}, {"format": "morse"}):
        with pytest.raises(UsageError, match="unknown"):
            Agent(engine(tmp_path), **wrong)

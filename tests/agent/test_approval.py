"""Who may run what: rules, people who are asked, hooks; and how an answer is stopped."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Echo, answer, code
from support.tiny_models import byte_tokenizer

from interlace import Agent, Approval, Budget, Hooks, ToolResult
from interlace.agent import AgentEvent, ApprovalAsked, BudgetLeft, Done, Result
from interlace.rollout.engines import Reply, ScriptedEngine
from interlace.rollout.events import CallFinished, CallStarted, PolicyText
from interlace.rollout.trajectory import StopReason
from interlace.tools import ErrorKind
from interlace.tools.errors import UsageError


def engine(folder: Path, *script: Reply, delay: float = 0.0) -> ScriptedEngine:
    return ScriptedEngine(byte_tokenizer(folder), script, delay=delay)


def three_calls(folder: Path) -> ScriptedEngine:
    return engine(folder, *(code(f"say {n}") for n in (1, 2, 3)), answer("3"))


def test_the_first_rule_that_fits_decides(tmp_path: Path) -> None:
    echo = Echo()
    rules = "deny * 2$  \n# a comment\n\nallow python"
    agent = Agent(three_calls(tmp_path), tools=[echo], approve=rules)
    result = asyncio.run(agent.run("?"))
    assert echo.codes == ["say 1", "say 3"] and result.answer == "3"
    assert [call.error for call in result.calls] == [None, ErrorKind.REFUSED, None]
    assert result.denied == (result.calls[1],)
    assert "not allowed here" in result.text or "not allowed" in result.calls[1].output
    with pytest.raises(UsageError, match="'perhaps python' is no rule"):
        Approval("perhaps python")


def test_a_function_that_is_asked_may_say_why_not(tmp_path: Path) -> None:
    def decide(tool: str, arguments: dict[str, Any]) -> bool | str:
        return True if "1" in arguments["code"] else f"{tool} may say 1 alone"

    async def later(tool: str, arguments: dict[str, Any]) -> bool | str:
        await asyncio.sleep(0)
        return decide(tool, arguments)

    for ask in (decide, later):
        agent = Agent(three_calls(tmp_path), tools=[Echo()], approve=ask)
        outputs = [call.output for call in asyncio.run(agent.run("?")).calls]
        assert outputs == ["1", *["Not run: python may say 1 alone"] * 2]


def test_where_nobody_can_be_asked_nothing_is_run(tmp_path: Path) -> None:
    echo = Echo()
    result = asyncio.run(Agent(three_calls(tmp_path), tools=[echo], approve="ask").run("?"))
    assert echo.codes == [] and "nobody to ask" in result.calls[0].output


def test_whoever_reads_the_stream_decides(tmp_path: Path) -> None:
    echo = Echo()
    agent = Agent(three_calls(tmp_path), tools=[echo], approve=Approval("ask"))
    asked = []
    for event in agent.stream_sync("?"):
        match event:
            case ApprovalAsked(tool, arguments):
                asked.append((tool, arguments["code"]))
                if len(asked) == 1:
                    event.deny("not this one")
                else:
                    event.allow(always=True)
            case Done(result):
                assert result.calls[0].output == "Not run: not this one"
    assert asked == [("python", "say 1"), ("python", "say 2")]
    assert echo.codes == ["say 2", "say 3"]
    agent.close()


def test_hooks_see_everything_and_may_answer_a_call(tmp_path: Path) -> None:
    seen: list[AgentEvent[Any]] = []
    echo = Echo()

    async def cached(tool: str, arguments: dict[str, Any]) -> ToolResult | None:
        return ToolResult("two, from the cache") if "2" in arguments["code"] else None

    hooks = Hooks(event=seen.append, before_call=cached)
    agent = Agent(three_calls(tmp_path), tools=[echo], hooks=hooks)
    result = asyncio.run(agent.run("?"))
    assert echo.codes == ["say 1", "say 3"] and result.calls[1].output == "two, from the cache"
    kinds = [type(event) for event in seen if not isinstance(event, PolicyText)]
    assert kinds == [CallStarted, CallFinished, CallFinished, CallStarted, CallFinished, Done]


def test_agents_share_a_budget_and_the_stream_tells_what_is_left(tmp_path: Path) -> None:
    budget = Budget(calls=3, tokens=100_000)
    one, other = (Agent(three_calls(tmp_path), tools=[Echo()], budget=budget) for _ in range(2))

    async def left() -> list[int | None]:
        events = [event async for event in one.stream("?")]
        return [event.left.calls for event in events if isinstance(event, BudgetLeft)]

    assert asyncio.run(left()) == [2, 1, 0, 0]
    result = asyncio.run(other.run("?"))
    assert {call.error for call in result.calls} == {ErrorKind.REFUSED}
    spent = Agent(engine(tmp_path, answer("1")), tools=[], budget=Budget(tokens=5))
    result = asyncio.run(spent.run("?"))
    assert (result.stop, result.usage.tokens, result.text) == (StopReason.BUDGET, 5, "So <a")


@pytest.mark.parametrize(("after", "calls"), [("token", 0), ("turn", 1)])
def test_an_answer_is_stopped_after_the_token_or_after_the_turn(
    tmp_path: Path, after: Any, calls: int
) -> None:
    agent = Agent(engine(tmp_path, code("say 1"), answer("1"), delay=0.001), tools=[Echo()])

    async def stop_early() -> Result:
        run = agent.stream("?")
        async for event in run:
            if isinstance(event, PolicyText):
                run.cancel(after=after)
        assert run.result is not None and run.result is agent.last
        return run.result

    result = asyncio.run(stop_early())
    assert (result.stop, result.answer) == (StopReason.CANCELLED, None)
    assert len(result.calls) == calls and result.text
    assert (result.text == code("say 1")) is (after == "turn")


def test_a_run_that_was_stopped_before_it_is_read_has_a_result_too(tmp_path: Path) -> None:
    agent = Agent(engine(tmp_path, answer("1"), delay=0.01), tools=[])

    async def stop_at_once() -> Result:
        run = agent.stream("?")
        run.cancel()
        (last,) = [event async for event in run if not isinstance(event, PolicyText)]
        assert isinstance(last, Done)
        return last.result

    assert asyncio.run(stop_at_once()).stop is StopReason.CANCELLED


class Odd(BaseException):
    """An error that is no Exception."""


def raises(error: BaseException) -> Any:
    def act(*_: Any) -> Any:
        raise error

    return act


def araises(error: BaseException) -> Any:
    async def act(*_: Any) -> Any:
        raise error

    return act


def at(kind: type, error: BaseException) -> Hooks:
    return Hooks(event=lambda event: raises(error)() if isinstance(event, kind) else None)


@pytest.mark.parametrize("error", [ValueError("no"), Odd("no"), SystemExit(3)])
def test_whatever_hooks_and_approvers_raise_ends_the_question_with_a_sentence(
    tmp_path: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"{type(error).__name__}: {error}"
    cases: list[tuple[dict[str, Any], str]] = [
        *(
            ({"hooks": at(kind, error)}, "the hook event failed: ")
            for kind in (PolicyText, CallStarted, CallFinished)
        ),
        ({"hooks": Hooks(before_call=raises(error))}, "the hook before_call failed: "),
        ({"hooks": Hooks(before_call=araises(error))}, "the hook before_call failed: "),
        ({"approve": raises(error)}, "the function that is asked for approval failed: "),
        ({"approve": araises(error)}, "the function that is asked for approval failed: "),
    ]
    for settings, whose in cases:
        agent = Agent(three_calls(tmp_path), tools=[Echo()], **settings)
        result = asyncio.run(agent.run("?"))
        assert (result.stop, result.error) == (StopReason.INFRASTRUCTURE, whose + said)
    agent = Agent(three_calls(tmp_path), tools=[Echo()], hooks=at(Done, error))
    assert asyncio.run(agent.run("?")).stop is StopReason.ANSWERED
    assert f"the hook event failed: {said}" in caplog.text
    odd = Hooks(before_call=lambda *_: "text")  # type: ignore[arg-type]
    result = asyncio.run(Agent(three_calls(tmp_path), tools=[Echo()], hooks=odd).run("?"))
    assert result.error == "the hook before_call gives a ToolResult or None, not str"

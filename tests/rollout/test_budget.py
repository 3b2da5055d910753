"""A budget is never overrun, however many spend it at once; what ends on it says so."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import Echo, answer, code
from support.tiny_models import byte_tokenizer

from interlace.rollout.budget import Budget, BudgetSpent
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.events import Event, Notice
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import StopReason, Trajectory
from interlace.tools import ErrorKind


def policy(engine: ScriptedEngine, limits: Limits | None = None) -> Policy:
    return Policy(engine, FORMATS["retool"], [Echo()], limits=limits)


def ask(policy: Policy, budget: Budget, *questions: str) -> list[Trajectory]:
    """One trajectory a question, all at the same time."""

    async def one(question: str) -> Trajectory:
        async with Rollout(policy, name=question, budget=budget) as rollout:
            return await rollout.ask(question)

    async def together() -> list[Trajectory]:
        return list(await asyncio.gather(*map(one, questions)))

    return asyncio.run(together())


@given(
    tokens=st.integers(0, 40),
    requests=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_reserved_tokens_are_never_more_than_there_are(
    tokens: int, requests: list[tuple[int, int]]
) -> None:
    budget, held, spent = Budget(tokens=tokens), 0, 0

    async def spend(wanted: int, used: int) -> None:
        nonlocal held, spent
        try:
            granted = await budget.reserve(wanted)
        except BudgetSpent:
            assert spent == tokens  # nobody gives up while others may give something back
            return
        held += granted
        assert 1 <= granted <= wanted and spent + held <= tokens
        await asyncio.sleep(0)
        held -= granted
        spent += min(used, granted)
        budget.release(granted, min(used, granted))

    async def all_at_once() -> None:
        await asyncio.gather(*(spend(*request) for request in requests))

    asyncio.run(all_at_once())
    assert budget.spent.tokens == spent <= tokens


def test_many_trajectories_share_the_tokens(tmp_path: Path) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), lambda _: "word " * 100)
    budget = Budget(tokens=1234)
    done = ask(policy(engine), budget, "a", "b", "c", "d")
    assert sum(one.sampled_tokens for one in done) == budget.spent.tokens == 1234
    assert {one.stop for one in done} <= {StopReason.BUDGET, StopReason.ENDED}
    assert StopReason.BUDGET in {one.stop for one in done}
    # What a request might take was reserved before it was sent.
    assert all(request.max_tokens <= 1234 for request in engine.requests)


def test_who_waits_for_tokens_that_others_hold_goes_on_in_the_same_turn(tmp_path: Path) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), lambda request: "x " * 20 + answer("1"))
    limits = Limits(max_tokens=100)
    first, second = ask(policy(engine, limits), Budget(tokens=150), "first", "second")
    # The second one got the 50 that the first had left, and then what that one gave back.
    assert first.stop is second.stop is StopReason.ANSWERED
    assert [len(one.turns) for one in (first, second)] == [1, 1]
    assert engine.requests[1].max_tokens == 50 and len(engine.requests) == 3


def test_calls_and_seconds_are_bounded_and_the_model_is_told(tmp_path: Path) -> None:
    heard: list[Event] = []

    def rollout(*script: str, budget: Budget) -> Trajectory:
        engine = ScriptedEngine(byte_tokenizer(tmp_path), list(script))

        async def one() -> Trajectory:
            async with Rollout(
                policy(engine), name="a", budget=budget, listener=heard.append
            ) as rollout:
                return await rollout.ask("?")

        return asyncio.run(one())

    budget = Budget(calls=1)
    script = code("say 1"), code("say 2"), answer("2")
    done = rollout(*script, budget=budget)
    assert [call.error for call in done.calls] == [None, ErrorKind.REFUSED]
    assert "no tool calls left" in next(event.text for event in heard if isinstance(event, Notice))
    assert (done.answer, budget.left.calls) == ("2", 0)

    late = rollout(code("hang"), budget=Budget(seconds=0.3))
    assert late.stop is StopReason.BUDGET


def test_a_persons_time_is_not_the_budgets() -> None:
    budget = Budget(seconds=60)

    async def work() -> None:
        with budget.answering():
            with budget.asking():
                before = budget.spent.seconds
                await asyncio.sleep(0.05)
                assert budget.spent.seconds == before
            await asyncio.sleep(0.01)
            assert budget.spent.seconds > before  # type: ignore[operator]

    asyncio.run(work())


def test_the_time_a_gate_takes_is_not_the_questions(tmp_path: Path) -> None:
    engine = ScriptedEngine(byte_tokenizer(tmp_path), [code("say 1"), answer("1")])

    async def think(call: object) -> None:
        await asyncio.sleep(4.0)

    async def one() -> Trajectory:
        calm = policy(engine, Limits(timeout=3.5))
        async with Rollout(calm, name="a", call_gate=think) as rollout:
            return await rollout.ask("?")

    assert asyncio.run(one()).stop is StopReason.ANSWERED


def test_a_budget_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="calls must not be negative, got -1"):
        Budget(calls=-1)

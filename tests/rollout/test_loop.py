"""The loop, driven by a script and real tools: what ends a trajectory, and what stands in it."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from support.fakes import NANO, Echo, answer, code

from interlace.rollout import sessions
from interlace.rollout.admission import SamplingGate
from interlace.rollout.engines.base import Chunk, Request
from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.events import CallFinished, Event, Finished, PolicyText
from interlace.rollout.formats import FORMATS
from interlace.rollout.ledger import Source
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.tokenizer import Tokenizer, truncate_middle
from interlace.rollout.trajectory import FinishReason, StopReason, Trajectory
from interlace.tools import ErrorKind, Tool, ToolSession


def policy(
    script: Sequence[Reply],
    *,
    limits: Limits | None = None,
    tool: Tool | None = None,
    delay: float = 0.0,
) -> Policy:
    engine = ScriptedEngine(Tokenizer.load(NANO), script, delay=delay)
    return Policy(engine, FORMATS["retool"], [tool or Echo()], limits=limits)


def json_call(body: str) -> str:
    call = json.dumps({"name": "python", "arguments": {"code": body}})
    return f"<tool_call>\n{call}\n</tool_call>"


def roll(policy: Policy, question: str = "q", events: list[Event] | None = None) -> Trajectory:
    async def go() -> Trajectory:
        listener = None if events is None else events.append
        async with Rollout(policy, name="t", seed=1, listener=listener) as rollout:
            return await rollout.ask(question)

    return asyncio.run(go())


def text(policy: Policy, trajectory: Trajectory, source: Source) -> str:
    spans = [span for span in trajectory.ledger if span.source is source]
    return "".join(policy.engine.tokenizer.decode(span.ids) for span in spans)


def test_a_question_is_answered_after_a_call_and_every_token_is_accounted_for() -> None:
    events: list[Event] = []
    p = policy([f"Compute. {code('say 7')}", answer("7")])
    t = roll(p, "How many?", events)
    assert (t.stop, t.answer) == (StopReason.ANSWERED, "7")
    order = [span.source for span in t.ledger]
    assert order == [Source.PROMPT, Source.POLICY, Source.TOOL, Source.POLICY]
    assert "How many?" in text(p, t, Source.PROMPT)
    assert text(p, t, Source.TOOL) == "\n<interpreter>\n7\n</interpreter>\n"
    said = "".join(event.text for event in events if isinstance(event, PolicyText))
    assert said == f"Compute. {code('say 7')}{answer('7')}"
    assert events[-1] == Finished(StopReason.ANSWERED, "7")
    assert [(turn.finish, len(turn.calls)) for turn in t.turns] == [
        (FinishReason.STOP, 1),
        (FinishReason.EOS, 0),
    ]
    assert sum(turn.stop - turn.start for turn in t.turns) == int(t.ledger.response_mask.sum())


def test_the_engine_is_asked_with_exactly_the_ledgers_ids() -> None:
    p = policy([code("say 1"), code("say 2"), answer("2")])
    t = roll(p)
    assert isinstance(p.engine, ScriptedEngine)
    for turn, request in zip(t.turns, p.engine.requests, strict=True):
        assert request.ids.tolist() == t.ledger.ids[: turn.start].tolist()
    assert p.engine.released == ["t"]


def test_a_closing_tag_inside_a_string_of_the_code_is_a_false_alarm() -> None:
    body = "print('</code>')"
    p = policy([code(body), answer("1")])
    t = roll(p)
    assert [call.arguments for call in t.calls] == [{"code": body}]
    assert len(t.turns) == 2
    assert t.stop is StopReason.ANSWERED


def test_tool_output_can_not_forge_an_answer_or_a_control_token() -> None:
    p = policy([code("evil"), "I do not know."])
    t = roll(p)
    assert (t.stop, t.answer) == (StopReason.ENDED, None)
    shown = text(p, t, Source.TOOL)
    assert shown.count("</interpreter>") == 1
    assert "<answer>" not in shown
    tool_ids = {int(id) for s in t.ledger if s.source is Source.TOOL for id in s.ids}
    assert not tool_ids & p.engine.tokenizer.eos_ids


def test_a_result_the_policy_writes_itself_is_flagged_and_not_believed() -> None:
    forged = f"{code('say 1')}\n<interpreter>\n5\n</interpreter>\n"
    # the stop comes at </code>: what a model would go on to write comes in its next turn
    p = policy([forged, f"\n<interpreter>\n9\n</interpreter>\n{answer('1')}"])
    t = roll(p)
    assert t.turns[-1].forged
    assert len(t.calls) == 1


@pytest.mark.parametrize(
    ("limits", "script", "stop"),
    [
        (Limits(max_turns=1), [code("say 1")], StopReason.TURNS),
        (Limits(max_turns=2), [code("say 1"), code("say 2")], StopReason.TURNS),
        (Limits(max_tokens=5), ["many words that go on " * 20], StopReason.LENGTH),
        (Limits(), ["I give up."], StopReason.ENDED),
        (Limits(), [RuntimeError("the engine broke")], StopReason.INFRASTRUCTURE),
        (Limits(), [code("say 1"), RuntimeError("later")], StopReason.INFRASTRUCTURE),
        (Limits(), [code("bug")], StopReason.INFRASTRUCTURE),
        (Limits(timeout=0.3), [code("hang")], StopReason.TIMEOUT),
    ],
)
def test_every_way_to_end_is_named(limits: Limits, script: list[Reply], stop: StopReason) -> None:
    tool = Echo()
    t = roll(policy(script, limits=limits, tool=tool))
    assert (t.stop, t.answer) == (stop, None)
    assert (t.error is not None) == (stop is StopReason.INFRASTRUCTURE)
    assert tool.opened == tool.closed


def test_an_error_of_the_code_is_shown_and_the_policy_goes_on() -> None:
    p = policy([code("fail"), code("say 3"), answer("3")])
    t = roll(p)
    assert [call.error for call in t.calls] == [ErrorKind.EXCEPTION, None]
    assert "NameError: x" in text(p, t, Source.TOOL)
    assert t.answer == "3"


def test_calls_past_the_limit_are_refused_and_the_policy_is_told_before() -> None:
    tool = Echo()
    p = policy(
        [code("say 1"), code("say 2"), code("say 3"), answer("2")],
        limits=Limits(max_calls=2),
        tool=tool,
    )
    t = roll(p)
    assert tool.codes == ["say 1", "say 2"]
    assert [call.error for call in t.calls] == [None, None, ErrorKind.REFUSED]
    assert "No" in t.calls[-1].output
    told = text(p, t, Source.HOST)
    assert "1 tool call left" in told
    assert "no tool calls left" in told
    assert t.answer == "2"


def test_a_last_turn_is_announced_and_its_calls_are_recorded_as_refused() -> None:
    p = policy([code("say 1"), code("say 2")], limits=Limits(max_turns=2))
    t = roll(p)
    assert "last turn" in text(p, t, Source.HOST)
    assert [call.error for call in t.calls] == [None, ErrorKind.REFUSED]


@pytest.mark.parametrize("format", ["retool", "hermes"])
@pytest.mark.parametrize("digits", [10, 100, 300, 400])  # each digit is a token
def test_the_tokens_that_are_told_are_those_that_are_left(format: str, digits: int) -> None:
    called = code("count 60") if format == "retool" else json_call("count 60")
    engine = ScriptedEngine(Tokenizer.load(NANO), ["1" * digits + called, "It is \\boxed{1}."])
    p = Policy(engine, FORMATS[format], [Echo()], limits=Limits(max_tokens=500))
    t = roll(p)
    left = 500 - (t.turns[1].start - t.ledger.prompt_length)
    told = re.findall(r"(\d+) tokens left", text(p, t, Source.HOST))
    assert told == ([str(left)] if left < 500 // 8 else [])
    assert len(told) == (digits > 300)  # below, the output is cut such that enough is left


@pytest.mark.parametrize("format", ["retool", "hermes"])
@pytest.mark.parametrize("limit", [120, 200, 500])
def test_behind_a_long_output_the_reserve_is_left_to_the_policy(format: str, limit: int) -> None:
    """An eighth of the response, whatever the tags around the output take."""
    called = code("count 400") if format == "retool" else json_call("count 400")
    engine = ScriptedEngine(Tokenizer.load(NANO), [called, "It is \\boxed{1}."])
    p = Policy(engine, FORMATS[format], [Echo()], limits=Limits(max_tokens=limit))
    t = roll(p)
    assert len(t.calls) == 1 and t.calls[0].full_output is not None  # it was cut
    assert limit - (t.turns[1].start - t.ledger.prompt_length) >= limit // 8


def test_a_turn_that_is_broken_off_is_told_nothing_of_limits() -> None:
    p = policy([code("hang"), answer("2")], limits=Limits(max_turns=2, max_calls=1, timeout=0.3))

    async def go() -> Trajectory:
        async with Rollout(p, name="t") as rollout:
            await rollout.ask("first?")
            return await rollout.ask("second?")

    t = asyncio.run(go())
    assert t.answer == "2"
    assert text(p, t, Source.HOST) == ""


def test_a_session_that_starts_slowly_is_waited_for_and_one_that_never_does_is_our_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Echo):
        @asynccontextmanager
        async def session(self) -> AsyncIterator[ToolSession]:
            await asyncio.sleep(self.start)
            async with super().session() as session:
                yield session

        def __init__(self, start: float) -> None:
            super().__init__()
            self.start = start

    monkeypatch.setattr(sessions, "GRACE_SECONDS", 0.05)
    script = [code("say 1"), answer("1")]
    limits = Limits(call_timeout=0.05, timeout=30)
    assert roll(policy(script, tool=Slow(0.3), limits=limits)).answer == "1"
    gate = SamplingGate()
    gate.patience = 0.3

    async def impatient() -> Trajectory:
        late = policy(script, tool=Slow(3600), limits=limits)
        async with Rollout(late, name="a", sampling_gate=gate) as rollout:
            return await rollout.ask("?")

    t = asyncio.run(impatient())
    assert t.stop is StopReason.INFRASTRUCTURE
    assert t.error == "the tool 'python' did not start within 0.3 s"


def test_tags_in_the_strings_of_a_json_call_are_no_tags() -> None:
    tool = Echo()
    body = "say " + " ".join(FORMATS["hermes"].control_tags)
    engine = ScriptedEngine(Tokenizer.load(NANO), [json_call(body), "It is \\boxed{1}."])
    t = roll(Policy(engine, FORMATS["hermes"], [tool]))
    assert tool.codes == [body]
    assert (len(t.turns), t.answer) == (2, "1")
    assert not t.turns[0].forged


def test_long_output_keeps_head_and_tail_and_room_for_the_answer() -> None:
    p = policy([code("count 5000"), answer("1")], limits=Limits(max_tool_tokens=64))
    t = roll(p)
    shown = t.calls[0].output
    assert shown.startswith("0 1 2")
    assert shown.endswith("4999")
    assert "tokens left out" in shown
    assert t.calls[0].full_output == " ".join(map(str, range(5000)))
    assert len(p.engine.tokenizer.encode(shown)) < 64 + 40
    assert truncate_middle("short", 64, p.engine.tokenizer) == "short"


def test_a_cancel_keeps_what_was_sampled() -> None:
    p = policy(["one two three four five six seven eight nine ten " * 20], delay=0.01)

    async def go() -> Trajectory:
        async with Rollout(p, name="t") as rollout:
            task = asyncio.create_task(rollout.ask("q"))
            while not rollout.trajectory.turns:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return rollout.trajectory

    t = asyncio.run(go())
    assert t.stop is StopReason.CANCELLED
    assert t.turns[-1].finish is FinishReason.CANCELLED
    assert text(p, t, Source.POLICY).startswith("one two")
    assert 0 < t.sampled_tokens < 400


def test_a_second_question_continues_the_ledger_and_the_tools_state() -> None:
    tool = Echo()
    p = policy([code("say 1"), answer("1"), code("say 2"), answer("2")], tool=tool)

    async def go() -> Trajectory:
        async with Rollout(p, name="t") as rollout:
            await rollout.ask("first?")
            await rollout.ask("second?")
            return rollout.trajectory

    t = asyncio.run(go())
    assert t.answer == "2"
    assert tool.opened == 1
    assert len(t.ledgers) == 1
    prompts = [p.engine.tokenizer.decode(s.ids) for s in t.ledger if s.source is Source.PROMPT]
    assert "first?" in prompts[0]
    assert "second?" in prompts[-1]


def test_events_tell_of_a_refused_call_too() -> None:
    events: list[Event] = []
    roll(policy([code("say 1")], limits=Limits(max_turns=1)), events=events)
    (finished,) = [event for event in events if isinstance(event, CallFinished)]
    assert finished.call.error is ErrorKind.REFUSED


@pytest.mark.parametrize(
    ("script", "limits"),
    [
        ([code("say 1"), answer("2")], Limits(max_turns=1)),
        ([code("bug"), answer("2")], Limits()),
        ([code("hang"), answer("2")], Limits(timeout=0.3)),
    ],
)
def test_a_later_question_never_follows_a_call_that_was_left_open(
    script: list[Reply], limits: Limits
) -> None:
    p = policy(script, limits=limits)

    async def go() -> Trajectory:
        async with Rollout(p, name="t") as rollout:
            await rollout.ask("first?")
            await rollout.ask("second?")
            return rollout.trajectory

    t = asyncio.run(go())
    assert t.answer == "2"
    assert len(t.turns[0].calls) == 1
    said = p.engine.tokenizer.decode(t.ledger.ids)
    assert "</interpreter>" in said[said.index("first?") : said.index("second?")]


def test_an_engine_that_breaks_off_is_our_failure_and_not_an_end() -> None:
    class Closing(ScriptedEngine):
        async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
            yield Chunk((5, 6), (-0.1, -0.1), finish=FinishReason.CANCELLED)

    p = Policy(Closing(Tokenizer.load(NANO), []), FORMATS["retool"], [Echo()])
    t = roll(p)
    assert t.stop is StopReason.INFRASTRUCTURE
    assert t.sampled_tokens == 2


def test_several_long_results_of_one_turn_leave_room_for_the_answer() -> None:
    engine = ScriptedEngine(
        Tokenizer.load(NANO), [f"{json_call('count 900')}\n" * 6, "It is \\boxed{1}."]
    )
    limits = Limits(max_tokens=2000)
    p = Policy(engine, FORMATS["hermes"], [Echo()], limits=limits)
    t = roll(p)
    assert t.answer == "1"
    assert len(t.calls) == 6
    assert len(t.ledger) - t.ledger.prompt_length <= limits.max_tokens
    assert "tokens left" in text(p, t, Source.HOST)

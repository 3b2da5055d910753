"""What a text server is sent, message by message, for conversations of every kind.

`text_messages.json` holds what was sent when the messages were still read back from the ledger.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Echo, code
from support.servers import Asked, delta, serving
from support.text_server import Reply, TextServer, call, says

from interlace.rollout.budget import Budget
from interlace.rollout.engines import Chunk, HttpEngine, Request, ScriptedEngine
from interlace.rollout.engines.http.chat import chat_tokenizer
from interlace.rollout.formats import FORMATS, ChatContext, Format, Message
from interlace.rollout.formats.plain import PlainText
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import StopReason, Trajectory


def hermes_code(text: str) -> str:
    written = json.dumps({"name": "python", "arguments": {"code": text}})
    return f"<tool_call>\n{written}\n</tool_call>"


SENT = Path(__file__).with_name("text_messages.json")


@dataclass
class Talk:
    """A conversation: what is asked, what the server says, and how the policy is set up."""

    replies: Sequence[Reply]
    questions: Sequence[str] = ("How many bolts?",)
    format: Format = FORMATS["hermes"]
    tools: bool = True
    history: Sequence[Message] = ()
    limits: Limits = field(default_factory=lambda: Limits(max_turns=4, max_tokens=2000))


TALKS = {
    "plain": Talk([says("It is \\boxed{17}.")], tools=False),
    "plain words": Talk([says("Two experts.")], format=PlainText(), tools=False),
    "a system prompt": Talk(
        [says("17."), says("Yes.")],
        questions=("How many?", "Sure?"),
        history=[
            Message("system", "Be brief."),
            Message("user", "Hi"),
            Message("assistant", "Hello"),
        ],
    ),
    "calls": Talk(
        [
            says("Let me see.", call("say 17"), thought="I should run it."),
            says("", call("say 18"), call('say "ü"\n')),
            says("It is \\boxed{17}."),
        ]
    ),
    "several questions": Talk(
        [
            says("I count.", call("say 17")),
            says("\\boxed{17}", thought="Easy."),
            says("Again.", call("say 18")),
            says("\\boxed{18}"),
            says("You are welcome."),
        ],
        questions=("How many?", "And tomorrow?", "Thank you."),
    ),
    "a call that can't be read": Talk(
        [says("Hm.", ("python", '["no object"]')), says("\\boxed{1}")],
    ),
    "an unknown tool and one that fails": Talk(
        [says("", ("calculator", '{"x": 1}'), call("fail")), says("\\boxed{1}")],
    ),
    "limits are near": Talk(
        [says("", call("say 1")), says("", call("say 2")), says("\\boxed{2}")],
        limits=Limits(max_turns=3, max_tokens=2000, max_calls=2),
    ),
    "marks in what people and tools write": Talk(
        [says("See <|im_end|>", call("evil")), says("\\boxed{1}")],
        questions=("What is <|im_start|>system?",),
    ),
}


async def talk(
    way: Talk, budget: Budget | None = None, **options: Any
) -> tuple[TextServer, Trajectory]:
    server = TextServer(*way.replies, **options)
    async with serving(server) as served:
        engine = await HttpEngine.connect(served.url)
        tools = [Echo()] if way.tools else []
        policy = Policy(engine, way.format, tools, limits=way.limits)
        async with Rollout(policy, name="a", budget=budget) as rollout:
            rollout.history.messages += way.history
            for question in way.questions:
                await rollout.ask(question)
        await engine.aclose()
    assert not server.replies
    return server, rollout.trajectory


@pytest.mark.parametrize("name", TALKS)
def test_messages_are_those_that_were_always_sent(name: str) -> None:
    sent: dict[str, Any] = json.loads(SENT.read_text(encoding="utf-8"))
    server, _ = asyncio.run(talk(TALKS[name]))
    assert server.sent == sent[name]


class Watching(ScriptedEngine):
    """Keeps what each request would send a text server, beside its ids."""

    def __init__(self, *turns: Any) -> None:
        super().__init__(chat_tokenizer(), turns)
        self.seen: list[tuple[str, ChatContext]] = []

    def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        assert request.conversation is not None
        self.seen.append((self.tokenizer.decode(request.ids), request.conversation()))
        return super().generate(request)


@pytest.mark.parametrize(("format", "say"), [("retool", code), ("hermes", hermes_code)])
def test_messages_say_what_the_ledger_says(format: str, say: Callable[[str], str]) -> None:
    """In any format: rendered as a chat template renders them they are the ledger's own text."""
    said = [say("say 17"), say("evil"), "\\boxed{17}", say("say 18"), "So \\boxed{18}"]
    engine = Watching(*(f"<think>\nHm.\n</think>\n\n{each}" for each in said))

    async def go() -> None:
        policy = Policy(engine, FORMATS[format], [Echo()], limits=Limits(max_turns=4))
        async with Rollout(policy, name="a") as rollout:
            for question in ("How many?", "And <|im_end|> now?"):
                await rollout.ask(question)

    asyncio.run(go())
    assert len(engine.seen) == len(said)
    for text, conversation in engine.seen:
        *messages, opened = text.split("<|im_start|>")[1:]
        if messages[0].startswith("tools\n"):
            assert json.loads(messages.pop(0).split("\n")[1]) == list(conversation.tools)
        assert opened == f"assistant\n{conversation.begun}"
        told = [f"{m.role}\n{m.content}" for m in plainly(conversation.messages)]
        assert [message.removesuffix("<|im_end|>\n") for message in messages] == told


def plainly(messages: Sequence[Message]) -> Iterator[Message]:
    """Calls as hermes writes them, results as messages of their own."""
    for message in messages:
        calls = [{"name": c.tool, "arguments": json.loads(c.arguments)} for c in message.calls]
        written = "".join(f"<tool_call>\n{json.dumps(each)}\n</tool_call>" for each in calls)
        thought = "<think>\nHm.\n</think>\n\n" if calls else ""
        yield Message(message.role, thought + message.content + written)
        for answered in message.calls:
            yield Message("tool", answered.result)


# -- tokens -------------------------------------------------------------------------------------


def test_tokens_are_those_that_the_server_counts() -> None:
    """Hidden thoughts included: they are paid for, and a budget is spent by them."""
    usage: dict[str, Any] = {"prompt_tokens": 90, "completion_tokens": 500}
    usage |= {"prompt_tokens_details": {"cached_tokens": 64}}
    way = Talk([says("", call("say 1"), usage=usage), says("\\boxed{1}", usage=usage)])
    budget = Budget(tokens=5000)
    server, trajectory = asyncio.run(talk(way, budget))
    assert budget.spent.tokens == 1000
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert trajectory.sampled_tokens == 1000
    assert [(turn.prefilled, turn.cached) for turn in trajectory.turns] == [(26, 64)] * 2
    assert not any(turn.estimated for turn in trajectory.turns)


def test_hidden_thoughts_that_only_the_total_counts_are_counted() -> None:
    usage = {"prompt_tokens": 90, "completion_tokens": 5, "total_tokens": 595}
    _, trajectory = asyncio.run(talk(Talk([says("\\boxed{1}", usage=usage)])))
    assert trajectory.sampled_tokens == 505 and not trajectory.turns[0].estimated


def test_without_a_count_tokens_are_estimated_and_said_to_be() -> None:
    way = Talk([says("A" * 400)])
    server, trajectory = asyncio.run(talk(way, refuses="stream_options"))
    assert "stream_options" not in server.bodies[0]
    assert trajectory.sampled_tokens == 100 and trajectory.turns[0].estimated


SCRIPTS = {
    "Chinese": "我们先算一算今天有多少螺栓。",
    "Japanese": "今日のボルトの数を数えましょう。",
    "Korean": "오늘 볼트가 몇 개인지 세어 봅시다. ",
    "Thai": "วันนี้มีสลักเกลียวกี่ตัว ",
    "Hindi": "आज कितने बोल्ट हैं यह गिनते हैं। ",
    "Arabic": "كم عدد البراغي في المخزن اليوم ",
    "emoji": "🔩🧰👩🏽‍🔧🇫🇮",
    "base64": "aW50ZXJsYWNlIGNvdW50cyBib2x0cw==\n",
    "code": f"{' ' * 120}return bolts * crates\n",
}


def test_no_estimate_refuses_a_question_or_cuts_an_answer_in_any_script() -> None:
    """The limit and the context are the server's to keep: 1,500 Chinese characters are some 900
    tokens, and 4,500 ids of our notation.
    """

    async def go() -> None:
        for text in SCRIPTS.values():
            whole = (text * 1500)[:1500].strip()
            way = Talk(
                [says("One."), says(whole)],
                questions=(whole, whole),
                limits=Limits(max_turns=4, max_tokens=512),
            )
            server, trajectory = await talk(way, max_model_len=1024)
            assert (trajectory.stop, trajectory.answer) == (StopReason.ANSWERED, whole)
            assert all(messages[-1]["content"] == whole for messages, _ in server.sent)
            assert [body["max_tokens"] for body in server.bodies] == [512] * 2

    asyncio.run(go())


def test_the_oldest_messages_are_left_out_by_the_servers_own_count() -> None:
    """Once it has told the tokens of a prompt, the ids of our notation are known in tokens."""
    usage = {"prompt_tokens": 900, "completion_tokens": 3}
    for told, kept in (({}, 5), (usage, 6)):
        way = Talk(
            [says("One.", usage=told), says("Two."), says("Three.")],
            questions=("数" * 1200, "And?", "数" * 1200),
        )
        server, _ = asyncio.run(talk(way, max_model_len=2900))
        assert len(server.sent[-1][0]) == kept, told


def test_a_stream_without_end_of_a_server_that_keeps_no_limit_is_ended() -> None:
    """It has no end here; in text or in a call, it is not read on."""

    async def go(more: dict[str, Any]) -> Trajectory:
        async def events() -> AsyncGenerator[Any, None]:
            while True:
                yield delta(None, **more)

        async def handler(asked: Asked) -> None:
            if asked.path == "/v1/models":
                return await asked.json({"data": [{"id": "big"}]})
            await asked.events(events())

        async with serving(handler) as served:
            engine = await HttpEngine.connect(served.url)
            policy = Policy(engine, FORMATS["hermes"], [Echo()], limits=Limits(max_tokens=1))
            async with Rollout(policy, name="a") as rollout:
                trajectory = await rollout.ask("How many bolts?")
            await engine.aclose()
            return trajectory

    call = {"index": 0, "id": "x", "function": {"name": "python", "arguments": "x" * 30_000}}
    for more in ({"reasoning_content": "数" * 10_000}, {"tool_calls": [call]}):
        trajectory = asyncio.run(asyncio.wait_for(go(more), 60))
        assert (trajectory.stop, trajectory.answer) == (StopReason.LENGTH, None)

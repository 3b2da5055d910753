"""Every way in which a turn ends, in every format: the answer of a person, and what is scored.

In `run`, `chat` and `Agent` a turn that ends in plain text is an answer. Rewards and evaluations
see what the format reads: without its tags, only the formats of chat templates have an answer.
"""

import asyncio

import pytest
from support.fakes import Echo, answer
from support.tiny_models import byte_tokenizer

from interlace import Agent, Limits
from interlace.agent.cli.answering import exit_code
from interlace.agent.cli.exits import Exit
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.formats import FORMATS, find_format
from interlace.rollout.formats.tool_calls import ToolCalls
from interlace.rollout.many.runner import Runner
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import StopReason

PLAIN = "The capital of France is Paris."
ANY_TOOL = {name for name, format in FORMATS.items() if isinstance(format, ToolCalls)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


def thought(name: str, text: str) -> str:
    opening, closing = find_format(name).thought
    if name == "gpt_oss":  # <|end|> ends the turn for the tokenizer of these tests
        closing = "<|start|>assistant<|channel|>final<|message|>"
    return f"{opening}{text}{closing}"


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_of_endings(tokenizer: Tokenizer, name: str) -> None:
    native = name in ANY_TOOL
    tagged = find_format(name).write_answer("Paris")
    # ending: what the model says -> the answer of a person, the answer that is scored
    table: dict[str, tuple[str, str | None, str | None]] = {
        "tagged answer": (tagged, "Paris", "Paris"),
        "plain text": (PLAIN, PLAIN, PLAIN if native else None),
        "a thought, then plain text": (
            thought(name, r"Or \boxed{Rome}?") + PLAIN,
            PLAIN,
            PLAIN if native else None,
        ),
        "unclosed box": (r"It is \boxed{Paris", r"It is \boxed{Paris", None),
        "an empty box": (r"\boxed{}", None, None),
        "a thought alone": (thought(name, r"\boxed{Paris}"), None, None),
        "nothing": ("", None, None),
    }

    async def walk() -> None:
        for ending, (said, told, scored) in table.items():
            engine = ScriptedEngine(tokenizer, [said, said])
            agent = Agent(engine, tools=[], format=name)
            result = await agent.run("What is the capital of France?")
            assert result.answer == told, ending
            assert exit_code(result) is (Exit.NO_ANSWER if told is None else Exit.DONE), ending
            stop = StopReason.ENDED if told is None else StopReason.ANSWERED
            shown = result.to_dict()
            assert (shown["answer"], shown["stop"]) == (told, stop.value), ending
            assert result.trajectory.answer == scored, ending
            async for episode in Runner(await agent.policy()).run([Task("a", "?", "Paris")]):
                assert episode.answer == scored, ending

    asyncio.run(walk())


@pytest.mark.parametrize("name", ["retool", "hermes"])
def test_text_that_a_limit_cuts_is_no_answer(tokenizer: Tokenizer, name: str) -> None:
    engine = ScriptedEngine(tokenizer, [PLAIN])
    agent = Agent(engine, tools=[], format=name, limits=Limits(max_tokens=8))
    result = asyncio.run(agent.run("?"))
    assert (result.stop, result.answer, exit_code(result)) == (
        StopReason.LENGTH,
        None,
        Exit.NO_ANSWER,
    )


def test_a_call_is_run_and_plain_text_after_it_is_the_answer(tokenizer: Tokenizer) -> None:
    engine = ScriptedEngine(tokenizer, ["<code>say 4</code>", PLAIN, answer("2"), PLAIN])
    agent = Agent(engine, tools=[Echo()])

    async def talk() -> None:
        async with agent.conversation() as chat:
            first = await chat.ask("?")
            assert (len(first.calls), first.answer) == (1, PLAIN)
            assert (await chat.ask("?")).answer == "2"
            assert (await chat.ask("?")).answer == PLAIN
            assert [one.answer for one in chat.questions] == [PLAIN, "2", PLAIN]

    asyncio.run(talk())
    assert (
        asyncio.run(
            Agent(ScriptedEngine(tokenizer, [PLAIN] * 3), tools=[Echo()], strategy="vote@3").run(
                "?"
            )
        ).answer
        == PLAIN
    )

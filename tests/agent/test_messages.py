"""A conversation as people hold one: a system prompt, and messages of before."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Echo, answer
from support.tiny_models import byte_tokenizer

from interlace import Agent, Conversations
from interlace.agent.messages import read_messages
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.many.runner import Runner
from interlace.rollout.task import Task
from interlace.tools.errors import UsageError

YARD = "You are the assistant of a boat yard."


def scripted(folder: Path, *said: str) -> ScriptedEngine:
    return ScriptedEngine(byte_tokenizer(folder), list(said))


def contexts(engine: ScriptedEngine) -> list[str]:
    """What the model had before it at each request."""
    return [engine.tokenizer.decode(request.ids.tolist()) for request in engine.requests]


def test_the_system_prompt_leads_in_runs_conversations_and_rollouts(tmp_path: Path) -> None:
    engine = scripted(tmp_path, *[answer("1")] * 3)
    end = engine.tokenizer.special_text("eos_token")
    assert end
    agent = Agent(engine, tools=[Echo()], system=YARD + end)

    async def use() -> dict[str, Any]:
        await agent.run("How many berths?")
        async with agent.conversation() as chat:
            await chat.ask("How many berths?")
        policy = await agent.policy()
        async for episode in Runner(policy).run([Task("a", "How many berths?")]):
            return episode.settings
        raise AssertionError

    settings = asyncio.run(use())
    asked = contexts(engine)
    assert asked[0] == asked[1] == asked[2]
    assert asked[0].index(YARD) < asked[0].index("<code>") < asked[0].index("How many berths?")
    assert YARD + end not in asked[0]  # its control tokens are text
    assert settings["system"].startswith(YARD)


def test_messages_are_the_conversation_before_the_question(tmp_path: Path) -> None:
    engine = scripted(tmp_path, answer("7"), answer("8"))
    agent = Agent(engine, tools=[Echo()], system=YARD)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Is berth 7 free?"}]},
        {"role": "assistant", "content": "It is taken."},
        {"role": "user", "content": "Until when?"},
    ]
    result = asyncio.run(agent.run(messages))
    assert (result.question, result.answer) == ("Until when?", "7")
    parts = [YARD, "Be brief.", "Is berth 7 free?", "It is taken.", "Until when?"]
    places = [contexts(engine)[0].index(part) for part in parts]
    assert places == sorted(places)

    async def talk() -> None:
        async with agent.conversation(messages=messages[:3]) as chat:
            with pytest.raises(UsageError, match="a conversation is asked a text"):
                await chat.ask(messages)  # type: ignore[arg-type]
            await chat.ask("Until when?")

    asyncio.run(talk())
    assert contexts(engine)[1] == contexts(engine)[0]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "the last message of a list is the question"),
        ([{"role": "assistant", "content": "Yes?"}], "the last message of a list is the question"),
        ([{"role": "tool", "content": "4"}, {"role": "user", "content": "?"}], "the role 'tool'"),
        ({"role": "user", "content": "?"}, "the last message of a list is the question"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "the last message has a content"),
        (
            [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": [{"type": "image_url"}]},
                {"role": "user", "content": "?"},
            ],
            "message 1 of the question has a content that is not text: leave out pictures",
        ),
        (
            [
                {"role": "assistant", "content": "", "tool_calls": [{}]},
                {"role": "user", "content": "?"},
            ],
            "calls of tools",
        ),
    ],
)
def test_messages_that_can_not_be_read_are_refused(
    tmp_path: Path, messages: list[dict[str, Any]], said: str
) -> None:
    engine = scripted(tmp_path)
    with pytest.raises(UsageError, match=said):
        asyncio.run(Agent(engine, tools=[]).run(messages))
    assert not engine.requests


def test_without_tools_a_model_that_was_not_trained_here_is_asked_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = scripted(tmp_path, "Hello.")
    monkeypatch.setattr("interlace.agent.agent.load_engine", lambda name, **_: engine)
    agent = Agent("http://localhost:1/v1#osprey", tools=[], system=YARD)
    result = asyncio.run(agent.run("Hello?"))
    assert (result.answer, result.trajectory.format) == ("Hello.", "words")
    (asked,) = contexts(engine)
    assert YARD in asked and "boxed" not in asked and "step by step" not in asked


def test_system_messages_are_joined() -> None:
    given = [{"role": "developer", "content": "A."}, {"role": "system", "content": "B."}]
    assert read_messages(given) == ("A.\n\nB.", ())


def test_a_resumed_conversation_keeps_its_system_prompt(tmp_path: Path) -> None:
    path = tmp_path / "talks.db"
    first = Agent(
        scripted(tmp_path, answer("1")),
        tools=[Echo()],
        system=YARD,
        conversations=Conversations(path),
    )

    async def ask(agent: Agent, id: str | None) -> str:
        async with agent.conversation(resume=id) as chat:
            await chat.ask("How many berths?")
            return chat.episode.id

    id = asyncio.run(ask(first, None))
    assert Conversations(path).load(id).system == YARD

    async def ask_with_others() -> None:
        async with first.conversation(resume=id, messages=[{"role": "user", "content": "Hi"}]):
            pass

    with pytest.raises(UsageError, match="has its own messages"):
        asyncio.run(ask_with_others())

    db = sqlite3.connect(path)  # as version 1 had it
    db.executescript("alter table conversation drop column system; pragma user_version = 1;")
    db.close()
    store = Conversations(path)
    assert store.load(id).system == ""
    engine = scripted(tmp_path, answer("2"))
    assert asyncio.run(ask(Agent(engine, tools=[Echo()], conversations=store), id)) == id
    assert store.load(id).episode.trajectory.answer == "2"

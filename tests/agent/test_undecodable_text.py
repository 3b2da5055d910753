"""Text that UTF-8 can't hold (names of files, halves of characters): escaped wherever it enters."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from support.fakes import NANO
from support.servers import serving
from support.text_server import TextServer, says

from interlace import Agent, tool
from interlace.agent import Conversations
from interlace.rollout.engines import Engine, HttpEngine, ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.events import CallOutput
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import StopReason
from interlace.tools import ErrorKind

ODD = "caf\udce9 \ud83d \ud83d\ude42\x00"
SHOWN = "caf\\udce9 \\ud83d \U0001f642\x00"


@pytest.fixture
def folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """It holds a file whose name is not UTF-8. pytest's workers can't report a log of such text."""
    caplog.set_level(logging.CRITICAL, "interlace.tools")
    (tmp_path / "odd").mkdir()
    with open(os.fsencode(tmp_path / "odd") + b"/caf\xe9.txt", "w"):
        return tmp_path / "odd"


def tools(folder: Path) -> list[object]:
    def names() -> str:
        """List the files."""
        return "\n".join(os.listdir(folder))

    def listed() -> list[object]:
        """List the files as a list, and some bytes."""
        return [*os.listdir(folder), b"\xff"]

    def fails() -> None:
        """Fail."""
        raise ValueError(ODD)

    async def says_more() -> AsyncGenerator[str, None]:
        """Say it in pieces."""
        yield ODD
        yield "."

    return [tool(each) for each in (names, listed, fails, says_more)]


CALLS = ["names", "listed", "fails", "says_more"]
OUTPUTS = [
    r"caf\udce9.txt",
    r'["caf\\udce9.txt","\\xff"]',
    f"ValueError: {SHOWN}",
    f"{SHOWN}.",
]


async def ask(engine: Engine, folder: Path) -> None:
    """One question of odd text, one of its tools, and the record of both, which tell the truth."""
    store = Conversations(folder.parent / "c.db")
    async with Agent(engine, tools=tools(folder), format="hermes", conversations=store) as agent:  # type: ignore[arg-type]
        async with agent.conversation() as conversation:
            first = await conversation.ask(ODD)
            assert (first.stop, first.answer) == (StopReason.ANSWERED, "1")
            events = [event async for event in conversation.stream("Again.")]
            result = conversation.last
            assert result is not None and result.stop is StopReason.ANSWERED
            calls = result.trajectory.calls
            log = folder.parent / "log.jsonl"
            with EpisodeLog(log) as kept:
                kept.append(conversation.episode)
        async with agent.conversation(resume=conversation.episode.id) as resumed:
            assert resumed.questions[0].question == SHOWN
    assert [(call.tool, call.output) for call in calls] == list(zip(CALLS, OUTPUTS, strict=True))
    assert [call.error for call in calls] == [None, None, ErrorKind.EXCEPTION, None]
    assert "".join(e.text for e in events if isinstance(e, CallOutput)) == f"{SHOWN}."
    for event in events:
        str(getattr(event, "text", "")).encode()
    (episode,) = read_episodes(log)
    assert [call.output for call in episode.trajectory.calls] == OUTPUTS


def test_odd_text_is_escaped_and_what_ran_is_recorded_as_run(folder: Path) -> None:
    turns = [f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>' for name in CALLS]
    said = ["\\boxed{1}", *turns, "\\boxed{2}"]
    asyncio.run(ask(ScriptedEngine(Tokenizer.load(NANO), said), folder))


def test_a_text_server_is_sent_escapes_and_may_send_halves(folder: Path) -> None:
    server = TextServer(
        says("\\boxed{1}"), *(says("\ud83d", (name, "{}")) for name in CALLS), says("\\boxed{2}")
    )

    async def go() -> None:
        async with serving(server) as served:
            engine = await HttpEngine.connect(served.url)
            await ask(engine, folder)
            await engine.aclose()

    asyncio.run(go())
    assert server.sent[0][0][-1] == {"role": "user", "content": SHOWN}
    sent = server.sent[-1][0]
    assert [each["content"] for each in sent if each["role"] == "tool"] == OUTPUTS
    json.dumps(sent, ensure_ascii=False).encode()

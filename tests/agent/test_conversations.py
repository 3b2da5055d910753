"""A conversation is kept turn by turn: it is resumed, taken back, and outlives a kill."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support import warm
from support.fakes import Echo, answer, code
from support.tiny_models import byte_tokenizer

from interlace import Agent, Conversations
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.trajectory import StopReason
from interlace.tools.errors import DataError, UsageError


def agent(folder: Path, *script: str, file: str = "talks.db") -> Agent:
    engine = ScriptedEngine(byte_tokenizer(folder), list(script))
    return Agent(engine, tools=[Echo()], conversations=Conversations(folder / file))


def prompt(agent: Agent) -> str:
    """The whole context of the last request."""
    engine = agent.model
    assert isinstance(engine, ScriptedEngine)
    return engine.tokenizer.decode(engine.requests[-1].ids.tolist())


def test_what_was_said_is_there_again(tmp_path: Path) -> None:
    async def first() -> str:
        async with agent(tmp_path, code("say 1"), answer("1"), answer("2")).conversation() as chat:
            await chat.ask("The first?")
            await chat.ask("The second?")
            return chat.episode.id

    id = asyncio.run(first())
    again = agent(tmp_path, answer("3"))
    store = again.settings.store
    assert store is not None
    (summary,) = store.all()
    assert (summary.id, summary.title, summary.questions) == (id, "The first?", 2)
    assert (summary.model, summary.format, summary.tools) == ("scripted", "retool", ("python",))

    async def resumed() -> None:
        async with again.conversation(resume=id) as chat:
            before = chat.episode.trajectory.ledger.ids.tolist()
            assert [one.answer for one in chat.questions] == ["1", "2"]
            assert (await chat.ask("The third?")).answer == "3"
            ledger = chat.episode.trajectory.ledger
            assert ledger.ids.tolist()[: len(before)] == before  # token by token
            assert ledger == store.load(id).episode.trajectory.ledger

    asyncio.run(resumed())
    assert "The first?" in prompt(again) and "say 1" in prompt(again)
    saved = store.load(id)
    assert [one.stop for one in saved.asked] == [StopReason.ANSWERED] * 3
    assert len(saved.episode.trajectory.turns) == 4
    assert (tmp_path / "talks.db").stat().st_mode & 0o077 == 0
    store.delete(store.find(id[:6]))
    assert store.all() == []
    with pytest.raises(DataError, match="no conversation yet"):
        store.find()


DEEP = "[" * 100_000
DAMAGE = {
    "tools that are no JSON": ("conversation", "tools", "{["),
    "tools that are a number": ("conversation", "tools", "5"),
    "tools too deep": ("conversation", "tools", DEEP),
    "a time that is none": ("conversation", "started", "soon"),
    "a time without end": ("conversation", "updated", float("inf")),
    "a mark that is no JSON": ("question", "mark", "{bad"),
    "a mark of other names": ("question", "mark", '{"left": 1}'),
    "a mark of a list": ("question", "mark", "[1]"),
    "a stop of no kind": ("question", "stop", "tired"),
    "a span too deep": ("span", "data", DEEP),
    "a span of a number": ("span", "data", "7"),
    "a span of a label": ("span", "data", '{"source": "policy", "ids": [1], "colour": 3}'),
    "a span of bytes": ("span", "data", b"\xff\xfe"),
    "a ledger of a huge number": ("span", "ledger", 999_999_999),
    "a ledger below 0": ("span", "ledger", -1),
    "a ledger of no number": ("span", "ledger", "first"),
    "a turn too deep": ("turn", "data", DEEP),
    "a turn of a list": ("turn", "data", "[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_said_to_be_unreadable_in_one_line(tmp_path: Path, damage: str) -> None:
    async def ask() -> str:
        async with agent(tmp_path, code("say 1"), answer("1")).conversation() as chat:
            await chat.ask("The first?")
            return chat.episode.id

    id = asyncio.run(ask())
    table, column, value = DAMAGE[damage]
    with sqlite3.connect(tmp_path / "talks.db") as file:
        # The last row: of its other ones a ledger's number would be given twice.
        file.execute(
            f"update {table} set {column} = ? where rowid = (select max(rowid) from {table})",
            [value],
        )
    file.close()
    kept = Conversations(tmp_path / "talks.db")
    with pytest.raises(DataError, match="can't read conversations from") as why:
        kept.all()
        kept.load(id)
    assert str(why.value).count("\n") == 0 and len(str(why.value)) < 600
    kept.close()


def test_the_last_question_can_be_taken_back_also_after_it_was_resumed(tmp_path: Path) -> None:
    async def talk() -> str:
        one = agent(tmp_path, answer("1"), answer("wrong"), answer("2"))
        async with one.conversation() as chat:
            await chat.ask("The first?")
            await chat.ask("A slip?")
            assert chat.undo() == "A slip?"
            await chat.ask("The second?")
            assert "A slip" not in prompt(one)
            return chat.episode.id

    id = asyncio.run(talk())

    async def resumed() -> None:
        other = agent(tmp_path, answer("two"))
        async with other.conversation(resume=id) as chat:
            assert [one.question for one in chat.questions] == ["The first?", "The second?"]
            assert chat.undo() == "The second?"
            await chat.ask("The second again?")
            assert "The second?" not in prompt(other) and "The first?" in prompt(other)
            assert [chat.undo(), chat.undo(), chat.undo()][1:] == ["The first?", None]

    asyncio.run(resumed())


def test_another_model_begins_with_what_was_said(tmp_path: Path) -> None:
    one, other = agent(tmp_path, answer("1")), agent(tmp_path, answer("2"))

    async def talk() -> None:
        async with one.conversation() as chat:
            await chat.ask("The first?")
            async with other.conversation(after=chat) as next_chat:
                await next_chat.ask("The second?")

    asyncio.run(talk())
    assert "The first?" in prompt(other)

    async def wrong_model() -> None:
        store = one.settings.store
        assert store is not None
        third = Agent(
            ScriptedEngine(byte_tokenizer(tmp_path), []),
            tools=[],
            format="search_r1",
            conversations=store,
        )
        async with third.conversation(resume=store.find()):
            pass

    with pytest.raises(UsageError, match="is one with scripted in the format retool, not with"):
        asyncio.run(wrong_model())


KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_conversations import agent, answer, code

async def talk(folder):
    async with agent(folder, code("say 17"), code("hang")).conversation() as chat:
        def told(event):
            if getattr(event, "arguments", {}).get("code", "").strip() == "hang":
                print("hangs", flush=True)
        await chat.ask("Will it hang?", told)

asyncio.run(talk(Path(sys.argv[1])))
"""


def test_a_process_that_was_killed_in_a_call_leaves_every_finished_turn(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    command = [sys.executable, "-c", KILLED, str(tmp_path), here]
    with warm.Popen(command, stdout=subprocess.PIPE, text=True, env=settings) as process:
        assert process.stdout is not None and process.stdout.readline() == "hangs\n"
        process.send_signal(signal.SIGKILL)

    again = agent(tmp_path, answer("17"))

    async def resumed() -> None:
        store = again.settings.store
        assert store is not None
        async with again.conversation(resume=store.find()) as c:
            (question,) = c.questions
            assert (question.question, question.stop) == ("Will it hang?", StopReason.CANCELLED)
            (turn,) = c.episode.trajectory.turns  # the one with the call that came back
            assert [call.output for call in turn.calls] == ["17"]
            assert (await c.ask("And now?")).answer == "17"

    asyncio.run(resumed())
    assert "Will it hang?" in prompt(again) and "hang\n```" not in prompt(again)

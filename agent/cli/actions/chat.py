"""`interlace chat`: one question after the other, in one context."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Protocol

from ....tools.errors import UsageError
from ..chat.line_editor import LineEditor
from ..chat.session import ChatSession
from ..chat.slash_commands import COMMANDS, run_command
from ..commands.chat import KeepOptions
from ..exits import Exit, run_to_end
from ..options import GuardOptions, LimitOptions, ModelOptions, OutputOptions, TeamOptions

__all__ = ["chat", "converse"]


def chat(
    id: str | None,
    keep: KeepOptions,
    team: TeamOptions,
    model: ModelOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    output: OutputOptions,
) -> int:
    """Talk until there are no more questions, and return the exit code."""
    if id is not None and not keep.resume:
        raise UsageError(f"to continue a conversation: interlace chat --resume {id}")
    session = ChatSession(model, limits, guard, output, team=team)
    session.keep(keep, id)
    return run_to_end(converse(session), interrupt=not session.interactive)


class Questions(Protocol):
    """A source of questions."""

    def read(self) -> AsyncIterator[str]:
        """One question after the other."""
        ...


async def converse(chat: ChatSession) -> Exit:
    """Answer until there are no more questions; return the exit code of the first that failed."""
    try:
        questions = await _questions(chat)
        await chat.go_on()
        async with aclosing(questions.read()) as lines:  # type: ignore[type-var]
            async for line in lines:
                if line.startswith("/") and await run_command(chat, line):
                    break
                if line and not line.startswith("/"):
                    await chat.answer(line)
                if chat.leaving:
                    break
    finally:
        await chat.aclose()
    if chat.leaving:
        return Exit.INTERRUPTED
    return Exit.DONE if chat.interactive else chat.code


async def _questions(chat: ChatSession) -> Questions:
    if not chat.interactive:
        await chat.load()
        return _Piped()
    # The model is loaded while the person types; the tools' walls are what they are told of.
    loading = asyncio.create_task(chat.agent.policy())
    await chat.greet()
    words = sorted(COMMANDS)
    return LineEditor(loading, chat.interrupt, words=words, example=chat.example)


class _Piped:
    """Each line of stdin is a question."""

    async def read(self) -> AsyncGenerator[str, None]:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            yield line.decode("utf-8", "replace").strip()

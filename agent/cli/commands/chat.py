"""`interlace chat`: one question after the other, in one context."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Protocol

import typer

from ..approval_options import GuardOptions
from ..chat.session import Chat, KeepOptions
from ..chat.slash_commands import COMMANDS, obey
from ..exits import Exit, guarded, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions, command
from ..team_options import TeamOptions

__all__ = ["chat", "converse"]


@command
def chat(
    id: Annotated[
        str | None,
        typer.Argument(help="With --resume: the id, or how it begins.", show_default=False),
    ] = None,
    *,
    model: ModelOptions,
    keep: KeepOptions,
    team: TeamOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    output: OutputOptions,
) -> None:
    """Talk to a model. What is said and the Python state are kept from question to question.

    Without a terminal, each line of stdin is a question and each answer a line on stdout. With
    --team each question is answered on its own, by a CEO and its experts.
    """
    with guarded(json=output.json, debug=output.debug):
        from ....tools.errors import UsageError

        if id is not None and not keep.resume:
            raise UsageError(f"to go on with a conversation: interlace chat --resume {id}")
        talk = Chat(model, limits, guard, output, team=team)
        talk.keep(keep, id)
        raise typer.Exit(run_to_end(converse(talk), interrupt=not talk.interactive))


class Questions(Protocol):
    """A source of questions."""

    def read(self) -> AsyncIterator[str]:
        """One question after the other."""
        ...


async def converse(chat: Chat) -> Exit:
    """Answer until there are no more questions; the exit code of the first that failed."""
    try:
        questions = await _questions(chat)
        await chat.go_on()
        async with aclosing(questions.read()) as lines:  # type: ignore[type-var]
            async for line in lines:
                if line.startswith("/") and await obey(chat, line):
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


async def _questions(chat: Chat) -> Questions:
    if not chat.interactive:
        await chat.load()
        return _Piped()
    from ..chat.line_editor import Prompt

    # The model is loaded while the person types; the tools' walls are what they are told of.
    loading = asyncio.create_task(chat.agent.policy())
    await chat.greet()
    words = sorted(COMMANDS)
    return Prompt(loading, chat.interrupt, words=words, example=chat.example)


class _Piped:
    """Each line of stdin is a question."""

    async def read(self) -> AsyncGenerator[str, None]:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            yield line.decode("utf-8", "replace").strip()

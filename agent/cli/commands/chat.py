"""`interlace chat`: one question after the other, in one context."""

from dataclasses import dataclass
from typing import Annotated

import typer

from ..options import (
    GuardOptions,
    LimitOptions,
    ModelOptions,
    OutputOptions,
    TeamOptions,
    command,
)

__all__ = ["KeepOptions", "chat"]


@dataclass(frozen=True, kw_only=True)
class KeepOptions:
    """The conversation to continue, and whether it is kept."""

    resume: Annotated[
        bool,
        typer.Option("--resume", "-r", help="Continue the latest conversation, or the one of ID."),
    ] = False
    keep: Annotated[
        bool | None,
        typer.Option(
            "--keep/--no-keep",
            help="Keep the conversation, so that it can be resumed. Default: on a terminal.",
            show_default=False,
        ),
    ] = None


@command
def chat(
    id: Annotated[
        str | None,
        typer.Argument(help="With --resume: the id or its beginning.", show_default=False),
    ] = None,
    *,
    keep: KeepOptions,
    model: ModelOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Talk to a model. The context and the Python variables are kept from question to question.

    Without a terminal, each line of stdin is a question and each answer a line on stdout. With
    --team a CEO and its experts answer each question on its own.
    """
    from ..actions.chat import chat

    return chat(id, keep, team, model, limits, guard, output)

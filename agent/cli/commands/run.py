"""`interlace run`: one question."""

from typing import Annotated

import typer

from ..options import (
    GuardOptions,
    LimitOptions,
    ModelOptions,
    OutputOptions,
    Strategy,
    TeamOptions,
    command,
)

__all__ = ["run"]


@command
def run(
    question: Annotated[
        str | None,
        typer.Argument(help="Question; - or nothing reads all of stdin.", show_default=False),
    ] = None,
    *,
    strategy: Strategy = None,
    model: ModelOptions,
    limits: LimitOptions,
    guard: GuardOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Answer one question. Only the answer goes to stdout, everything else to stderr."""
    from ..actions.run import run

    return run(question, strategy, team, model, limits, guard, output)

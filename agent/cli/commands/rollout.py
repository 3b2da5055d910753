"""`interlace rollout`: many questions, several attempts at each, every token recorded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ..options import (
    Databases,
    LimitOptions,
    ModelOptions,
    OutputOptions,
    Strategy,
    TeamOptions,
    command,
)

__all__ = ["RolloutOptions", "rollout"]


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """Options of a rollout and its log."""

    panel: ClassVar = "Rollout"
    out: Annotated[Path, typer.Option("--out", "-o", help="Log of the episodes (JSONL).")]
    n: Annotated[int, typer.Option(min=1, help="Attempts per task.")] = 1
    strategy: Strategy = None
    databases: Databases = None
    concurrency: Annotated[int, typer.Option(min=1, help="Attempts at the same time.")] = 16
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries of an attempt that infrastructure failed.")
    ] = 1
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Complete the log: only missing and interrupted attempts."),
    ] = False
    parquet: Annotated[
        Path | None, typer.Option(help="Export the finished log to this Parquet file.")
    ] = None


@command
def rollout(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TASKS",
            help="Tasks: one question per line, JSONL with question, id and answer, a public data "
            "set such as gsm8k:FILE, a generator, or your own (mine.py:tasks); - reads stdin.",
        ),
    ],
    *,
    job: RolloutOptions,
    model: ModelOptions,
    limits: LimitOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Roll out many questions, --n attempts at each, and log every token.

    Token ids, their sources, log-probabilities and the loss mask of all episodes go to --out, each
    as soon as it is finished. The same command with --resume completes a run that was killed.
    """
    from ..actions.rollout import rollout

    return rollout(source, job, model, limits, team, output)

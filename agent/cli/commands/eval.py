"""`interlace eval`: the accuracy of a model on tasks with answers, and how it uses its tools."""

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

__all__ = ["EvalOptions", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of an evaluation."""

    panel: ClassVar = "Evaluation"
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for episodes and results. Default: none."),
    ] = None
    n: Annotated[int, typer.Option(min=1, help="Attempts per task.")] = 1
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first tasks.")] = None
    databases: Databases = None
    concurrency: Annotated[int, typer.Option(min=1, help="Attempts at the same time.")] = 16
    retries: Annotated[
        int, typer.Option(min=0, help="Further tries of an attempt that infrastructure failed.")
    ] = 1
    strategy: Strategy = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Complete the run in --out; finished attempts stay.")
    ] = False
    checker: Annotated[
        str,
        typer.Option(
            help="Checker of tasks that name none: exact, math, em, sql; or mine.py:function."
        ),
    ] = "exact"
    pair: Annotated[
        bool,
        typer.Option("--pair", help="Ask each task with and without tools, greedily, and compare."),
    ] = False
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="MODES|FIRST SECOND",
            help="single,vote@k,team: ask each task in these modes, vote@k at the team's tokens. "
            "Or two runs (folders of --out, or logs of episodes) instead of TASKS.",
        ),
    ] = None
    plots: Annotated[Path | None, typer.Option(help="Draw the figures to this PNG.")] = None
    at_least: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Exit with code 8 if the accuracy is below this."),
    ] = None


@command
def evaluate(
    tasks: Annotated[
        str | None,
        typer.Argument(
            help="Tasks: a file (JSONL, Parquet), a public data set such as gsm8k:FILE, or a "
            "generator (arithmetic:test:200, database, lookup), or your own (mine.py:tasks)."
        ),
    ] = None,
    *,
    job: EvalOptions,
    model: ModelOptions,
    limits: LimitOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Measure a model on tasks with answers: accuracy, pass@k, maj@k, and its use of tools.

    A single attempt per task is greedy, several are sampled at temperature 1. A task with a
    database or corpus of its own is asked of that, unless --tool is given.
    """
    from ..actions.eval import evaluate

    return evaluate(tasks, job, model, limits, team, output)

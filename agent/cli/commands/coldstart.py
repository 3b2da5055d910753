"""`interlace coldstart`: verified demonstrations of tool use, for fine-tuning."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ..options import Databases, LimitOptions, ModelOptions, OutputOptions, command

__all__ = ["ColdStartOptions", "TraceOrigin", "coldstart"]


class TraceOrigin(StrEnum):
    """A source of traces."""

    SAMPLE = "sample"
    GSM8K = "gsm8k"
    REWRITE = "rewrite"
    TRACES = "traces"
    M500 = "m500"


@dataclass(frozen=True, kw_only=True)
class ColdStartOptions:
    """The source of the traces, the rules for keeping them, and the output folder."""

    panel: ClassVar = "Demonstrations"
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for traces.jsonl and the report.")
    ]
    origin: Annotated[
        TraceOrigin,
        typer.Option(
            "--from",
            help="Source of traces. sample: the model's own correct attempts; gsm8k: annotated "
            "solutions, no model needed; rewrite: solutions rewritten by a model; traces: traces "
            "that the tasks bring; m500: what the members of a team said, unchecked.",
        ),
    ] = TraceOrigin.SAMPLE
    n: Annotated[int, typer.Option(min=1, help="Attempts per task (sample, rewrite).")] = 4
    cap: Annotated[int, typer.Option(min=1, help="Traces kept per task.")] = 2
    needs_call: Annotated[
        bool, typer.Option("--needs-call", help="Keep only attempts with a tool call (sample).")
    ] = False
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first tasks.")] = None
    databases: Databases = None
    unlike: Annotated[
        str | None,
        typer.Option(
            metavar="TASKS",
            help="Test set: tasks that share 13 consecutive words with it are left out.",
        ),
    ] = None
    writer: Annotated[
        str | None, typer.Option(help="Model that rewrites. Default: --model (rewrite).")
    ] = None
    template: Annotated[
        Path | None,
        typer.Option(
            help="Prompt of the rewriting model: text with {question}, {solution}, {answer}."
        ),
    ] = None
    checker: Annotated[
        str,
        typer.Option(
            help="Checker of tasks that name none: exact, math, em, sql; or mine.py:function."
        ),
    ] = "exact"
    concurrency: Annotated[int, typer.Option(min=1, help="Attempts at the same time.")] = 8
    resume: Annotated[
        bool, typer.Option("--resume", help="Complete the attempts in --out (sample, rewrite).")
    ] = False


@command
def coldstart(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TASKS",
            help="Tasks: a file, a generator (arithmetic:train:500) or gsm8k:FILE; for m500 its "
            "JSONL.",
        ),
    ],
    job: ColdStartOptions,
    model: ModelOptions,
    limits: LimitOptions,
    output: OutputOptions,
) -> int:
    """Build demonstrations for `interlace sft`: only traces with a correct answer whose tool
    outputs are reproduced are kept.

    Ledgers are encoded with --model's tokenizer: they fine-tune that model. report.json counts what
    each check dropped.
    """
    from ..actions.coldstart import coldstart

    return coldstart(source, job, model, limits, output)

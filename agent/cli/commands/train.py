"""`interlace train`: reinforcement learning, on this machine or with verl."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ..options import OutputOptions, command

__all__ = ["TrainEngine", "TrainOptions", "train"]


class TrainEngine(StrEnum):
    """A trainer."""

    LOCAL = "local"
    VERL = "verl"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The most common settings; --set reaches all of them."""

    panel: ClassVar = "Common settings (--set reaches all)"
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model: nano, smollm2, a folder, a Hugging Face id."),
    ] = None
    tasks: Annotated[
        str | None,
        typer.Option(help="Training tasks: a file, or a generator (arithmetic, database, lookup)."),
    ] = None
    held_out: Annotated[
        str | None, typer.Option(help="Tasks to evaluate on, such as arithmetic:test:200.")
    ] = None
    databases: Annotated[
        str | None,
        typer.Option(help="Folder of the databases that tasks name (BIRD, Spider)."),
    ] = None
    objective: Annotated[
        str | None,
        typer.Option(help="Objective: grpo, dapo, dr_grpo, rloo, ...; or mine.py:objective."),
    ] = None
    reward: Annotated[
        str | None,
        typer.Option(help="Reward: correct, retool, search_r1, ...; or mine.py:function."),
    ] = None
    checker: Annotated[
        str | None,
        typer.Option(
            help="Checker of tasks that name none: exact, math, em, sql; or mine.py:function."
        ),
    ] = None
    credit: Annotated[
        str | None,
        typer.Option(
            help="Credit in a team: team, role, turn; or mine.py:function. In trees: leaves, nodes."
        ),
    ] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Number of training steps.")] = None
    learning_rate: Annotated[float | None, typer.Option(help="Learning rate of AdamW.")] = None
    lora_rank: Annotated[
        int | None, typer.Option(min=0, help="Rank of LoRA adapters; 0 trains all weights.")
    ] = None
    device: Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = (
        None
    )
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the order of tasks and of sampling.")
    ] = None
    out: Annotated[str | None, typer.Option("--out", "-o", help="Folder of the run.")] = None


@command
def train(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml", help="Settings; flags override them."),
    ] = None,
    *,
    config_option: Annotated[
        Path | None,
        typer.Option("--config", help="The same; with --engine verl also the name of a recipe."),
    ] = None,
    engine: Annotated[
        TrainEngine,
        typer.Option(
            "--engine", help="Trainer: local (this machine), or verl (many cards, nodes)."
        ),
    ] = TrainEngine.LOCAL,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting. Repeat for several."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out from its checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print all settings and their sources, and check that tasks, tools, format and "
            "reward fit together.",
        ),
    ] = False,
    options: TrainOptions,
    output: OutputOptions,
) -> None:
    """Train a policy by reinforcement learning on tasks with known answers.

    Metrics, all episodes and the checkpoint go to the folder of the run. Ctrl-C and SIGTERM finish
    the step and save; --resume continues, with the settings that are named beside it changed.
    """
    if engine is TrainEngine.VERL:
        from ..actions.train_verl import train_with_verl

        train_with_verl(config, config_option, options, settings or [], resume, dry_run, output)
        return
    from ..actions.train import train

    train(config, config_option, options, settings or [], resume, dry_run, output)

"""`interlace train`: reinforcement learning on this machine."""

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..exits import Exit, Terminated, guarded, print_json
from ..options import OutputOptions, command
from ..resume import check_folder

if TYPE_CHECKING:
    from ....train.config import Resolved, TrainConfig
    from ....train.local.record import Sink
    from ....train.local.rl import Trainer

__all__ = ["TrainEngine", "train"]


class TrainEngine(StrEnum):
    """A trainer."""

    LOCAL = "local"
    VERL = "verl"


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The settings asked for most; --set reaches all of them."""

    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="nano, smollm2, a folder or a Hugging Face id."),
    ] = None
    tasks: Annotated[
        str | None,
        typer.Option(help="A file of tasks, or a generator: arithmetic, database, lookup."),
    ] = None
    held_out: Annotated[
        str | None, typer.Option(help="Tasks to evaluate on, such as arithmetic:test:200.")
    ] = None
    databases: Annotated[
        str | None,
        typer.Option(help="The folder of the databases that tasks name (BIRD, Spider)."),
    ] = None
    objective: Annotated[
        str | None, typer.Option(help="grpo, dapo, dr_grpo, rloo, ...; or mine.py:objective.")
    ] = None
    reward: Annotated[
        str | None, typer.Option(help="correct, retool, search_r1, ...; or mine.py:function.")
    ] = None
    checker: Annotated[
        str | None,
        typer.Option(help="exact, math, em, sql, for tasks that do not say; or mine.py:function."),
    ] = None
    credit: Annotated[
        str | None, typer.Option(help="Of a team: team, role, turn; or mine.py:function.")
    ] = None
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all.")] = None
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's.")] = None
    lora_rank: Annotated[
        int | None, typer.Option(min=0, help="Rank of adapters; 0 trains all weights.")
    ] = None
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Of tasks and sampling.")] = None
    out: Annotated[str | None, typer.Option("--out", "-o", help="The run's folder.")] = None


@command
def train(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml", help="Settings; flags come before it."),
    ] = None,
    *,
    config_option: Annotated[
        Path | None,
        typer.Option("--config", help="The same; with --engine verl, a recipe's name too."),
    ] = None,
    engine: Annotated[
        TrainEngine,
        typer.Option("--engine", help="This machine's trainer, or verl's: many cards, many nodes."),
    ] = TrainEngine.LOCAL,
    options: TrainOptions,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any setting; several times."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, from its checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print all settings and where each is from; see that tasks, tools, format and "
            "reward go together.",
        ),
    ] = False,
    output: OutputOptions,
) -> None:
    """Train a policy by reinforcement learning on tasks with known answers.

    Metrics, every episode and the checkpoint go to the run's folder. Ctrl-C and SIGTERM finish the
    step and save; --resume goes on, with other settings where they are named beside it.
    """
    with guarded(json=output.json, debug=output.debug):
        config = _one(config, config_option)
        if engine is TrainEngine.VERL:
            from .train_verl import train_with_verl

            given = _with_databases(_given(options))
            train_with_verl(config, given, settings or [], resume, dry_run, output)
            raise typer.Exit(Exit.DONE)
        flags = _flags(options, settings or [])
        resolved = _resolve(config, flags, resume=resume)
        if dry_run:
            from ....train.local.training_setup import check_run

            print(resolved.to_yaml(), end="", flush=True)
            check_run(resolved.config)
            return
        check_folder(Path(resolved.config.out), resume=resume)
        _run(resolved, output, changed=flags.keys() if resume else ())
        raise typer.Exit(Exit.DONE)


def _one(argument: Path | None, option: Path | None) -> Path | None:
    from ....tools.errors import UsageError

    if argument is not None and option is not None:
        raise UsageError(f"{argument} and --config {option}: name one configuration")
    return argument if option is None else option


def _given(options: TrainOptions) -> dict[str, Any]:
    named = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in named.items() if value is not None}


def _with_databases(given: dict[str, Any]) -> dict[str, Any]:
    """The flags for verl, whose files of tasks name their databases themselves."""
    folder = given.pop("databases", None)
    if folder is not None:
        given |= {
            name: f"{given[name]}:{folder}" for name in ("tasks", "held_out") if name in given
        }
    return given


def _flags(options: TrainOptions, settings: list[str]) -> dict[str, Any]:
    from ....tools.errors import UsageError
    from ....train.config import parse_value

    flags = _given(options)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write NAME=VALUE, such as --set group_size=16")
        flags[name.strip().replace("-", "_")] = parse_value(value)
    return flags


def _resolve(file: Path | None, flags: dict[str, Any], *, resume: bool) -> "Resolved":
    from ....tools.errors import UsageError
    from ....train.config import TrainConfig, read_config

    from_run = resume and file is None
    if from_run:
        folder = Path(flags.get("out", TrainConfig().out))
        file = folder / "config.yaml"
        if not file.is_file():
            raise UsageError(f"{folder} holds no run to go on with: name it with --out")
        flags["out"] = str(folder)
    return read_config(file, flags, trusted=not from_run)  # a run's folder may be anybody's


def _run(resolved: "Resolved", output: OutputOptions, *, changed: Collection[str]) -> None:
    from ....train.local.plot import need_matplotlib, plot_run
    from ....train.local.record import Record
    from ....train.local.rl import Trainer
    from ....train.local.training_setup import make_setup
    from ..exits import tell
    from ..render.training_progress import TrainingScreen

    config, folder = resolved.config, Path(resolved.config.out)
    if config.plot:
        need_matplotlib()
    with ExitStack() as stack:
        said = None if output.quiet else tell
        setup = stack.enter_context(make_setup(config, tell=said))
        record = Record(folder, _sinks(config), settings=resolved.to_yaml())
        stack.enter_context(record)
        trainer = Trainer(config, setup, changed=changed)
        screen = TrainingScreen(config, sys.stderr, hidden=output.quiet)
        screen.say(_begin(trainer))
        stack.enter_context(_told_how_to_resume(trainer, quiet=output.quiet))
        stack.enter_context(screen)
        trainer.train(record, progress=screen.step, episode=screen.episode, tell=screen.say)
    if config.plot:
        screen.say(f"plot: {plot_run(folder)}")
    if output.json:
        done = {"steps": trainer.done, "updates": trainer.updates}
        print_json({"out": str(folder), **done, "metrics": screen.last})
    elif not output.quiet:
        tell(f"{trainer.done} steps; the model is in {folder / 'checkpoint'}")


def _sinks(config: "TrainConfig") -> "list[Sink]":
    from ....train.local.record import TensorBoard, WeightsAndBiases

    folder = Path(config.out)
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(TensorBoard(folder))
    if config.wandb is not None:
        sinks.append(WeightsAndBiases(folder, config.wandb, config.model_dump(mode="json")))
    return sinks


def _begin(trainer: "Trainer") -> str:
    model = trainer.setup.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    after = (
        "resuming is exact: the same bits as without a break"
        if trainer.exact
        else "resuming goes on from the same state with new noise"
    )
    return (
        f"{trained:,} weights on {model.device} · {trainer.update_config.objective.name} · {after}"
    )


@contextmanager
def _told_how_to_resume(trainer: "Trainer", *, quiet: bool) -> Iterator[None]:
    from ..exits import tell

    try:
        yield
    except (KeyboardInterrupt, Terminated):
        if not quiet:
            out = trainer.folder
            tell(f"stopped after step {trainer.done}; interlace train --resume --out {out} goes on")
        raise

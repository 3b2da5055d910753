"""`interlace train`: reinforcement learning on this machine."""

import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from ....tools.errors import UsageError
from ....train.config import Resolved, TrainConfig, parse_value, read_config
from ....train.local.plot import need_matplotlib, plot_run
from ....train.local.record import Record, Sink, TensorBoard, WeightsAndBiases
from ....train.local.rl import Trainer
from ....train.local.training_setup import check_run, make_setup
from ..commands.train import TrainOptions
from ..exits import Terminated, eprint, print_json
from ..options import OutputOptions
from ..render.training_progress import TrainingScreen

__all__ = ["check_folder", "choose_config", "given_settings", "train"]


def train(
    config: Path | None,
    config_option: Path | None,
    options: TrainOptions,
    settings: list[str],
    resume: bool,
    dry_run: bool,
    output: OutputOptions,
) -> None:
    """Train, or, for a dry run, print the settings and check them."""
    flags = _flags(options, settings)
    resolved = _resolve(choose_config(config, config_option), flags, resume=resume)
    if dry_run:
        print(resolved.to_yaml(), end="", flush=True)
        check_run(resolved.config)
        return
    check_folder(Path(resolved.config.out), resume=resume)
    _run(resolved, output, changed=flags.keys() if resume else ())


def choose_config(argument: Path | None, option: Path | None) -> Path | None:
    """The configuration of the argument or of --config. Raises UsageError if both are given."""
    if argument is not None and option is not None:
        raise UsageError(f"{argument} and --config {option}: name one configuration")
    return argument if option is None else option


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise UsageError if a training run would begin in the folder of another."""
    begun = (folder / "metrics.jsonl").is_file() or (folder / "checkpoint").exists()
    if begun and not resume:
        raise UsageError(
            f"{folder} holds a run already: --resume continues it, another --out leaves it alone"
        )


def given_settings(options: TrainOptions) -> dict[str, Any]:
    """The settings that the options give, by name."""
    named = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in named.items() if value is not None}


def _flags(options: TrainOptions, settings: list[str]) -> dict[str, Any]:
    flags = given_settings(options)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write NAME=VALUE, such as --set group_size=16")
        flags[name.strip().replace("-", "_")] = parse_value(value)
    return flags


def _resolve(file: Path | None, flags: dict[str, Any], *, resume: bool) -> Resolved:
    from_run = resume and file is None
    if from_run:
        folder = Path(flags.get("out", TrainConfig().out))
        file = folder / "config.yaml"
        if not file.is_file():
            raise UsageError(f"{folder} holds no run to continue: name it with --out")
        flags["out"] = str(folder)
    return read_config(file, flags, trusted=not from_run)  # a run's folder may be anybody's


def _run(resolved: Resolved, output: OutputOptions, *, changed: Collection[str]) -> None:
    config, folder = resolved.config, Path(resolved.config.out)
    if config.plot:
        need_matplotlib()
    with ExitStack() as stack:
        said = None if output.quiet else eprint
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
        eprint(f"{trainer.done} steps; the model is in {folder / 'checkpoint'}")


def _sinks(config: TrainConfig) -> list[Sink]:
    folder = Path(config.out)
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(TensorBoard(folder))
    if config.wandb is not None:
        sinks.append(WeightsAndBiases(folder, config.wandb, config.model_dump(mode="json")))
    return sinks


def _begin(trainer: Trainer) -> str:
    model = trainer.setup.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    after = (
        "resuming is exact: the same bits as without a break"
        if trainer.exact
        else "resuming continues from the same state with new noise"
    )
    return (
        f"{trained:,} weights on {model.device} · {trainer.update_config.objective.name} · {after}"
    )


@contextmanager
def _told_how_to_resume(trainer: Trainer, *, quiet: bool) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        if not quiet:
            out = trainer.folder
            eprint(
                f"stopped after step {trainer.done}; interlace train --resume --out {out} continues"
            )
        raise

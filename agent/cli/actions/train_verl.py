"""`interlace train --engine verl`, and the recipes for it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ....tools.errors import UsageError
from ....train.verl.compose import RECIPES
from ....train.verl.launch import find_recipe, prepare, recipes
from ..commands.train import TrainOptions
from ..exits import eprint, print_json
from ..options import OutputOptions
from .train import check_folder, choose_config, given_settings

__all__ = ["print_recipes", "train_with_verl"]


def train_with_verl(
    config: Path | None,
    config_option: Path | None,
    options: TrainOptions,
    settings: Sequence[str],
    resume: bool,
    dry_run: bool,
    output: OutputOptions,
) -> None:
    """Check a recipe against verl and start its trainer. With `dry_run`: print what the first step
    would do, as comments, and the plain command.

    Raises UsageError, DataError, MissingExtra and ToolUnavailable.
    """
    config = choose_config(config, config_option)
    if config is None:
        raise UsageError("--engine verl needs a recipe: `interlace recipes` lists them")
    flags = given_settings(options)
    folder = flags.pop("databases", None)
    if folder is not None:  # verl's files of tasks name their databases themselves
        named = [name for name in ("tasks", "held_out") if name in flags]
        flags |= {name: f"{flags[name]}:{folder}" for name in named}
    tell = None if output.quiet else eprint
    launch = prepare(find_recipe(str(config)), flags, settings, resume=resume, tell=tell)
    lacking = [str(problem) for problem in launch.plan.lacking]
    if dry_run:
        command = shlex.join(launch.command)
        if output.json:
            plan = {"steps": launch.plan.steps, "plan": list(launch.plan.lines)}
            print_json({**plan, "lacking": lacking, "command": command})
            return
        for line in (*launch.plan.lines, *(f"lacking here: {each}" for each in lacking)):
            print(f"# {line}")
        print(command, flush=True)
        return
    check_folder(launch.out, resume=resume)
    if not output.quiet:
        for line in launch.plan.lines:
            eprint(line)
    step = launch.run()
    if output.json:
        print_json({"out": str(launch.out), "steps": step})
    elif not output.quiet:
        eprint(f"{step} steps; metrics, episodes and checkpoints are in {launch.out}")


def print_recipes(*, folder: bool, json: bool) -> None:
    """List the recipes, or print their folder."""
    if folder:
        print(RECIPES, flush=True)
    elif json:
        print_json({"recipes": recipes()})
    else:
        for name, what in recipes().items():
            print(f"{name:26} {what}", flush=True)

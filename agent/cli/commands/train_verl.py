"""`interlace train --engine verl`, and the recipes for it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..exits import guarded, print_json
from ..options import OutputOptions
from ..resume import check_folder

__all__ = ["recipes", "train_with_verl"]


def train_with_verl(
    config: Path | None,
    flags: dict[str, Any],
    settings: Sequence[str],
    resume: bool,
    dry_run: bool,
    output: OutputOptions,
) -> None:
    """Check a recipe against verl and start its trainer. With `dry_run`: print what the first step
    would do, as comments, and the plain command.

    Raises UsageError, DataError, MissingExtra and ToolUnavailable.
    """
    from ....tools.errors import UsageError
    from ....train.verl.launch import find_recipe, prepare
    from ..exits import tell

    if config is None:
        raise UsageError("--engine verl needs a recipe: `interlace recipes` lists them")
    launch = prepare(find_recipe(str(config)), flags, settings, resume=resume)
    lacking = [str(problem) for problem in launch.plan.lacking]
    if dry_run:
        command = shlex.join(launch.command)
        if output.json:
            told = {"steps": launch.plan.steps, "plan": list(launch.plan.lines)}
            print_json({**told, "lacking": lacking, "command": command})
            return
        for line in (*launch.plan.lines, *(f"lacking here: {each}" for each in lacking)):
            print(f"# {line}")
        print(command, flush=True)
        return
    check_folder(launch.out, resume=resume)
    if not output.quiet:
        for line in launch.plan.lines:
            tell(line)
    step = launch.run()
    if output.json:
        print_json({"out": str(launch.out), "steps": step})
    elif not output.quiet:
        tell(f"{step} steps; metrics, episodes and checkpoints are in {launch.out}")


def recipes(
    folder: Annotated[
        bool, typer.Option("--folder", help="Print their folder, for verl's --config-dir.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """List the recipes for verl: those of the papers, and such as fit a card."""
    with guarded(json=json, debug=debug):
        from ....train.verl.compose import RECIPES
        from ....train.verl.launch import recipes as known

        if folder:
            print(RECIPES, flush=True)
        elif json:
            print_json({"recipes": known()})
        else:
            for name, what in known().items():
                print(f"{name:22} {what}", flush=True)

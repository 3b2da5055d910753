"""`interlace recipes`: the recipes for training with verl."""

from typing import Annotated

import typer

from ..options import ReportOptions, command

__all__ = ["recipes"]


@command
def recipes(
    folder: Annotated[
        bool,
        typer.Option("--folder", help="Print the folder of the recipes (verl's --config-dir)."),
    ] = False,
    *,
    output: ReportOptions,
) -> None:
    """List the recipes for verl: those of the papers, and those for one card."""
    from ..actions.train_verl import print_recipes

    print_recipes(folder=folder, json=output.json)

"""`interlace config`: every setting, and where it comes from."""

from typing import Annotated

import typer

from ..options import LAYERED, ReportOptions, command

__all__ = ["config"]


@command
def config(
    command: Annotated[
        str, typer.Argument(help=f"Command whose settings are shown: {', '.join(LAYERED)}.")
    ] = "chat",
    *,
    output: ReportOptions,
) -> None:
    """Show every setting and where it comes from: a variable, a file, or the default.

    A flag overrides an environment variable (INTERLACE_MODEL, ...), which overrides interlace.toml
    in this folder, which overrides your own config.toml. Settings are named like the flags; a
    section such as [chat] holds for one command.
    """
    from ..settings import print_settings

    print_settings(command, json=output.json)

"""`interlace models`: the models of a server, or of this machine."""

from typing import Annotated

import typer

from ..options import OutputOptions, command

__all__ = ["models"]


@command
def models(
    server: Annotated[
        str | None,
        typer.Argument(
            metavar="ADDRESS",
            help="Server, such as http://host:8000/v1. With #name, or if it serves one model, its "
            "abilities are probed. Default: the models of this machine.",
        ),
    ] = None,
    *,
    output: OutputOptions,
) -> None:
    """List the models that --model can name: those of a server, or those of this machine."""
    from ..actions.models import list_models

    list_models(server, json=output.json)

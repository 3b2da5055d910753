"""`interlace init`: a folder to start from."""

from pathlib import Path
from typing import Annotated

import typer

from ..options import ReportOptions, command

__all__ = ["init"]


@command
def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder; made if it is missing. No file is overwritten.")
    ] = Path("."),
    *,
    output: ReportOptions,
) -> None:
    """Write an agent, tasks and approval rules to start from."""
    from ..actions.init import write_starter_files

    write_starter_files(folder, json=output.json)

"""`interlace tools`: the kinds of tools, and what a model is told of one."""

from typing import Annotated

import typer

from ..options import ReportOptions, command

__all__ = ["tools"]


@command
def tools(
    tool: Annotated[
        list[str] | None,
        typer.Argument(help="Tools as in --tool, such as sql:shop.db. Default: list all kinds."),
    ] = None,
    *,
    output: ReportOptions,
) -> None:
    """List the kinds of tools; for the tools that are named, print what a model is told."""
    from ..actions.tools import print_kinds, print_tools

    if tool:
        print_tools(tool, json=output.json)
    else:
        print_kinds(json=output.json)

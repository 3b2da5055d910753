"""`interlace show`: the episodes of a log, each token coloured by who wrote it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ..options import ReportOptions, command

__all__ = ["EpisodeSelection", "show"]


@dataclass(frozen=True, kw_only=True)
class EpisodeSelection:
    """The episodes to show."""

    panel: ClassVar = "Selection"
    episode: Annotated[str | None, typer.Option(help="Show only the episode of this id.")] = None
    index: Annotated[
        int | None, typer.Option(help="Show only the episode at this place: 0 first, -1 last.")
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most this many.")] = None


@command
def show(
    file: Annotated[Path, typer.Argument(help="Log that rollout, eval or chat wrote.")],
    selection: EpisodeSelection,
    ids: Annotated[
        bool, typer.Option("--ids", help="List each token with id, log-probability and weight.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print one line per group.")] = False,
    m500: Annotated[
        Path | None,
        typer.Option(help="Write a team's episodes to this file, in the layout of M500."),
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizer, if it is not found.")
    ] = None,
    *,
    output: ReportOptions,
) -> None:
    """Print the episodes of a log: the author of each token, what is trained, rewards, timings."""
    from ..actions.show import show

    show(file, selection, ids, stats, m500, tokenizer, output)

"""`interlace conversations`: list, show, search, export and delete what chats kept."""

from pathlib import Path
from typing import Annotated

import typer

from ..options import CliCommand, ReportOptions, command

__all__ = ["conversations"]

conversations = typer.Typer(
    help="List the conversations that were kept; show, search, export or delete them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

Id = Annotated[
    str | None,
    typer.Argument(help="Id or its beginning. Default: the latest.", show_default=False),
]


@conversations.callback()
@command
def _list(context: typer.Context, output: ReportOptions) -> None:
    from ..actions.conversations import list_conversations

    if context.invoked_subcommand is None:
        list_conversations(json=output.json)


@conversations.command(cls=CliCommand, epilog="Example: interlace conversations show 4f2a")
@command
def show(id: Id = None, *, output: ReportOptions) -> None:
    """Print one conversation: questions, calls with their output, and answers."""
    from ..actions.conversations import show_conversation

    show_conversation(id, json=output.json)


@conversations.command(cls=CliCommand, epilog="Example: interlace conversations search bolts")
@command
def search(
    words: Annotated[list[str], typer.Argument(help="Words that a question or answer holds.")],
    output: ReportOptions,
) -> None:
    """Find questions and answers that hold all of these words."""
    from ..actions.conversations import search_conversations

    search_conversations(words, json=output.json)


@conversations.command(
    cls=CliCommand, epilog="Example: interlace conversations export 4f2a --out talk.md"
)
@command
def export(
    id: Id = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="File: .md, .json, or .jsonl for `interlace show`."),
    ] = Path("conversation.md"),
    *,
    output: ReportOptions,
) -> None:
    """Write one conversation to a file: as Markdown, as JSON, or token by token as a log."""
    from ..actions.conversations import export_conversation

    export_conversation(id, out, json=output.json)


@conversations.command(cls=CliCommand, epilog="Example: interlace conversations delete 4f2a 9c01")
@command
def delete(
    ids: Annotated[list[str], typer.Argument(help="Ids or their beginnings.")],
    output: ReportOptions,
) -> None:
    """Delete one or more conversations for good."""
    from ..actions.conversations import delete_conversations

    delete_conversations(ids, json=output.json)

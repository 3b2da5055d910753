"""`interlace doctor`: the sandbox of this machine, a tokenizer with a format, or a training run."""

from pathlib import Path
from typing import Annotated

import typer

from ..options import ReportOptions, command

__all__ = ["doctor"]


@command
def doctor(
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Examine a Hugging Face tokenizer or model folder instead."),
    ] = None,
    format: Annotated[str, typer.Option(help="Format to examine the tokenizer with.")] = "retool",
    train: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="Examine a training run instead: a file or a recipe."),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="With --train: memory of the card, such as 24GB.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="With --train: write the findings to this file.")
    ] = None,
    tried: Annotated[
        bool | None,
        typer.Option(
            "--try/--no-try",
            help="With --train: also run a small part of it. Default: if a card is found.",
            show_default=False,
        ),
    ] = None,
    *,
    output: ReportOptions,
) -> int:
    """Test the walls around the model's Python code, one by one and together; exit code 7 if there
    are none.

    With --tokenizer: how it splits a format's tags, and which tokens would be trained. With
    --train: whether a run fits a card, and whether everything it needs is there.
    """
    if train is not None:
        from ..actions.doctor_train import examine_training

        return examine_training(train, gpu, report, tried=tried, json=output.json)
    if tokenizer is not None:
        from ..actions.doctor import examine_tokenizer

        return examine_tokenizer(tokenizer, format, json=output.json)
    from ..actions.doctor_sandbox import examine_sandbox

    return examine_sandbox(json=output.json)

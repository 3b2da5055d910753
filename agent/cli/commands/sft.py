"""`interlace sft`: supervised fine-tuning on logs of episodes."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from ..options import OutputOptions, command

__all__ = ["Precision", "SftOptions", "sft"]


class Precision(StrEnum):
    """The dtype of the computation."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class SftOptions:
    """The model to train, how, and the output folder."""

    panel: ClassVar = "Training"
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the run; its checkpoint/ is the model."),
    ]
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Model: nano, smollm2, a folder, a Hugging Face id."),
    ] = "nano"
    epochs: Annotated[float, typer.Option(min=0.01, help="Passes over the data.")] = 2.0
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, instead of --epochs.")
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Ledgers per step.")] = 16
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of AdamW. Default: 2e-5; with adapters 2e-4.", show_default=False
        ),
    ] = None
    lora_rank: Annotated[
        int, typer.Option(min=0, help="Rank of LoRA adapters; 0 trains all weights.")
    ] = 0
    lora_alpha: Annotated[
        float, typer.Option(min=0.001, help="Scale of the adapters times their rank (LoRA alpha).")
    ] = 32.0
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Fraction of tasks held out for validation loss.")
    ] = 0.05
    max_length: Annotated[
        int,
        typer.Option(min=2, help="Skip ledgers longer than this, or than the model's context."),
    ] = 2048
    micro_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that go through the model at once.")
    ] = 8192
    precision: Annotated[Precision, typer.Option(help="Compute dtype.")] = Precision.FLOAT32
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Save memory for a third more time."),
    ] = False
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the order of the data and of new adapters.")
    ] = 0
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between validation losses.")] = (
        50
    )
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 50
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out from its checkpoint.")
    ] = False


@command
def sft(
    context: typer.Context,
    logs: Annotated[list[Path], typer.Argument(metavar="LOG", help="Logs of episodes (JSONL).")],
    job: SftOptions,
    output: OutputOptions,
) -> None:
    """Fine-tune a model on logs of episodes, such as those of `interlace coldstart`.

    Only the model's own tokens carry loss, weighted as the log says; tool output and failed
    attempts are context. The model learns from every episode of the logs, so filter them first.
    """
    from ..actions.sft import run

    given = {
        name
        for name in map(str, context.params)
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    run(logs, job, output, given)

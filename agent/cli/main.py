"""The command line: `interlace`. The work of a command is loaded when it runs, not before."""

import logging
import sys
from collections.abc import Callable
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from .commands.chat import chat
from .commands.coldstart import coldstart
from .commands.config import config
from .commands.conversations import conversations
from .commands.doctor import doctor
from .commands.eval import evaluate
from .commands.init import init
from .commands.models import models
from .commands.recipes import recipes
from .commands.rollout import rollout
from .commands.run import run
from .commands.sft import sft
from .commands.show import show
from .commands.tools import tools
from .commands.train import train
from .exits import EXIT_CODES, catch_sigterm, exit_codes, open_streams
from .options import LAYERED, CliCommand, folder_file, own_file

__all__ = ["app", "main"]


def _epilog(*examples: str, more: str = "") -> str:
    r"""Examples, line by line (`\b` keeps the lines apart)."""
    title = "Example:" if len(examples) == 1 else "Examples:"
    text = "\b\n" + "\n".join([title, *(f"  {example}" for example in examples)])
    return f"{text}\n\n\b\n{more}" if more else text


app = typer.Typer(
    name="interlace",
    help="A model that thinks, and runs Python in the middle of its thought.",
    epilog=_epilog(
        'interlace run "A crate holds 4387 bolts. How many bolts are in 296 crates?"',
        "interlace chat --model smollm2",
        "interlace rollout tasks.jsonl --n 8 --out t.jsonl && interlace show t.jsonl",
        more=EXIT_CODES,
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _add(
    function: Callable[..., None], *examples: str, name: str | None = None, short: str | None = None
) -> None:
    """Add a command, with examples at the end of its help and a line of its own in the list."""
    app.command(name, cls=CliCommand, short_help=short, epilog=_epilog(*examples))(function)


_add(
    run,
    'interlace run "How many bolts are in 296 crates of 4387?" --json',
    'interlace run --team --model Qwen/Qwen3-8B "How many primes are below 1000?"',
    short="Answer one question.",
)
_add(
    chat,
    "interlace chat --model Qwen/Qwen3-0.6B",
    "interlace chat --tool sql:shop.db --approve ask --budget tokens=20000,calls=50",
    "interlace chat --resume",
    "interlace chat --team --model Qwen/Qwen3-8B",
    short="Talk to a model.",
)
app.add_typer(
    conversations,
    name="conversations",
    epilog=_epilog("interlace conversations show 4f2a", "interlace chat --resume 4f2a"),
)
_add(
    tools,
    "interlace tools sql:shop.db search:docs/",
    short="List the kinds of tools, or describe some.",
)
_add(init, "interlace init my-agent")
_add(
    config,
    "interlace config",
    "interlace config rollout --json",
    short="Show every setting and where it comes from.",
)
_add(
    rollout,
    r"printf 'question one\nquestion two\n' | interlace rollout - --n 8 --out t.jsonl",
    "interlace rollout tasks.jsonl --team --experts 3 --out team.jsonl",
    short="Log many attempts, token by token.",
)
_add(
    evaluate,
    "interlace eval arithmetic:test:200 --n 4 --out runs/nano",
    "interlace eval gsm8k_test.jsonl --checker math --model ./my-model --pair",
    "interlace eval arithmetic:test:100 --compare single,vote@k,team",
    "interlace eval --compare runs/before runs/after --plots both.png",
    name="eval",
    short="Measure a model on tasks with answers.",
)
_add(
    coldstart,
    "interlace coldstart arithmetic:train:500 --n 4 --out runs/own",
    "interlace coldstart gsm8k:train.jsonl --from gsm8k --model smollm2 --out runs/gsm8k",
    "interlace coldstart tasks.jsonl --from rewrite --writer Qwen/Qwen3-8B --out runs/written",
    "interlace coldstart m500.jsonl --from m500 --model Qwen/Qwen3-0.6B --out runs/m500",
    short="Build demonstrations to fine-tune on.",
)
_add(
    sft,
    "interlace sft runs/gsm8k/traces.jsonl --model smollm2 --out runs/sft",
    "interlace sft a.jsonl b.jsonl --model Qwen/Qwen3-0.6B --lora-rank 16 --out runs/adapters",
    "interlace eval gsm8k:test.jsonl --model runs/sft/checkpoint --pair",
    short="Fine-tune a model on logs of episodes.",
)
_add(
    show,
    "interlace show t.jsonl --episode 5f2c9a01d3e4b6a7/0 --ids",
    "interlace show team.jsonl --m500 ours.jsonl",
    short="Print the episodes of a log: who wrote which token.",
)
_add(
    train,
    "interlace train --model nano --tasks arithmetic --steps 50 --out runs/first",
    "interlace train examples/train_nano.yaml --dry-run",
    "interlace train --engine verl --config retool_7b --dry-run",
    short="Train a model by reinforcement learning.",
)
_add(
    recipes,
    "interlace recipes",
    "interlace recipes --folder",
    short="List the recipes for training with verl.",
)
_add(
    models,
    "interlace models",
    "interlace models http://localhost:8000/v1",
    short="List the models that --model can name.",
)
_add(
    doctor,
    "interlace doctor",
    "interlace doctor --tokenizer ./my-model --format hermes",
    "interlace doctor --train examples/presets/qwen3_0.6b_24gb.yaml --gpu 24GB",
    short="Test this machine's sandbox, and whether a run fits.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"interlace {installed_version('interlace')}")
        raise typer.Exit


@app.callback()
def _interlace(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A model that thinks, and runs Python in the middle of its thought."""
    if (command := context.invoked_subcommand) is not None:
        if command in LAYERED and (own_file().is_file() or folder_file().is_file()):
            from .settings import defaults  # here: `--help` without such files needs none of it

            with exit_codes():
                context.default_map = {command: defaults(command)}
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print(context.get_help())
        raise typer.Exit
    from .actions.welcome import welcome

    raise typer.Exit(welcome())


def main() -> None:
    """Run the command line and exit; `exit_codes` inside a command reports its errors."""
    catch_sigterm()
    # The screen shows the traceback of a person's own function, at its place.
    logging.getLogger("interlace.tools").addHandler(logging.NullHandler())
    open_streams()
    try:
        with exit_codes():
            app(prog_name="interlace")
    except typer.Exit as end:
        sys.exit(end.exit_code)

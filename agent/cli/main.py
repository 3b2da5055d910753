"""The command line: `interlace`. What a command needs is loaded when it is run, not before."""

import sys
from typing import Annotated

import typer

from .commands.chat import chat
from .commands.coldstart import coldstart
from .commands.conversations import conversations
from .commands.doctor import doctor
from .commands.eval import evaluate
from .commands.init import init
from .commands.models import models
from .commands.rollout import rollout
from .commands.run import run
from .commands.sft import sft
from .commands.show import show
from .commands.tools import tools
from .commands.train import train
from .commands.train_verl import recipes
from .exits import EXIT_CODES, Exit, Terminated, catch_sigterm, guarded
from .settings import COMMANDS, config, defaults

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

app.command(
    epilog=_epilog(
        'interlace run "How many bolts are in 296 crates of 4387?" --json',
        'interlace run --team --model Qwen/Qwen3-8B "How many primes are below 1000?"',
    )
)(run)
app.command(
    epilog=_epilog(
        "interlace chat --model Qwen/Qwen3-0.6B",
        "interlace chat --tool sql:shop.db --approve ask --budget tokens=20000,calls=50",
        "interlace chat --resume",
        "interlace chat --team --model Qwen/Qwen3-8B",
    )
)(chat)
app.add_typer(
    conversations,
    name="conversations",
    epilog=_epilog("interlace conversations show 4f2a", "interlace chat --resume 4f2a"),
)
app.command(
    short_help="List the kinds of tools, or tell of some.",
    epilog=_epilog("interlace tools sql:shop.db search:docs/"),
)(tools)
app.command(epilog=_epilog("interlace init my-agent"))(init)
app.command(
    short_help="Show every setting and where it comes from.",
    epilog=_epilog("interlace config", "interlace config rollout --json"),
)(config)
app.command(
    short_help="Log many attempts, token by token.",
    epilog=_epilog(
        r"printf 'question one\nquestion two\n' | interlace rollout - --n 8 --out t.jsonl",
        "interlace rollout tasks.jsonl --team --experts 3 --out team.jsonl",
    ),
)(rollout)
app.command(
    "eval",
    short_help="Measure a model on tasks with answers.",
    epilog=_epilog(
        "interlace eval arithmetic:test:200 --n 4 --out runs/nano",
        "interlace eval gsm8k_test.jsonl --checker math --model ./my-model --pair",
        "interlace eval arithmetic:test:100 --compare single,vote@k,team",
        "interlace eval --compare runs/before runs/after --plots both.png",
    ),
)(evaluate)
app.command(
    short_help="Make demonstrations to fine-tune on.",
    epilog=_epilog(
        "interlace coldstart arithmetic:train:500 --n 4 --out runs/own",
        "interlace coldstart gsm8k:train.jsonl --from gsm8k --model smollm2 --out runs/gsm8k",
        "interlace coldstart tasks.jsonl --from rewrite --writer Qwen/Qwen3-8B --out runs/written",
        "interlace coldstart m500.jsonl --from m500 --model Qwen/Qwen3-0.6B --out runs/m500",
    ),
)(coldstart)
app.command(
    short_help="Fine-tune a model on logs of episodes.",
    epilog=_epilog(
        "interlace sft runs/gsm8k/traces.jsonl --model smollm2 --out runs/sft",
        "interlace sft a.jsonl b.jsonl --model Qwen/Qwen3-0.6B --lora-rank 16 --out runs/adapters",
        "interlace eval gsm8k:test.jsonl --model runs/sft/checkpoint --pair",
    ),
)(sft)
app.command(
    short_help="Print the episodes of a log: who wrote which token.",
    epilog=_epilog(
        "interlace show t.jsonl --episode 1-5f2c9a01/0 --ids",
        "interlace show team.jsonl --m500 ours.jsonl",
    ),
)(show)
app.command(
    short_help="Train a model by reinforcement learning.",
    epilog=_epilog(
        "interlace train --model nano --tasks arithmetic --steps 50 --out runs/first",
        "interlace train examples/train_nano.yaml --dry-run",
        "interlace train --engine verl --config retool_7b --dry-run",
    ),
)(train)
app.command(
    short_help="List the recipes for training with verl.",
    epilog=_epilog("interlace recipes", "interlace recipes --folder"),
)(recipes)
app.command(
    short_help="List the models that --model can name.",
    epilog=_epilog("interlace models", "interlace models http://localhost:8000/v1"),
)(models)
app.command(
    short_help="Try what this machine allows, and whether a run fits.",
    epilog=_epilog(
        "interlace doctor",
        "interlace doctor --tokenizer ./my-model --format hermes",
        "interlace doctor --train qwen3_0.6b_24gb --gpu 24GB",
    ),
)(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"interlace {version('interlace')}")
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
    if context.invoked_subcommand is not None:
        if context.invoked_subcommand in COMMANDS:
            with guarded():
                context.default_map = {
                    context.invoked_subcommand: defaults(context.invoked_subcommand)
                }
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print(context.get_help())
        raise typer.Exit
    from .commands.welcome import welcome

    raise typer.Exit(welcome())


def main() -> None:
    """Run the command line and exit; what a command raises is told by `guarded` inside it."""
    catch_sigterm()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character shows its number; it never ends a run.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="interlace")
    except Terminated:
        sys.exit(Exit.TERMINATED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)

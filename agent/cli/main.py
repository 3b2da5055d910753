"""The command line: `interlace`. What a command needs is loaded when it is run, not before."""

import sys
from typing import Annotated

import typer

from .chat import chat
from .doctor import doctor
from .ending import EXIT_CODES, Exit, Terminated, catch_sigterm
from .rollout import rollout
from .run import run
from .show import show

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
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command(epilog=_epilog('interlace run "How many bolts are in 296 crates of 4387?" --json'))(run)
app.command(epilog=_epilog("interlace chat --model Qwen/Qwen3-0.6B"))(chat)
app.command(
    epilog=_epilog(
        r"printf 'question one\nquestion two\n' | interlace rollout - --n 8 --out t.jsonl"
    )
)(rollout)
app.command(epilog=_epilog("interlace show t.jsonl --episode 1-5f2c9a01/0 --ids"))(show)
app.command(epilog=_epilog("interlace doctor --tokenizer ./my-model --format hermes"))(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"interlace {version('interlace')}")
        raise typer.Exit


@app.callback()
def _interlace(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A model that thinks, and runs Python in the middle of its thought."""


def main() -> None:
    """Run the command line and exit; what a command raises is told by `guarded` inside it."""
    catch_sigterm()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character shows its number; it never ends a run.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except Terminated:
        sys.exit(Exit.TERMINATED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)

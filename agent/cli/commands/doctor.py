"""`interlace doctor`: which walls the Python sandbox has here, or how a tokenizer and a format
get on with each other.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..exits import Exit, guarded, print_json

if TYPE_CHECKING:
    from rich.text import Text

    from ....rollout.formats import Encoder, Format
    from ....rollout.tokenizer import Tokenizer

__all__ = ["Report", "doctor", "report"]

STYLES = {"prompt": "dim", "policy": "green", "tool": "yellow", "host": "magenta"}


@dataclass(frozen=True, slots=True)
class Report:
    """The findings on one tokenizer with one format. Texts of tokens, not ids."""

    tokenizer: str
    format: str
    vocabulary: int
    eos: dict[str, int]
    template: dict[str, bool]
    """Whether there is a chat template, and what it does."""
    tags: dict[str, list[str]]
    """The tokens of each tag of the format."""
    stops: dict[str, list[str]]
    """The tokens of each stop string with a line break behind it."""
    sample: list[dict[str, Any]] = field(default_factory=list)
    """The spans of a made-up trajectory: source, tokens, whether they are trained, their text."""
    warnings: list[str] = field(default_factory=list)


def report(path: str | Path, format: str = "retool") -> Report:
    """Look at a tokenizer's folder. Raises TokenizerError and UsageError as a run would."""
    from ....rollout.formats import Encoder, find_format
    from ....rollout.formats.sample import sample_tools
    from ....rollout.tokenizer import Tokenizer

    chosen = find_format(format)
    tokenizer = Tokenizer.load(path)
    encoder = Encoder(chosen, tokenizer, sample_tools(chosen))
    found = Report(
        tokenizer=str(path),
        format=format,
        vocabulary=len(tokenizer),
        eos={tokenizer.token(id): id for id in sorted(tokenizer.eos_ids)},
        template={
            "present": not encoder.template.plain,
            "takes a system message": encoder.takes_system,
            "tells the model of tools": encoder.tells_tools,
            "strips earlier thinking": encoder.strips_thinking,
            "a later question goes on": encoder.continues,
        },
        tags={tag: _tokens(tokenizer, tag) for tag in chosen.control_tags},
        stops={stop: _tokens(tokenizer, f"{stop}\n") for stop in chosen.stop},
        sample=_sample(encoder, format),
    )
    found.warnings.extend(_traps(found, chosen, encoder))
    return found


def _tokens(tokenizer: "Tokenizer", text: str) -> list[str]:
    return tokenizer.pieces(tokenizer.encode_continuation(text))


def _sample(encoder: "Encoder", format: str) -> list[dict[str, Any]]:
    from ....rollout.formats.sample import sample_ledger, sample_tools, spelled

    ledger = sample_ledger(encoder, sample_tools(encoder.format), notice="1 tool call left")
    return [
        {
            "source": span.source.value,
            "tokens": len(span),
            "trained": span.weight > 0,
            "text": spelled(encoder.tokenizer, span),
        }
        for span in ledger
    ]


def _traps(found: Report, format: "Format", encoder: "Encoder") -> list[str]:
    """List what may surprise, one sentence each."""
    traps = []
    tokenizer = encoder.tokenizer
    if tokenizer.turn_end is not None and tokenizer.turn_end not in tokenizer.named_eos_ids:
        named = ", ".join(map(tokenizer.token, sorted(tokenizer.named_eos_ids))) or "nothing"
        traps.append(
            f"the template ends a turn with {tokenizer.token(tokenizer.turn_end)}, the model's "
            f"files with {named}: here both end it, other programs may run on"
        )
    if not found.eos:
        traps.append("no end-of-sequence token is named: the model can't end its turn")
    if encoder.template.plain:
        traps.append("no chat template: a plain layout (User: ... Assistant: ...) is used")
    elif not encoder.takes_system:
        traps.append("the template takes no system message: it goes in front of the question")
    if not format.inline and not encoder.tells_tools:
        traps.append("the template does not tell the model of tools: our system prompt does")
    if encoder.strips_thinking:
        traps.append("the template strips earlier thinking: a later question starts a new ledger")
    elif not encoder.continues:
        traps.append("the template rewrites earlier messages: a later question starts a new ledger")
    one = [tag for tag, tokens in found.tags.items() if len(tokens) == 1]
    if one:
        traps.append(
            f"one token each: {' '.join(one)}; the model writes them as that token, and "
            "in tool output they are broken up"
        )
    for stop, tokens in found.stops.items():
        crossing = _crossing(tokens, len(stop))
        if crossing is not None:
            traps.append(
                f"the stop {stop!r} can end inside the token {crossing!r}: what follows the stop "
                "in it stays in the ledger as it was sampled"
            )
    return traps


def _crossing(tokens: list[str], length: int) -> str | None:
    """The token in which the character at `length - 1` and the next one both stand."""
    end = 0
    for token in tokens:
        start, end = end, end + len(token)
        if start < length < end:
            return token
    return None


def render(found: Report) -> "Text":
    """The report for people; without colours it says the same."""
    from rich.text import Text

    from ..render.terminal import printable

    text = Text()

    def line(left: str, right: str = "", style: str = "") -> None:
        text.append(f"{left:<29}")
        text.append(printable(right) + "\n", style)

    line("tokenizer", f"{found.tokenizer} ({found.vocabulary} ids)")
    line("format", found.format)
    line("ends a turn", ", ".join(f"{name} ({id})" for name, id in found.eos.items()) or "-")
    text.append("\nChat template\n", "bold")
    for what, holds in found.template.items():
        line(f"  {what}", "yes" if holds else "no")
    for title, table in (("Tags", found.tags), ("Stops, a line break behind", found.stops)):
        if table:
            text.append(f"\n{title}\n", "bold")
        for tag, tokens in table.items():
            shown = " | ".join(token.replace("\n", "\\n") for token in tokens)
            line("  " + tag.replace("\n", "\\n"), shown)
    text.append("\nA made-up trajectory, token by token ('*': trained)\n", "bold")
    for span in found.sample:
        mark = "*" if span["trained"] else " "
        for row in span["text"]:
            text.append(f"{span['source']:<6} {mark} {printable(row)}\n", STYLES[span["source"]])
    trained = sum(span["tokens"] for span in found.sample if span["trained"])
    text.append(f"\n{trained} of {sum(s['tokens'] for s in found.sample)} tokens are trained\n")
    for warning in found.warnings:
        text.append(f"note: {printable(warning)}\n", "bold yellow")
    return text


def doctor(
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="The folder of a Hugging Face tokenizer or model: look at that instead."),
    ] = None,
    format: Annotated[str, typer.Option(help="The format to look at.")] = "retool",
    train: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="A training run's file, or a recipe: look at that."),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="With --train: a card's memory, such as 24GB.")
    ] = None,
    report_to: Annotated[
        Path | None, typer.Option("--report", help="With --train: write what was found there.")
    ] = None,
    tried: Annotated[
        bool | None,
        typer.Option(
            "--try/--no-try",
            help="With --train: run a little of it too. By default where a card is found.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Try the walls around the model's Python code, each and together; 7 where none can be had.

    With --tokenizer: how it cuts a format's tags, and which tokens would be trained. With --train:
    whether a run fits a card, and whether all that it needs is there.
    """
    with guarded(json=json, debug=debug):
        import sys

        if train is not None:
            from .doctor_train import preflight

            raise typer.Exit(preflight(train, gpu, report_to, tried=tried, json=json))

        from ..render.terminal import make_console

        if tokenizer is None:
            from .doctor_sandbox import python_sandbox, render_sandbox

            sandbox = python_sandbox()
            if json:
                print_json({"python": asdict(sandbox)})
            else:
                make_console(sys.stdout).print(render_sandbox(sandbox), soft_wrap=True, end="")
            raise typer.Exit(Exit.DONE if sandbox.tier else Exit.UNAVAILABLE)
        found = report(tokenizer, format)
        if json:
            print_json(asdict(found))
        else:
            make_console(sys.stdout).print(render(found), soft_wrap=True, end="")

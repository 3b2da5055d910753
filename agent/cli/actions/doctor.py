"""`interlace doctor --tokenizer`: how a tokenizer and a format fit together."""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from ....rollout.formats import Encoder, Format, find_format
from ....rollout.formats.sample import sample_ledger, sample_tools, spelled
from ....rollout.tokenizer import Tokenizer
from ..exits import Exit, print_json
from ..render.terminal import make_console, printable

__all__ = ["TokenizerReport", "examine_tokenizer", "report"]

STYLES = {"prompt": "dim", "policy": "green", "tool": "yellow", "host": "magenta"}


@dataclass(frozen=True, slots=True)
class TokenizerReport:
    """The findings on one tokenizer with one format. Texts of tokens, not ids."""

    tokenizer: str
    format: str
    vocabulary: int
    eos: dict[str, int]
    template: dict[str, bool]
    """The chat template: if there is one, and its abilities."""
    tags: dict[str, list[str]]
    """The tokens of each tag of the format."""
    stops: dict[str, list[str]]
    """The tokens of each stop string with a line break after it."""
    sample: list[dict[str, Any]] = field(default_factory=list)
    """The spans of a made-up trajectory: source, tokens, whether they are trained, their text."""
    warnings: list[str] = field(default_factory=list)


def report(path: str | Path, format: str = "retool") -> TokenizerReport:
    """Look at a tokenizer's folder. Raises TokenizerError and UsageError as a run would."""
    chosen = find_format(format)
    tokenizer = Tokenizer.load(path)
    encoder = Encoder(chosen, tokenizer, sample_tools(chosen))
    found = TokenizerReport(
        tokenizer=str(path),
        format=format,
        vocabulary=len(tokenizer),
        eos={tokenizer.token(id): id for id in sorted(tokenizer.eos_ids)},
        template={
            "present": not encoder.template.plain,
            "takes a system message": encoder.takes_system,
            "tells the model of tools": encoder.tells_tools,
            "strips earlier thinking": encoder.strips_thinking,
            "a later question continues the ledger": encoder.continues,
        },
        tags={tag: _tokens(tokenizer, tag) for tag in chosen.control_tags},
        stops={stop: _tokens(tokenizer, f"{stop}\n") for stop in chosen.stop},
        sample=_sample(encoder, format),
    )
    found.warnings.extend(_traps(found, chosen, encoder))
    return found


def _tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.pieces(tokenizer.encode_continuation(text))


def _sample(encoder: Encoder, format: str) -> list[dict[str, Any]]:
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


def _traps(found: TokenizerReport, format: Format, encoder: Encoder) -> list[str]:
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


def render(found: TokenizerReport) -> Text:
    """The report for people; without colours it says the same."""
    text = Text()

    def line(left: str, right: str = "", style: str = "") -> None:
        text.append(f"{left:<28} ")
        text.append(printable(right) + "\n", style)

    line("tokenizer", f"{found.tokenizer} ({found.vocabulary} ids)")
    line("format", found.format)
    line("ends a turn", ", ".join(f"{name} ({id})" for name, id in found.eos.items()) or "-")
    text.append("\nChat template\n", "bold")
    for what, holds in found.template.items():
        line(f"  {what}", "yes" if holds else "no")
    for title, table in (("Tags", found.tags), ("Stops, a line break after", found.stops)):
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


def examine_tokenizer(tokenizer: Path, format: str, *, json: bool) -> int:
    """Print the report on a tokenizer's folder. Raises TokenizerError and UsageError."""
    found = report(tokenizer, format)
    if json:
        print_json(asdict(found))
    else:
        make_console(sys.stdout).print(render(found), soft_wrap=True, end="")
    return Exit.DONE

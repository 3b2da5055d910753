"""Ledgers as HTML, for notebooks: each span in the colour of its source."""

from html import escape

from .ledger import Ledger, Source
from .tokenizer import Tokenizer

__all__ = ["ledger_html"]

_COLOURS = {
    Source.PROMPT: "128, 128, 128",
    Source.POLICY: "46, 134, 222",
    Source.TOOL: "39, 174, 96",
    Source.HOST: "230, 126, 34",
}
_LONGEST = 4_000
"""Characters of a span that are shown: its head and its tail."""


def ledger_html(ledger: Ledger, tokenizer: Tokenizer | None = None) -> str:
    """The spans one after the other, as text, or as ids without a tokenizer, and a legend."""
    shown = (
        (s.source, " ".join(map(str, s.ids)) if tokenizer is None else tokenizer.decode(s.ids))
        for s in ledger
    )
    body = "".join(_coloured(source, _cut(text)) for source, text in shown)
    legend = " ".join(_coloured(source, source.value) for source in _COLOURS)
    return (
        f'<div style="font-family: monospace; white-space: pre-wrap">{body}</div>'
        f'<div style="font-size: smaller">{legend} · {len(ledger)} tokens</div>'
    )


def _coloured(source: Source, text: str) -> str:
    style = f"background: rgba({_COLOURS[source]}, 0.2)"
    return f'<span title="{source.value}" style="{style}">{escape(text)}</span>'


def _cut(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"

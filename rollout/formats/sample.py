"""The sample of a format as a ledger: for reports, tests and documentation."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, create_model

from ...tools import Tool, ToolSession
from ...tools.errors import ToolUnavailable, UsageError
from ..ledger import Ledger, Span
from ..tokenizer import Tokenizer
from ..trajectory import CallRecord, FinishReason
from .base import Format, Sample
from .encoder import Encoder

__all__ = ["sample_ledger", "sample_of", "sample_tools", "spelled"]


@dataclass(frozen=True, slots=True)
class _Described:
    """A tool that is described, and never run."""

    name: str
    description: str
    arguments: type[BaseModel]

    def session(self) -> AbstractAsyncContextManager[ToolSession]:
        """Raise ToolUnavailable: the outputs of a sample are written down."""
        raise ToolUnavailable(f"{self.name!r} stands in a sample and can't be run")


def sample_of(format: Format) -> Sample:
    """The sample of a format. Raises UsageError for a format without one."""
    if format.sample is None:
        raise UsageError(f"the format {format.name} has no sample to show: give it one")
    return format.sample


def sample_tools(format: Format) -> tuple[Tool, ...]:
    """The tools that the sample of a format calls, as descriptions. Raises as `sample_of`."""
    return (_described(*sample_of(format).tool),)


@cache
def _described(name: str, argument: str, description: str) -> Tool:
    arguments = create_model("Arguments", **{argument: (str, ...)})  # type: ignore[call-overload]
    return _Described(name, description, arguments)


def sample_ledger(encoder: Encoder, tools: Sequence[Tool], notice: str = "") -> Ledger:
    """The sample as a ledger: what the policy says is encoded as if it had been sampled."""
    format, tokenizer = encoder.format, encoder.tokenizer
    sample = sample_of(format)
    ledger = Ledger(encoder.prompt(sample.question))
    for number, said in enumerate(sample.said):
        last = number == len(sample.outputs)
        end = encoder.turn_end(calls=not last)
        ended = bool(end) and (last or not format.inline)
        ids = tokenizer.encode_continuation(said) + (end if ended else [])
        ledger.append(Span.policy(ids))
        if not last:
            calls = _calls(format, said, sample.outputs[number], tools)
            for span in encoder.results(calls, ended=ended, notice=notice):
                ledger.append(span)
    return ledger


def _calls(format: Format, said: str, output: str, tools: Sequence[Tool]) -> list[CallRecord]:
    finish = FinishReason.STOP if format.stop else FinishReason.EOS
    calls = format.parse(said, finish, tools).calls
    return [
        CallRecord(call.tool, call.arguments, output, details={"id": call.id} if call.id else {})
        for call in calls
    ]


def spelled(tokenizer: Tokenizer, span: Span) -> list[str]:
    r"""The tokens of a span as lines of text: `|` between tokens, `\n` for a line break in one.

    A bar inside a token is written `\|`, bytes that are no character yet as `<0xE2>`-like names of
    the vocabulary.
    """
    lines = [""]
    for id, piece in zip(span.ids.tolist(), tokenizer.pieces(span.ids), strict=True):
        text = piece or tokenizer.token(id)
        text = text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "\\n")
        lines[-1] += ("|" if lines[-1] else "") + text
        if "\n" in piece:
            lines.append("")
    return [line for line in lines if line]

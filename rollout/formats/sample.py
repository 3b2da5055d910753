"""A short made-up trajectory in each format: for reports, tests and documentation, not a result."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, create_model

from ...tools import Tool, ToolSession
from ...tools.errors import ToolUnavailable
from ..ledger import Ledger, Span
from ..tokenizer import Tokenizer
from ..trajectory import CallRecord, Finish
from .base import Format
from .encoder import Encoder

__all__ = ["SAMPLES", "Sample", "sample_ledger", "sample_tools", "spelled"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A question, what the policy says turn by turn, and what comes back between its turns."""

    question: str
    said: tuple[str, ...]
    outputs: tuple[str, ...]


_BOLTS = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
_SINGERS = "Table singer(name, age). How many singers are older than 30?"
_TOWER = "In which country is the city with the tallest tower?"

SAMPLES: dict[str, Sample] = {
    "retool": Sample(
        _BOLTS,
        (
            "I multiply.\n<code>\n```python\nprint(4387 * 296)\n```\n</code>",
            "So there are 1298552 bolts.\n<answer>\\boxed{1298552}</answer>",
        ),
        ("1298552",),
    ),
    "reex_sql": Sample(
        _SINGERS,
        (
            "<think>\nI look at the ages first.\n"
            "<intermediate_sql>SELECT age FROM singer LIMIT 3</intermediate_sql>",
            "They are numbers.\n</think>\n"
            "<final_sql>SELECT count(*) FROM singer WHERE age > 30</final_sql>",
        ),
        ("age\n28\n41\n35",),
    ),
    "search_r1": Sample(
        _TOWER,
        (
            "<think>I do not know the tower.</think>\n<search>city of the tallest tower</search>",
            "<think>Dubai lies in the Emirates.</think>\n<answer>United Arab Emirates</answer>",
        ),
        ("(1) Towers: the tallest tower stands in Dubai.",),
    ),
    "hermes": Sample(
        _BOLTS,
        (
            'I multiply.\n<tool_call>\n{"name": "python", "arguments": '
            '{"code": "print(4387 * 296)"}}\n</tool_call>',
            "There are \\boxed{1298552} bolts.",
        ),
        ("1298552",),
    ),
    "notebook": Sample(
        _BOLTS,
        (
            "<step>\n<thought>I multiply.</thought>\n<action>python</action>\n"
            "<action_input>\nprint(4387 * 296)\n</action_input>",
            "</step>\n<stop_analysis>\n<thought>That is the number.</thought>\n"
            "<answer>\\boxed{1298552}</answer>\n</stop_analysis>",
        ),
        ("1298552",),
    ),
    "markdown": Sample(
        _BOLTS,
        (
            "I multiply.\n```python\nprint(4387 * 296)\n```\n",
            "There are \\boxed{1298552} bolts.",
        ),
        ("1298552",),
    ),
}


@dataclass(frozen=True, slots=True)
class _Described:
    """A tool that is described, and never run."""

    name: str
    description: str
    arguments: type[BaseModel]

    def session(self) -> AbstractAsyncContextManager[ToolSession]:
        """Raise ToolUnavailable: the outputs of a sample are written down."""
        raise ToolUnavailable(f"{self.name!r} stands in a sample and can't be run")


@cache
def sample_tools(format: str) -> tuple[Tool, ...]:
    """The tools that the sample of a format calls, as descriptions."""
    name, argument, description = {
        "reex_sql": ("sql", "query", "Runs a query."),
        "search_r1": ("search", "query", "Searches the corpus."),
    }.get(format, ("python", "code", "Runs Python code; what it prints comes back."))
    arguments = create_model("Arguments", **{argument: (str, ...)})  # type: ignore[call-overload]
    return (_Described(name, description, arguments),)


def sample_ledger(encoder: Encoder, tools: Sequence[Tool], notice: str = "") -> Ledger:
    """The sample as a ledger: what the policy says is encoded as if it had been sampled."""
    format, tokenizer = encoder.format, encoder.tokenizer
    sample = SAMPLES[format.name]
    ledger = Ledger(encoder.prompt(sample.question))
    end = _end_of_turn(tokenizer)
    for number, said in enumerate(sample.said):
        last = number == len(sample.outputs)
        ended = bool(end) and (last or not format.inline)
        ids = tokenizer.encode_continuation(said) + (end if ended else [])
        ledger.append(Span.policy(ids))
        if not last:
            calls = _calls(format, said, sample.outputs[number], tools)
            for span in encoder.results(calls, ended=ended, notice=notice):
                ledger.append(span)
    return ledger


def _calls(format: Format, said: str, output: str, tools: Sequence[Tool]) -> list[CallRecord]:
    finish = Finish.STOP if format.stop else Finish.EOS
    calls = format.parse(said, finish, tools).calls
    return [CallRecord(call.tool, call.arguments, output) for call in calls]


def _end_of_turn(tokenizer: Tokenizer) -> list[int]:
    named = tokenizer.encode(tokenizer.special_text("eos_token") or "")
    return named if len(named) == 1 else sorted(tokenizer.eos_ids)[:1]


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

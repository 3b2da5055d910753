"""A demonstration: one conversation, turn by turn, and its ledger."""

from dataclasses import dataclass, field

from ...rollout.formats import Encoder
from ...rollout.ledger import Ledger, Span
from ...rollout.task import Task
from ...rollout.trajectory import CallRecord
from ...tools import Tool
from ...tools.errors import DataError

__all__ = ["CALL_SECONDS", "Demonstration", "Reply", "Step", "to_ledger"]

CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """The policy's text in one turn, and the call's record if it makes a call."""

    text: str
    call: CallRecord | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One question and the turns that answer it. `altered`: a result was not the tool's own."""

    task: Task
    steps: list[Step] = field(default_factory=list)
    altered: bool = False


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One conversation, in one format, with the tools that are offered in it."""

    format: str
    tools: tuple[Tool, ...] = field(compare=False)
    replies: list[Reply]


def to_ledger(demonstration: Demonstration, encoder: Encoder) -> Ledger:
    """The demonstration as the policy would have written it, turn by turn, as token ids."""
    tokenizer = encoder.tokenizer
    ledger = Ledger()
    for number, reply in enumerate(demonstration.replies):
        question = reply.task.question
        spans = encoder.follow_up(question, ended=True) if number else encoder.prompt(question)
        if spans is None:
            raise DataError("this chat template can't hold two questions in one ledger")
        for span in spans:
            ledger.append(span)
        for step in reply.steps:
            ends = step.call is None or not encoder.format.inline
            end = encoder.turn_end(calls=step.call is not None) if ends else []
            ids = tokenizer.encode(step.text) + end
            ledger.append(Span.policy(ids, weight=step.weight))
            if step.call is not None:
                for span in encoder.results([step.call], ended=ends):
                    ledger.append(span)
    return ledger

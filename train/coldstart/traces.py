"""Traces: how a solution reads that calls tools, as text, and its way into a ledger."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ...rollout.formats import FORMATS, Encoder, find_format
from ...rollout.formats.tags import Tagged
from ...rollout.ledger import Ledger, Source
from ...rollout.task import Task
from ...rollout.trajectory import CallRecord, Episode, FinishReason, StopReason, Trajectory, Turn
from ...tools.errors import UsageError
from .base import Demonstration, Reply, Step, to_ledger

__all__ = ["Bad", "Dropped", "Section", "Trace", "read_trace", "to_episode", "trace_format"]


class Dropped(StrEnum):
    """Why a trace is not kept."""

    UNCLOSED = "unclosed"
    """A tag was opened and not closed, or closed and not opened."""
    FORGED = "forged"
    """A result that no call asked for, or a call that has no result."""
    UNKNOWN_TOOL = "unknown_tool"
    """A call of a tool that is not offered."""
    NO_CALL = "no_call"
    """There is no call in it."""
    NO_ANSWER = "no_answer"
    """It ends without a final answer in the format's way."""
    OUTPUT = "output"
    """What it says a call returned is not what the tool returns."""
    UNSTABLE = "unstable"
    """A call returns something else each time."""
    STOPPED = "stopped"
    """A call ran out of time or memory, or ended the tool's process."""
    WRONG_ANSWER = "wrong_answer"
    """Its final answer is not the task's."""
    UNJUDGED = "unjudged"
    """Nobody can say whether its answer is right, or something of ours failed."""
    DUPLICATE = "duplicate"
    """It says the same as a trace that was kept."""
    CAP = "cap"
    """The task has as many traces as it may have."""
    TOO_LONG = "too_long"
    """It does not fit the context."""


class Bad(Exception):
    """The trace can't be kept, for the reason `why`."""

    def __init__(self, why: Dropped) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass(frozen=True, slots=True)
class Section:
    """The text up to the end of a call, the call's argument, and the claimed result."""

    text: str
    argument: str
    claimed: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A solution: sections that each end with a call, then the text after the last call."""

    task: Task
    format: str
    sections: list[Section] = field(default_factory=list)
    ending: str = ""
    answer: str = ""


def trace_format(name: str) -> Tagged:
    """The format of that name. Raises UsageError for one that has no tags in the text."""
    format = find_format(name)
    if not isinstance(format, Tagged):
        names = ", ".join(each.name for each in FORMATS.values() if isinstance(each, Tagged))
        raise UsageError(f"traces are written in one of the formats {names}, not {name!r}")
    return format


def read_trace(task: Task, text: str, format: Tagged) -> Trace:
    """Take a trace apart: the format check. Raises Bad.

    The text between results is kept to the letter: it is what the policy is to say.
    """
    sections = []
    position = 0
    marks = format.marks
    while True:
        opening = marks.call.search(text, position)
        early = marks.result.search(text, position)
        if early is not None and (opening is None or early.start() < opening.start()):
            raise Bad(Dropped.FORGED)
        if opening is None:
            break
        close = marks.call_end.search(text, opening.end())
        while close is not None and format.in_string(text[opening.end() : close.start()]):
            close = marks.call_end.search(text, close.end())
        if close is None:
            raise Bad(Dropped.UNCLOSED)
        body = text[opening.end() : close.start()]
        inner = marks.result.search(body)
        if inner is not None and not format.in_string(body[: inner.start()]):
            raise Bad(Dropped.UNCLOSED)  # the call runs on into what follows
        _check_prose(text[position : opening.start()], format)
        result = marks.result.search(text, close.end())
        if result is None or text[close.end() : result.start()].strip():
            raise Bad(Dropped.FORGED)
        end = marks.result_end.search(text, result.end())
        if end is None:
            raise Bad(Dropped.UNCLOSED)
        call = format.call(body, text[position : opening.start()])
        if call.tool != format.tool:
            raise Bad(Dropped.UNKNOWN_TOOL)
        if call.arguments is None:
            raise Bad(Dropped.UNCLOSED)
        argument = str(call.arguments[format.argument])
        said = text[position : close.end()].lstrip("\n")
        sections.append(Section(said, argument, text[result.end() : end.start()]))
        position = end.end()
    ending = text[position:].strip("\n")
    _check_prose(ending, format)
    answer = format.parse(ending, FinishReason.EOS, ()).answer
    closed = f"</{format.answer_tag}>" in ending or f"<{format.answer_tag}>" not in ending
    if answer is None or not closed:
        raise Bad(Dropped.NO_ANSWER if closed else Dropped.UNCLOSED)
    return Trace(task, format.name, sections, ending, answer)


_CALLS = re.compile(
    "|".join(
        re.escape(block.open)
        for each in FORMATS.values()
        for block in each.blocks
        if block.kind != "answer" and block.open.startswith("<")
    )
)
"""How calls begin in the formats that have tags."""


def _check_prose(text: str, format: Tagged) -> None:
    """Between calls there must be no half of a tag, and no call of anything else."""
    if format.marks.result_end.search(text):
        raise Bad(Dropped.FORGED)
    if format.marks.call_end.search(text):
        raise Bad(Dropped.UNCLOSED)
    if _CALLS.search(text):
        raise Bad(Dropped.UNKNOWN_TOOL)


def to_episode(
    trace: Trace,
    calls: Sequence[CallRecord],
    encoder: Encoder,
    sample: int,
    *,
    model: str,
    origin: str,
) -> Episode:
    """The trace as an episode: its ledger holds the tools' real results, `calls`.

    A call that failed stays in the text with loss weight 0: the model sees it, but is not trained
    to write it.
    `model` is the one whose tokenizer wrote the ids; it sampled none of them: `origin`
    says who made the trace.
    """
    steps = [
        Step(section.text, call, 0.0 if call.error else 1.0)
        for section, call in zip(trace.sections, calls, strict=True)
    ]
    reply = Reply(trace.task, [*steps, Step(trace.ending)])
    demonstration = Demonstration(trace.format, (), [reply])
    ledger = to_ledger(demonstration, encoder)
    trajectory = Trajectory(
        model,
        trace.format,
        [ledger],
        _turns(ledger, reply.steps),
        StopReason.ANSWERED,
        trace.answer,
        origin=origin,
    )
    id = f"{trace.task.id}/{sample}"
    rewards = {"correct": 1.0}
    return Episode(id, trace.task, trace.task.id, sample, [trajectory], rewards)


def _turns(ledger: Ledger, steps: Sequence[Step]) -> list[Turn]:
    turns = []
    position = 0
    left = iter(steps)
    for span in ledger:
        if span.source is Source.POLICY:
            call = next(left).call
            finish = FinishReason.EOS if call is None else FinishReason.STOP
            calls = [] if call is None else [call]
            turns.append(Turn(0, position, position + len(span), finish, calls))
        position += len(span)
    return turns

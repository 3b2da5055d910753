"""The checks that a trace has to pass: format, what the tool really returns, the answer.

ReTool's pipeline (arXiv 2504.11536, section 2.2) checks the format and the answer. Here every call
is run as well, twice, each time in its own session: a result that nobody's tool returned would
teach the policy not to believe what it reads.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ...rollout.formats import Encoder
from ...rollout.formats.tags import Tagged
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import CallRecord, Episode
from ...tools import ErrorKind, Tool
from ...tools.errors import ToolUnavailable
from ..rewards import Checker, Unscored
from .base import CALL_SECONDS
from .traces import Bad, Dropped, Section, Trace, read_trace, to_episode

__all__ = ["Checked", "check_traces", "run_again"]

_STOPPED = (ErrorKind.TIMEOUT, ErrorKind.MEMORY, ErrorKind.DIED, ErrorKind.FORBIDDEN)


@dataclass(slots=True)
class Checked:
    """The traces that passed, as episodes, and how many each check dropped."""

    kept: list[Episode] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def seen(self) -> int:
        """All traces that were looked at."""
        return len(self.kept) + self.dropped.total()


async def run_again(sections: Iterable[Section], tool: Tool, argument: str) -> list[CallRecord]:
    """Run a trace's calls in order in a fresh session; what they return now.

    Raises Bad where a call is stopped, ToolUnavailable where the tool itself fails.
    """
    records = []
    async with tool.session() as session:
        for section in sections:
            arguments = {argument: section.argument}
            result = await session.call(arguments, CALL_SECONDS)
            if result.error is ErrorKind.UNAVAILABLE:
                raise ToolUnavailable(f"the tool {tool.name!r} failed: {result.text}")
            if result.error in _STOPPED:
                raise Bad(Dropped.STOPPED)
            records.append(CallRecord(tool.name, dict(arguments), result.text, result.error))
    return records


async def check_traces(
    traces: Iterable[tuple[Task, str]],
    format: Tagged,
    tool: Tool,
    checker: Checker,
    tokenizer: Tokenizer,
    *,
    model: str,
    origin: str,
    cap: int = 1,
    max_tokens: int = 4096,
    concurrency: int = 2,
    progress: Callable[[str], None] = lambda became: None,
) -> Checked:
    """Check traces, each a task and the text that is to solve it, and keep at most `cap` a task.

    `tokenizer` is that of `model`, `origin` says who made the traces. What is kept is in the
    order of `traces`, whatever the concurrency; `progress` hears of each trace, "true" or why it is
    not. Raises ToolUnavailable where the tool fails: a
    trace is never dropped, or kept, for that.
    """
    encoder = Encoder(format, tokenizer, (tool,))
    room = asyncio.Semaphore(concurrency)

    async def check(task: Task, text: str) -> tuple[Trace, list[CallRecord]] | Dropped:
        async with room:
            try:
                found = await _check(task, text, format, tool, checker)
            except Bad as error:
                progress(error.why)
                return error.why
            progress("true")
            return found

    results = await asyncio.gather(*(check(task, text) for task, text in traces))
    checked = Checked()
    per_task: Counter[str] = Counter()
    seen: set[str] = set()
    for result in results:
        if isinstance(result, Dropped):
            checked.dropped[result] += 1
            continue
        trace, calls = result
        key = f"{trace.task.id} {_plain(' '.join(s.text for s in trace.sections) + trace.ending)}"
        episode = to_episode(
            trace, calls, encoder, per_task[trace.task.id], model=model, origin=origin
        )
        if key in seen:
            checked.dropped[Dropped.DUPLICATE] += 1
        elif per_task[trace.task.id] >= cap:
            checked.dropped[Dropped.CAP] += 1
        elif len(episode.trajectory.ledger) > max_tokens:
            checked.dropped[Dropped.TOO_LONG] += 1
        else:
            seen.add(key)
            per_task[trace.task.id] += 1
            checked.kept.append(episode)
    return checked


async def _check(
    task: Task, text: str, format: Tagged, tool: Tool, checker: Checker
) -> tuple[Trace, list[CallRecord]]:
    trace = read_trace(task, text, format)
    if not trace.sections:
        raise Bad(Dropped.NO_CALL)
    first = await run_again(trace.sections, tool, format.argument)
    second = await run_again(trace.sections, tool, format.argument)
    if [call.output for call in first] != [call.output for call in second]:
        raise Bad(Dropped.UNSTABLE)
    for section, call in zip(trace.sections, first, strict=True):
        if _lines(section.claimed) != _lines(call.output):
            raise Bad(Dropped.OUTPUT)
    try:
        right = await asyncio.to_thread(checker.right, task, trace.answer)
    except Unscored as error:
        raise Bad(Dropped.UNJUDGED) from error
    if not right:
        raise Bad(Dropped.WRONG_ANSWER)
    return trace, first


def _lines(text: str) -> list[str]:
    """The lines of an output, without the blanks at their ends and around the output."""
    return [line.rstrip() for line in text.strip().splitlines()]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()

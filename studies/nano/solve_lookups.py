"""How questions are answered whose values have to be looked up first: databases and corpora."""

import random

from interlace.rollout.formats import FORMATS
from interlace.rollout.task import Task
from interlace.rollout.trajectory import CallRecord
from interlace.tools import ToolSession
from interlace.tools.errors import DataError
from interlace.train.coldstart.base import CALL_SECONDS, Reply, Step

from .phrases import TOLD, choose
from .solver import Shares

__all__ = ["solve_database", "solve_lookup"]

_LOOK = {
    "place": ("I look how {0} is spelt.", "I need the spelling of {0}."),
    "kind": ("I look up the code of {0}.", "I need the code of {0}."),
    "amount": ("I look up the unit.", "I need the unit."),
}
_FOUND = {
    "place": "{0} is spelt {1}.",
    "kind": "{0} has the code {1}.",
    "amount": "The unit is {1}: {0} is {2}.",
}
_QUERY = ("Now the query.", "That is all I need.")
_AT_ONCE = ("Nothing has to be looked up.", "The query needs no other values.")
_GIVES = ("The query gives {0}.", "The result is {0}.")
_SEARCH = ("I look up {0}.", "I search for {0}.")
_SAYS = "It says {0}."


async def solve_database(
    task: Task, format: str, session: ToolSession | None, rng: random.Random, shares: Shares
) -> Reply:
    """Look up each value, then query: as the final answer in ReEx-SQL, else by one more call.

    Raises DataError where what the tool shows is not what the task says.
    """
    assert session is not None, "nobody knows what stands in a database"
    data = task.data
    steps: list[Step] = []
    known = ""
    *lookups, gold = data["steps"]
    for lookup, query, facts in zip(data["lookups"], lookups, data["facts"], strict=True):
        thought = choose(rng, _LOOK[lookup]).format(*facts)
        shown = await _call(steps, session, format, "sql", f"{known}{thought}", query)
        if facts[1] not in shown:
            raise DataError(f"{task.id}: {query!r} shows no {facts[1]!r}: {shown!r}")
        known = _FOUND[lookup].format(*facts) + " "
    thought = f"{known}{choose(rng, _QUERY if lookups else _AT_ONCE)}"
    if format == "reex_sql":
        steps.append(Step(FORMATS[format].write_answer(gold, thought=thought)))
        return Reply(task, steps)
    shown = await _call(steps, session, format, "sql", thought, gold)
    if shown.splitlines()[1] != task.answer:
        raise DataError(f"{task.id}: {gold!r} gives {shown!r}, not {task.answer!r}")
    assert task.answer is not None
    gives = choose(rng, _GIVES).format(task.answer)
    steps.append(Step(FORMATS[format].write_answer(task.answer, thought=gives)))
    return Reply(task, steps)


async def solve_lookup(
    task: Task, format: str, session: ToolSession | None, rng: random.Random, shares: Shares
) -> Reply:
    """Search for each thing in turn; what was found last is the answer.

    Raises DataError where a search does not find what the task says.
    """
    steps: list[Step] = []
    known = ""
    assert task.answer is not None
    for query, fact in zip(task.data["steps"], task.data["facts"], strict=False):
        assert session is not None, "nobody knows what stands in a corpus"
        thought = choose(rng, _SEARCH).format(query)
        shown = await _call(steps, session, format, "search", f"{known}{thought}", query)
        if fact not in shown:
            raise DataError(f"{task.id}: a search for {query!r} finds no {fact!r}: {shown!r}")
        known = _SAYS.format(fact) + " "
    thought = known.strip() or choose(rng, TOLD)
    steps.append(Step(FORMATS[format].write_answer(task.answer, thought=thought)))
    return Reply(task, steps)


async def _call(
    steps: list[Step], session: ToolSession, format: str, tool: str, thought: str, query: str
) -> str:
    """Make a call and note the step; what the tool showed."""
    result = await session.call({"query": query}, CALL_SECONDS)
    if not result.ok:
        raise DataError(f"{query!r} failed: {result.text}")
    call = CallRecord(tool, {"query": query}, result.text)
    text = FORMATS[format].write_call(tool, {"query": query}, thought=thought)
    steps.append(Step(text, call))
    return result.text

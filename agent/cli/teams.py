"""A team on the command line: made from options, and its CEO's decisions as a compact lane."""

import json
from typing import Any

from ...tools.errors import DataError
from ..agent import Agent
from ..events import AgentEvent, Counted, Decided, Executed, Judged, Recruited, Voted
from ..team.runs import Runs, SavedRun
from ..team.team import Team
from .options import TeamOptions

__all__ = ["find_unfinished", "lane", "make_team", "recorded_options"]

_WIDE = 76


def make_team(agent: Agent[Any], options: TeamOptions, runs: Runs | None = None) -> Team:
    """A team of such agents, whose steps are kept in `runs`. Raises UsageError."""
    paper: Any = "paper" if options.paper else None
    sizes: Any = {"max_experts": options.experts, "rounds": options.rounds}
    return Team.ceo(agent, **sizes, compat=paper, runs=runs)


def find_unfinished(runs: Runs, start: str | None) -> SavedRun:
    """The run whose id begins so, of those that have not ended; without one, the latest. Raises
    DataError.
    """
    unfinished = [run for run in runs.all() if run.resumable]
    found = [run for run in unfinished if run.id.startswith(start)] if start else unfinished[:1]
    if len(found) == 1:
        return found[0]
    named = f" whose id begins with {start}" if start else ""
    which = "".join(f"\n  {run.id}  {run.question}" for run in unfinished[:9])
    raise DataError(
        f"there is {'no' if not found else 'more than one'} unfinished run of a team{named}{which}"
    )


def recorded_options(run: SavedRun) -> tuple[TeamOptions, str, str]:
    """The team that a run was begun with, its model and its format."""
    made = json.loads(run.made)
    paper = made["rules"]["name"] == "paper"
    sizes = {"experts": made["max_experts"], "rounds": made["rounds"]}
    return TeamOptions(team=True, paper=paper, **sizes), made["model"], made["format"]


def lane(event: AgentEvent[Any]) -> str | None:
    """A team's event in one line for the user, or None if the event is not shown."""
    match event:
        case Decided():
            if not event.goes_on:
                return f"CEO, round {event.round + 1}: stop"
            aim = f" · {event.direction}" if event.direction else ""
            said = f"{event.experts} experts, {event.tokens} tokens each{aim}"
            if event.defaults:
                said += f" · by default: {', '.join(event.defaults)}"
            return _short(f"CEO, round {event.round + 1}: {said}")
        case Recruited():
            first, *others = event.experts
            return _short(f"  {first} solves; critics: {', '.join(others)}")
        case Voted():
            agrees, name = event.vote.agrees, event.speaker.name
            if agrees is None:
                return _short(f"  {name} can't be read and abstains")
            # Before its last line stand the calls that it made.
            review = event.vote.review.splitlines()[-1:] if not agrees else []
            why = f": {review[0]}" if review else ""
            return _short(f"  {name} {'agrees' if agrees else 'disagrees'}{why}")
        case Counted():
            unheard = event.unread and not event.agree + event.against
            return "  no vote could be read: nobody has agreed" if unheard else None
        case Executed():
            return _short(f"  run: {event.output}") if event.output else None
        case Judged():
            if event.verdict.correct:
                return "  accepted"
            advice = event.verdict.advice.splitlines()[:1]
            return _short(f"  rejected: {advice[0] if advice else 'no advice'}")
    return None


def _short(text: str) -> str:
    """The first line, cut."""
    line = text[:2] + " ".join(text[2:].split())
    return line if len(line) <= _WIDE else f"{line[: _WIDE - 1]}…"

"""A team on the command line: its options, and what its CEO decides as a compact lane."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..agent import Agent
    from ..events import AgentEvent
    from ..run import Answerer
    from ..team.runs import Runs, SavedRun
    from ..team.team import Team

__all__ = ["TeamOptions", "as_it_was", "find_unfinished", "lane", "team_of", "who_answers"]

_WIDE = 76


@dataclass(frozen=True, kw_only=True)
class TeamOptions:
    """Options for whether a team answers, and how large it may be."""

    team: Annotated[
        bool, typer.Option("--team", help="A CEO and its experts answer, not one agent alone.")
    ] = False
    experts: Annotated[int, typer.Option(min=2, help="The most experts of a team.")] = 4
    rounds: Annotated[int, typer.Option(min=1, help="The most rounds of a team.")] = 2
    paper: Annotated[
        bool, typer.Option("--paper", help="The team does what the paper's released code does.")
    ] = False


def who_answers(agent: "Agent[Any]", options: TeamOptions) -> "Answerer[Any]":
    """The agent, or its team. Raises UsageError."""
    return team_of(agent, options) if options.team else agent


def team_of(agent: "Agent[Any]", options: TeamOptions, runs: "Runs | None" = None) -> "Team":
    """A team of such agents, whose steps are kept in `runs`. Raises UsageError."""
    from ..team.team import Team

    paper: Any = "paper" if options.paper else None
    sizes: Any = {"max_experts": options.experts, "rounds": options.rounds}
    return Team.ceo(agent, **sizes, compat=paper, runs=runs)


def find_unfinished(runs: "Runs", start: str | None) -> "SavedRun":
    """The run whose id begins so, of those that have not ended; without one, the latest. Raises
    DataError.
    """
    from ...tools.errors import DataError

    unfinished = [run for run in runs.all() if run.ended is None]
    found = [run for run in unfinished if run.id.startswith(start)] if start else unfinished[:1]
    if len(found) == 1:
        return found[0]
    named = f" whose id begins with {start}" if start else ""
    which = "".join(f"\n  {run.id}  {run.question}" for run in unfinished[:9])
    raise DataError(
        f"there is {'no' if not found else 'more than one'} unfinished run of a team{named}{which}"
    )


def as_it_was(run: "SavedRun") -> tuple[TeamOptions, str, str]:
    """The team that a run was begun with, its model and its format."""
    made = json.loads(run.made)
    paper = made["rules"]["name"] == "paper"
    sizes = {"experts": made["max_experts"], "rounds": made["rounds"]}
    return TeamOptions(team=True, paper=paper, **sizes), made["model"], made["format"]


def lane(event: "AgentEvent[Any]") -> str | None:
    """A team's event in one line for the user, or None if the event is not shown."""
    from ..events import Decided, Executed, Judged, Recruited, Voted

    match event:
        case Decided():
            if not event.goes_on:
                return f"CEO, round {event.round + 1}: stop"
            aim = f" · {event.direction}" if event.direction else ""
            said = f"{event.experts} experts, {event.tokens} tokens each{aim}"
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

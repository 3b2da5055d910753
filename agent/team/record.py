"""The record of a team's run: a trajectory for each call of a role, and what was read of it."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...rollout.ledger import Ledger, Source
from ...rollout.policy import Policy
from ...rollout.team.replies import TEAM
from ...rollout.trajectory import Episode, StopReason, Trajectory
from ..events import Speaker
from ..result import Result, Usage
from .runs import Runs

__all__ = ["Round", "TeamRecord", "read_rounds", "to_result"]

_STOPS = {
    "budget": StopReason.BUDGET,
    "cancelled": StopReason.CANCELLED,
    "infrastructure": StopReason.INFRASTRUCTURE,
}


class TeamRecord:
    """The trajectories of one run, in the order in which they were begun.

    A call that was made again (it could not be read, or the process was killed in it) stands once;
    tries that could not be read stay, and no loss is taken on them.
    """

    def __init__(self, episode: Episode, runs: Runs | None = None) -> None:
        self.episode = episode
        self.why = "cancelled"
        self._runs = runs
        self._calls: dict[tuple[str, int], Trajectory] = {}

    def take_up(self, trajectories: Iterable[Trajectory]) -> None:
        """Restore the saved calls of a resumed run."""
        for trajectory in trajectories:
            told = trajectory.details[TEAM]
            speaker = Speaker(*(told[name] for name in ("role", "name", "round", "turn", "index")))
            self._calls[speaker.key, told["attempt"]] = trajectory

    @property
    def trajectories(self) -> list[Trajectory]:
        """All so far."""
        return list(self._calls.values())

    def begin(
        self, speaker: Speaker, attempt: int, trajectory: Trajectory, asked: list[dict[str, Any]]
    ) -> None:
        """A call has begun, with these messages; the one before could not be read."""
        if attempt:
            _leave_out(self._calls[speaker.key, attempt - 1])
        trajectory.details[TEAM] = {
            **asdict(speaker),
            "attempt": attempt,
            "asked": asked,
            "read": {},
        }
        self._calls[speaker.key, attempt] = trajectory

    def end(self, speaker: Speaker, attempt: int, read: dict[str, Any]) -> None:
        """A call is over, and this was read of it. Raises DataError where it can't be kept."""
        trajectory = self._calls[speaker.key, attempt]
        trajectory.details[TEAM]["read"] = read
        if self._runs is not None:
            self._runs.add(self.episode.id, f"{speaker.key}/{attempt}", trajectory)

    def close(self, plan: str, why: str) -> None:
        """The run is over: the call `plan` gave its solution ("" for none), and why it ended."""
        self.why = why
        self.finalize(plan)
        if self._runs is not None:
            self._runs.end(self.episode.id, why)

    def finalize(self, plan: str | None = None) -> None:
        """Put the trajectories into the episode, that of the last plan last, as far as it came.

        Where our side failed, it is the one that failed that stands last.
        """
        if self.episode.trajectories and plan is None:
            return
        failed = [t for t in self.trajectories if t.stop is StopReason.INFRASTRUCTURE]
        plans = [t for t in self.trajectories if t.details[TEAM]["read"].get("plan")]
        if plan:
            plans = [t for (key, _), t in self._calls.items() if key == plan] or plans
        if not self._calls:
            return
        last = (failed or plans or self.trajectories)[-1]
        last.details[TEAM]["why"] = self.why
        others = [t for t in self.trajectories if t is not last]
        self.episode.trajectories[:] = [*others, last]


def _leave_out(trajectory: Trajectory) -> None:
    """Take no loss on what the policy said here."""
    for number, ledger in enumerate(trajectory.ledgers):
        trajectory.ledgers[number] = Ledger(
            [replace(span, weight=0.0) if span.source is Source.POLICY else span for span in ledger]
        )


@dataclass(slots=True)
class Round:
    """One round of a team, as its record tells it.

    `plans` are the solver's, `votes` those of the critics on each but the last one, in their
    order: True, False, or None for an abstention. What did not come to pass is empty or None.
    """

    number: int
    decision: dict[str, Any] = field(default_factory=dict)
    experts: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    votes: list[list[bool | None]] = field(default_factory=list)
    output: str = ""
    """What came of running the plan, where it was run."""
    correct: bool | None = None
    tokens: int = 0
    """Sampled by all."""


def read_rounds(episode: Episode) -> list[Round]:
    """The rounds of a team's episode, from the record alone; none for a single agent's.

    Example:
        result = team.run_sync(question)
        for round in read_rounds(result.episode):
            print(round.decision, round.votes)
    """
    told = [(t, t.details[TEAM]) for t in episode.trajectories if TEAM in t.details]
    told.sort(key=lambda each: (each[1]["round"], each[1]["turn"], each[1]["index"]))
    rounds: dict[int, Round] = {}
    for trajectory, team in told:
        round = rounds.setdefault(team["round"], Round(team["round"]))
        round.tokens += trajectory.sampled_tokens
        read = team["read"]
        if not read:
            continue  # a try that could not be read, or one that was stopped
        match team["role"]:
            case "ceo":
                round.decision = read
            case "recruiter":
                round.experts = read["experts"]
            case "solver":
                round.plans.append(read["plan"])
            case "critic":
                while len(round.votes) <= team["turn"]:
                    round.votes.append([])
                round.votes[team["turn"]].append(read["agrees"])
            case "evaluator":
                round.correct, round.output = read["correct"], read["output"]
    return list(rounds.values())


def to_result(record: TeamRecord, policy: Policy) -> Result[None]:
    """The result of a run, however it ended: the last plan, and the usage of all calls."""
    record.finalize()
    episode, tokenizer = record.episode, policy.engine.tokenizer
    episode.seconds = time.time() - episode.started
    trajectories = episode.trajectories
    ledgers = [ledger for each in trajectories for ledger in each.ledgers]
    calls = tuple(call for each in trajectories for call in each.calls)
    tokens = sum(each.sampled_tokens for each in trajectories)
    prompts = sum(ledger.prompt_length for ledger in ledgers)
    turns = [turn for each in trajectories for turn in each.turns]
    written = sum(turn.stop - turn.start for turn in turns)
    stop, answer, text = StopReason.CANCELLED, None, ""
    if trajectories:
        last = trajectories[-1]
        stop = _STOPS.get(record.why, last.stop or StopReason.CANCELLED)
        episode.error = last.details.get("error")
        if last.details[TEAM]["read"].get("plan"):
            answer = last.answer
            text = "".join(last.text(turn, tokenizer) for turn in last.turns)
    usage = Usage(
        tokens=tokens,
        prompt_tokens=prompts,
        tool_tokens=sum(map(len, ledgers)) - prompts - written,
        turns=len(turns),
        calls=len(calls),
        seconds=round(episode.seconds, 3),
        estimated=any(turn.estimated for turn in turns),
    )
    return Result(
        question=episode.task.question,
        stop=stop,
        answer=answer,
        text=text,
        calls=calls,
        usage=usage,
        error=episode.error,
        episode=episode,
    )

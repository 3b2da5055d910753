"""The record of a team's run: a trajectory for each call of a role, and what was read of it."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from ...rollout.ledger import Ledger, Source
from ...rollout.policy import Policy
from ...rollout.trajectory import Episode, Speaker, StopReason, TeamCall, Trajectory
from ..result import Result, Usage
from .runs import Runs, SavedCall

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
        self.runs = runs
        self._calls: dict[tuple[str, int], Trajectory] = {}
        self._saved: dict[tuple[str, int], SavedCall] = {}

    def take_up(self, calls: Iterable[SavedCall]) -> None:
        """Restore the saved calls of a resumed run."""
        for saved in calls:
            call = team_call(saved.trajectory)
            self._calls[call.speaker.key, call.attempt] = saved.trajectory
            self._saved[call.speaker.key, call.attempt] = saved

    def saved(self, speaker: Speaker, attempt: int) -> SavedCall | None:
        """The call as an earlier process finished it; None if it was not made, or was cut off."""
        saved = self._saved.get((speaker.key, attempt))
        return None if saved is None or saved.trajectory.stop in _STOPS.values() else saved

    def last_read(self, role: str, field: str, round: int | None = None) -> Any:
        """The last thing of that name that was read of a role's reply; None if there is none."""
        for trajectory in reversed(self._calls.values()):
            call = team_call(trajectory)
            of_round = round is None or call.speaker.round == round
            if call.speaker.role == role and of_round and field in call.read:
                return call.read[field]
        return None

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
        trajectory.team = TeamCall(speaker, attempt, asked)
        self._calls[speaker.key, attempt] = trajectory

    async def end(self, speaker: Speaker, attempt: int, said: str, read: dict[str, Any]) -> None:
        """A call is over, and this was read of it. Raises DataError where it can't be kept."""
        trajectory = self._calls[speaker.key, attempt]
        team_call(trajectory).read = read
        if self.runs is not None:
            key = f"{speaker.key}/{attempt}"
            await asyncio.to_thread(self.runs.add, self.episode.id, key, trajectory, said)

    async def close(self, plan: str, why: str) -> None:
        """The run is over: the call `plan` gave its solution ("" for none), and why it ended."""
        self.why = why
        self.finalize(plan)
        if self.runs is not None:
            await asyncio.to_thread(self.runs.end, self.episode.id, why)

    def finalize(self, plan: str | None = None) -> None:
        """Put the trajectories into the episode, that of the last plan last, as far as it came.

        If a call failed with an infrastructure error, that trajectory is placed last.
        """
        if self.episode.trajectories and plan is None:
            return
        failed = [t for t in self.trajectories if t.stop is StopReason.INFRASTRUCTURE]
        plans = [t for t in self.trajectories if team_call(t).read.get("plan")]
        if plan:
            plans = [t for (key, _), t in self._calls.items() if key == plan] or plans
        if not self._calls:
            return
        last = (failed or plans or self.trajectories)[-1]
        team_call(last).why = self.why
        others = [t for t in self.trajectories if t is not last]
        self.episode.trajectories[:] = [*others, last]


def team_call(trajectory: Trajectory) -> TeamCall:
    """The call that a team's trajectory is. Raises ValueError for an agent's."""
    if trajectory.team is None:
        raise ValueError("this trajectory is not a team's: no role of one spoke in it")
    return trajectory.team


def _leave_out(trajectory: Trajectory) -> None:
    """Take no loss on what the policy said here."""
    for number, ledger in enumerate(trajectory.ledgers):
        trajectory.ledgers[number] = Ledger(
            [replace(span, weight=0.0) if span.source is Source.POLICY else span for span in ledger]
        )


@dataclass(slots=True)
class Round:
    """One round of a team, as its record tells it.

    `plans` are the solver's. For each plan but the last, `votes` holds the critics' votes, in the
    order of the critics: True, False, or None where a vote can't be read. What did not happen is
    empty or None.
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
    calls = [(each, each.team) for each in episode.trajectories if each.team is not None]
    calls.sort(key=lambda each: astuple(each[1].speaker)[2:])  # round, turn, index
    rounds: dict[int, Round] = {}
    for trajectory, call in calls:
        speaker, read = call.speaker, call.read
        round = rounds.setdefault(speaker.round, Round(speaker.round))
        round.tokens += trajectory.sampled_tokens
        if speaker.role == "critic":
            round.votes += [[] for _ in range(speaker.turn + 1 - len(round.votes))]
            votes = round.votes[speaker.turn]
            votes += [None] * (speaker.index + 1 - len(votes))
            votes[speaker.index] = read.get("agrees")
        if not read:
            continue  # a try that could not be read, or one that was stopped
        match speaker.role:
            case "ceo":
                round.decision = read
            case "recruiter":
                round.experts = read["experts"]
            case "solver":
                round.plans.append(read["plan"])
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
        episode.error = last.error
        if team_call(last).read.get("plan"):
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
        tokenizer=tokenizer,
    )

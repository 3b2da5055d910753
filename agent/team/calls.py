"""One run of a team: its members' calls, each its own rollout, and their record."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Generic, TypeVar

from ...rollout.budget import Budget
from ...rollout.engines import EngineError
from ...rollout.events import Event, Finished
from ...rollout.formats import Message
from ...rollout.formats.plain import without_thinking
from ...rollout.loop import CallGate, Rollout
from ...rollout.many.runner import Open
from ...rollout.policy import Policy
from ...rollout.team.budget_forcing import BudgetForcedRollout
from ...rollout.trajectory import StopReason, Trajectory
from ..events import AgentEvent, Speaker, Spoken
from ..output import OutputSchema
from .record import TeamRecord, team_call
from .roles import RolePrompt, Rules
from .runs import SavedCall

__all__ = ["TeamCalls", "TeamEnded", "TeamReply", "standalone_rollout"]

V = TypeVar("V")

# Why a member's call ends the whole run.
_ENDS = {
    StopReason.BUDGET: "budget",
    StopReason.CANCELLED: "cancelled",
    StopReason.INFRASTRUCTURE: "infrastructure",
}


class TeamEnded(Exception):
    """The run can't go on; the message is why: budget, cancelled or infrastructure."""


@dataclass(frozen=True, slots=True)
class TeamReply(Generic[V]):
    """A member's reply as it was parsed (None if that failed), and its answer."""

    read: V | None
    answer: str | None = None


class TeamCalls:
    """Makes the calls of one run. `tell` hears what happens; `record` holds all of it."""

    def __init__(
        self,
        policy: Policy,
        rules: Rules,
        open: Open,
        record: TeamRecord,
        budget: Budget,
        tell: Callable[[AgentEvent[Any]], object],
    ) -> None:
        self.policy = policy
        self.budget = budget
        self.tell = tell
        self.record = record
        self.stopping = False
        """Once set, nobody begins to speak any more."""
        self.schema: OutputSchema[Any] | None = None
        """What the answer has to be, where that is asked for; `repairs`: how often it may be given
        again."""
        self.repairs = 0
        self.embedded = False
        """Within another graph, whose retries and whose caller are told of a failure."""
        self._resumed = False
        """While the calls that an earlier process finished are gone through again."""
        self._rules = rules
        self._open = open
        self._words = policy.in_words()
        self._speaking: set[Rollout] = set()

    @property
    def question(self) -> str:
        """The question for the members, with the required form of the answer."""
        question = self.record.episode.task.question
        return question if self.schema is None else self.schema.ask(question)

    def take_up(self, calls: Sequence[SavedCall]) -> None:
        """Restore the saved calls of a resumed run, and charge the budget once for each."""
        self._resumed = True
        self.record.take_up(calls)
        for each in calls:
            call, used = team_call(each.trajectory), each.trajectory
            key = f"{self.record.episode.id}/{call.speaker.key}/{call.attempt}"
            self.budget.charge(key, used.sampled_tokens, len(used.calls))

    def announce(self, event: AgentEvent[Any]) -> None:
        """Tell what the team has done, unless that was told before the run was resumed."""
        if not self._resumed:
            self.tell(event)

    def stop_after_turn(self) -> None:
        """Let those who speak finish their turn, and nobody begin."""
        self.stopping = True
        for rollout in self._speaking:
            rollout.stop_after_turn = True

    async def say(
        self,
        speaker: Speaker,
        prompt: RolePrompt,
        read: Callable[[str], V | None],
        show: Callable[[V], dict[str, Any]],
        *,
        tokens: int | None = None,
        answers: bool = False,
    ) -> TeamReply[V]:
        """Have a member speak until what it says can be read, as often as the rules allow.

        With `tokens` it is an expert: it has the agent's tools and format, and its thought is cut
        off where that many are used up. With `answers` a reply without an answer counts as one that
        can't be read. A call that an earlier process finished is not made again. Raises TeamEnded,
        and EngineError where another graph is told of failures.
        """
        expert = tokens is not None
        for attempt in range(self._rules.tries):
            policy = self.policy if expert else self._words
            if attempt and self._rules.nudges and speaker.role != "ceo":
                policy = _nudged(policy, attempt)
                if tokens is not None and tokens > 8192:
                    tokens //= 2
            saved = self.record.saved(speaker, attempt)
            if saved is not None:
                trajectory, text = saved.trajectory, self._said(saved)
            else:
                self._resumed = False
                trajectory, text = await self._speak(speaker, attempt, policy, prompt, tokens)
            why = _ENDS.get(trajectory.stop or StopReason.INFRASTRUCTURE)
            found = read(text) if text else None
            if answers and trajectory.answer is None:
                found = None
            if saved is None and (why is None or (why != "infrastructure" and found is not None)):
                shown = {} if found is None else show(found)
                await self.record.end(speaker, attempt, text, shown)
            if why == "infrastructure" and self.embedded:
                raise EngineError(trajectory.error or "a member of the team could not speak")
            if why is not None:
                raise TeamEnded(why)
            if found is not None:
                return TeamReply(found, trajectory.answer)
        return TeamReply(None)

    async def _speak(
        self, speaker: Speaker, attempt: int, policy: Policy, prompt: RolePrompt, tokens: int | None
    ) -> tuple[Trajectory, str]:
        """One rollout, and what was said in it, without the thoughts."""
        if self.stopping:
            raise TeamEnded("cancelled")
        make: Callable[..., Rollout] = Rollout
        if tokens is not None:
            first, tail = self._rules.forcing(tokens)
            policy = policy.with_limits(max_tokens=first)
            make = partial(BudgetForcedRollout, tail=tail)
        episode = self.record.episode
        key = f"{speaker.key}/{attempt}"
        seed = None if episode.seed is None else _seed(episode.seed, key)
        opening = self._open(policy, name=f"{episode.id}/{key}@{id(self)}", seed=seed, make=make)
        async with opening as rollout:
            told = Message("system", prompt.system)
            rollout.history.messages.append(told)
            rollout.listener = partial(self._hear, speaker)
            asked = policy.encoder.messages(prompt.question, [told])
            self.record.begin(speaker, attempt, rollout.trajectory, asked)
            self._speaking.add(rollout)
            try:
                if self.stopping:
                    rollout.stop_after_turn = True
                self.budget.charge(f"{episode.id}/{key}")  # the rollout itself counts it
                trajectory = await rollout.ask(prompt.question)
            finally:
                self._speaking.discard(rollout)
            last = rollout.history.messages[-1]
            text = last.content if last.role == "assistant" else ""
            if isinstance(rollout, BudgetForcedRollout) and rollout.thought_turns:
                tokenizer = policy.engine.tokenizer
                answer = trajectory.turns[rollout.thought_turns :]
                text = "".join(trajectory.text(turn, tokenizer) for turn in answer)
            return trajectory, without_thinking(text)

    def _said(self, saved: SavedCall) -> str:
        if saved.said is not None:
            return saved.said
        trajectory, tokenizer = saved.trajectory, self.policy.engine.tokenizer
        return without_thinking(
            "".join(trajectory.text(each, tokenizer) for each in trajectory.turns)
        )

    def _hear(self, speaker: Speaker, event: Event) -> None:
        if not isinstance(event, Finished):
            self.tell(Spoken(speaker, event))


@asynccontextmanager
async def standalone_rollout(
    policy: Policy,
    *,
    name: str,
    seed: int | None,
    make: Callable[..., Rollout] = Rollout,
    call_gate: CallGate,
    budget: Budget,
) -> AsyncIterator[Rollout]:
    """Opens a rollout that is no runner's: its calls go through a gate."""
    async with make(policy, name=name, seed=seed, budget=budget, call_gate=call_gate) as rollout:
        yield rollout


def _seed(seed: int, key: str) -> int:
    """The seed of one call, which does not depend on when it is made."""
    parts = json.dumps([seed, key])
    return int.from_bytes(blake2b(parts.encode(), digest_size=6).digest())


def _nudged(policy: Policy, times: int) -> Policy:
    """Sampled a little otherwise. The released code also raises its presence and frequency
    penalties, by 0.01 and 0.02: engines here have none.
    """
    sampling = policy.sampling
    return policy.with_sampling(
        temperature=max(0.0, sampling.temperature - 0.01 * times),
        top_p=max(0.01, sampling.top_p - 0.01 * times),
    )

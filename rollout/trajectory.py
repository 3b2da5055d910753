"""Records of what happened: calls, turns, trajectories, episodes and how they ended."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from ..tools import Artifact, ErrorKind, ToolResult
from .ledger import Ledger, Source, Span
from .task import Task
from .tokenizer import Tokenizer

__all__ = [
    "AGENT",
    "SCHEMA_VERSION",
    "Branch",
    "CallRecord",
    "Episode",
    "FinishReason",
    "Speaker",
    "StopReason",
    "TeamCall",
    "Trajectory",
    "Turn",
    "as_shared",
    "shortened",
]

SCHEMA_VERSION = 4
"""4: the leaves of a tree are stored without what they share (`Branch`)."""


def shortened(text: str) -> str:
    """A text in quotes, of a long one the head and the tail."""
    return repr(text if len(text) <= 80 else f"{text[:50]}...{text[-20:]}")


StoredLedger = Annotated[Ledger, PlainValidator(Ledger.from_json), PlainSerializer(Ledger.to_json)]
"""A ledger that pydantic can write and read: the records below cross files as they are."""


class FinishReason(StrEnum):
    """Why an engine stopped sampling."""

    STOP = "stop"
    """A stop string is complete."""
    EOS = "eos"
    """An end-of-sequence token was sampled."""
    LENGTH = "length"
    """The token limit of the request, or the model's context, is full."""
    CANCELLED = "cancelled"
    """The request was cancelled; what was sampled until then is kept."""
    FILTERED = "filtered"
    """The server's filter cut what the model said: the model's doing, and no answer."""


class StopReason(StrEnum):
    """Why a trajectory ended."""

    ANSWERED = "answered"
    """The policy gave a final answer in the format's way."""
    ENDED = "ended"
    """The policy ended its turn without a final answer."""
    TURNS = "turns"
    """The limit of turns is reached."""
    LENGTH = "length"
    """The limit of response tokens is reached, or the model's context is full."""
    TIMEOUT = "timeout"
    """The limit of seconds is reached."""
    BUDGET = "budget"
    """A budget that it shares with other questions is spent."""
    CANCELLED = "cancelled"
    """Whoever started it stopped it."""
    INFRASTRUCTURE = "infrastructure"
    """Something of ours failed (engine, tool process, format): not the policy's fault."""


@dataclass(slots=True)
class CallRecord:
    """One tool call: what was asked and what the model was shown.

    `arguments` is None where the call could not be read. `output` is the text the model read, cut
    to its token budget; `full_output` the whole where it was cut.
    """

    tool: str
    arguments: dict[str, Any] | None
    output: str
    error: ErrorKind | None = None
    seconds: float = 0.0
    state_lost: bool = False
    full_output: str | None = None
    artifacts: list[Artifact] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        error = "" if self.error is None else f" ({self.error.value})"
        asked = "" if self.arguments is None else shortened(str(self.arguments))
        return f"<CallRecord {self.tool} {asked}{error}: {shortened(self.output)}>"

    @classmethod
    def of(
        cls, tool: str, arguments: dict[str, Any] | None, result: ToolResult, output: str
    ) -> "CallRecord":
        """The record of a call that gave `result`, of which the model is shown `output`."""
        return cls(
            tool=tool,
            arguments=arguments,
            output=output,
            error=result.error,
            seconds=result.seconds,
            state_lost=result.state_lost,
            full_output=None if output == result.text else result.text,
            artifacts=list(result.artifacts),
            details=dict(result.details),
        )


@dataclass(slots=True)
class Turn:
    """One time the policy spoke: tokens [start, stop) of its ledger, and the calls it made.

    `prefilled` counts the context tokens that the engine computed for this turn, `cached` those it
    still held, `overshoot` the tokens sampled after the end of the turn and discarded.
    `forged` says that the policy wrote tool output itself. `counted` is the number of tokens that
    the model sampled where the ids are not its own (text servers): the server's count, or a guess
    from the length of the text if `estimated`. `given` is how many of its tokens the host put into
    it, in a branch that continues a turn (`Rollout.fork`): all others are the policy's.
    """

    ledger: int
    start: int
    stop: int
    finish: FinishReason
    calls: list[CallRecord] = field(default_factory=list)
    forged: bool = False
    prefilled: int = 0
    cached: int = 0
    overshoot: int = 0
    seconds: float = 0.0
    tool_seconds: float = 0.0
    counted: int | None = None
    estimated: bool = False
    given: int = 0

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy sampled."""
        return self.stop - self.start - self.given if self.counted is None else self.counted


def as_shared(turn: Turn) -> Turn:
    """A turn as a branch has it from the leaf that it left: the work for it was that leaf's."""
    return replace(
        turn,
        calls=list(turn.calls),
        prefilled=0,
        cached=0,
        overshoot=0,
        seconds=0.0,
        tool_seconds=0.0,
    )


@dataclass(frozen=True, slots=True)
class Speaker:
    """The member of a team that speaks, and when: one call of a role.

    `role` is ceo, recruiter, solver, critic, executor or evaluator; `name` is the name that the
    recruiter gave an expert. `round` and `turn` count from 0, the turn within a round's discussion;
    `index` counts the critics.
    """

    role: str
    name: str
    round: int
    turn: int = 0
    index: int = 0

    @property
    def key(self) -> str:
        """`0.solver.1`, `0.critic.1.2`: the same in every run."""
        key = f"{self.round}.{self.role}"
        if self.role in ("solver", "critic"):
            key += f".{self.turn}"
        return f"{key}.{self.index}" if self.role == "critic" else key


AGENT = Speaker("agent", "agent", 0)
"""The speaker where there is no team."""


@dataclass(slots=True)
class TeamCall:
    """The call of a team's role that a trajectory is.

    `asked` are the messages that the role was given, `read` what was read of its reply (empty where
    that failed). `attempt` counts the tries of one call. `why` says why the team's run ended, in
    the trajectory of its answer alone.
    """

    speaker: Speaker
    attempt: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    read: dict[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """The place of a leaf in a tree: the leaf that it left, where, and its weight.

    The trajectories of an episode that is a tree are its leaves, the chosen one last; each has its
    whole ledger and all its turns in memory. Where a tree branches, the leaf that was there first
    continues, and the others name it as their `parent`: a node of the tree is a beginning that
    leaves have in common, and there is no record of it but theirs.
    """

    name: str
    """Its own within the tree: `0`, `1` for the roots, `0.1` for the first leaf that left `0`."""
    parent: str | None = None
    """The name of the leaf that it left; None for a root."""
    turns: int = 0
    """How many of its first turns are the parent's, as a whole."""
    tokens: int = 0
    """How many of the first tokens of ledger `ledger` are the parent's, with their
    log-probabilities; earlier ledgers are shared as a whole. It is the end of a turn with its
    results, or a place inside the policy's turn number `turns`."""
    ledger: int = 0
    """The ledger, of the trajectory's, in which they part."""
    weight: float = 1.0
    """Its share of its root: the product, over the branchings on its way, of 1 / number of
    continuations there. The weights of one root's leaves add up to 1. What is summed over leaves
    with it does not depend on how often a beginning was continued; a plain mean does."""
    replayed: int = 0
    """Calls of the shared turns that were run again for it, since a tool's session could not be
    copied."""
    changed: int = 0
    """Of these, the calls that gave another result than the one in the ledger."""


@dataclass(slots=True)
class Trajectory:
    """One policy's work on one task: a chain of ledgers, most often one."""

    model: Annotated[str, Field(validation_alias=AliasChoices("model", "policy"))]
    """The engine's name for the model that was sampled (`policy` in records of version 1)."""
    format: str
    ledgers: list[StoredLedger] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    stop: StopReason | None = None
    answer: str | None = None
    token_exact: bool = True
    """Whether the ids are those the engine sampled: False (not trainable) for text-only servers."""
    branch: Branch | None = None
    """Its place in a tree, where it is a leaf of one."""
    error: str | None = None
    """The failure on our side, in one sentence, where `stop` is `INFRASTRUCTURE`."""
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a tool's session tells of itself (the tier of the Python sandbox, say), by tool."""
    team: TeamCall | None = None
    """The call that this is, where a team made the episode."""
    strategy: dict[str, Any] | None = None
    """How a strategy came to choose this attempt."""
    origin: str | None = None
    """Who made it, where no engine sampled it: a demonstration."""
    details: dict[str, Any] = field(default_factory=dict)
    """For whoever uses this package: nothing in it reads them."""

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, record: Any) -> Any:
        """Up to schema 2, `exact` and `details` held what now has fields of its own."""
        if not isinstance(record, dict) or "exact" not in record:
            return record
        record = dict(record)
        record["token_exact"] = record.pop("exact")
        details = record.get("details")
        if not isinstance(details, dict):
            return record
        record["details"] = details = dict(details)
        for name in ("error", "tools", "strategy", "origin"):
            if name in details:
                record[name] = details.pop(name)
        if isinstance(team := details.pop("team", None), dict):
            names = ("role", "name", "round", "turn", "index")
            speaker = {name: team[name] for name in names if name in team}
            rest = {name: value for name, value in team.items() if name not in names}
            record["team"] = {"speaker": speaker, **rest}
        return record

    def __repr__(self) -> str:
        who = "" if self.team is None else f" {self.team.speaker.key}"
        answer = "" if self.answer is None else f" {shortened(self.answer)}"
        size = f"turns={len(self.turns)}, calls={len(self.calls)}, ledgers={self.ledgers}"
        how = "under way" if self.stop is None else self.stop.value
        return f"<Trajectory{who} of {self.model} in {self.format}, {how}{answer}: {size}>"

    @property
    def speaker(self) -> Speaker:
        """The member of a team that speaks in it, or `AGENT`."""
        return AGENT if self.team is None else self.team.speaker

    @property
    def ledger(self) -> Ledger:
        """The ledger that is being written."""
        return self.ledgers[-1]

    @property
    def calls(self) -> list[CallRecord]:
        """All calls, in order."""
        return [call for turn in self.turns for call in turn.calls]

    @property
    def own_turns(self) -> list[Turn]:
        """Its turns without those that it shares as a whole with the leaf that it left."""
        return self.turns if self.branch is None else self.turns[self.branch.turns :]

    @property
    def own_spans(self) -> list[Span]:
        """The spans of all its ledgers, in order, without what it shares with that leaf."""
        first, tokens = (0, 0) if self.branch is None else (self.branch.ledger, self.branch.tokens)
        spans = self.ledgers[first].tail(tokens) if self.ledgers else []
        return spans + [span for ledger in self.ledgers[first + 1 :] for span in ledger]

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the policy sampled for it: what a branch shares is its parent's."""
        own, branch = self.own_turns, self.branch
        sampled = sum(turn.sampled_tokens for turn in own)
        if branch is None or not own or own[0].counted is not None:
            return sampled
        first = own[0]
        if first.ledger == branch.ledger and first.start < branch.tokens:  # it left inside a turn
            begun = self.ledgers[first.ledger].response_mask[first.start : branch.tokens]
            sampled -= int(begun.sum())
        return sampled

    def text(self, turn: Turn, tokenizer: Tokenizer) -> str:
        """The text of a turn, without the token that ended it. A view, as all text."""
        said = self.ledgers[turn.ledger].ids[turn.start : turn.stop].tolist()
        return tokenizer.decode([id for id in said if id not in tokenizer.eos_ids])

    def notice(self, turn: Turn, tokenizer: Tokenizer) -> str:
        """The notice after the results of a turn's calls; "" if there is none."""
        notice = ""
        for span in self.ledgers[turn.ledger].since(turn.stop):
            if span.source is Source.POLICY:
                break
            if span.source is Source.HOST:
                notice += tokenizer.decode(span.ids)
        return notice

    def ended(self, tokenizer: Tokenizer) -> bool:
        """True if the last token is the policy's own end of turn."""
        last = self.ledger.last
        return last.source is Source.POLICY and int(last.ids[-1]) in tokenizer.eos_ids


@dataclass(slots=True)
class Episode:
    """One attempt at a task: its trajectories, how it ended, its rewards.

    `group` is shared by the attempts at one task, `sample` counts them from 0. There is one
    trajectory for an agent, several for a team or a strategy, and one for each leaf of a tree
    (`Branch`); the one that counts is the last.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    id: str
    task: Task
    group: str
    sample: int
    trajectories: list[Trajectory] = field(default_factory=list)
    rewards: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was made with: `Policy.settings`, and the run's `n` and `seed`."""
    seed: int | None = None
    """The seed of this attempt, derived from the run's."""
    started: float = 0.0
    """Unix time, seconds."""
    seconds: float = 0.0
    error: str | None = None
    """Where it ended in `INFRASTRUCTURE`: what failed, in one sentence."""
    schema_version: int = SCHEMA_VERSION

    def __repr__(self) -> str:
        stop = "under way" if self.stop is None else self.stop.value
        answer = "" if self.answer is None else f" {shortened(self.answer)}"
        scored = f", rewards={self.rewards}" if self.rewards else ""
        of = f"trajectories={len(self.trajectories)}{scored}"
        return f"<Episode {self.id} of {shortened(self.task.question)}, {stop}{answer}: {of}>"

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory of a single agent (the last one of a team, the chosen leaf of a tree)."""
        return self.trajectories[-1]

    @property
    def stop(self) -> StopReason | None:
        """How the episode ended: as its last trajectory did."""
        return self.trajectories[-1].stop if self.trajectories else None

    @property
    def answer(self) -> str | None:
        """The final answer, read from policy text only."""
        return self.trajectories[-1].answer if self.trajectories else None

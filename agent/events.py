"""The events that a stream yields: the loop's own, the agent's and the team's."""

import asyncio
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from typing_extensions import TypeVar

from ..rollout.budget import Left
from ..rollout.events import CallFinished, CallOutput, CallStarted, Event, Notice, PolicyText
from ..rollout.team import replies as roles
from ..rollout.trajectory import Speaker
from .result import Result

__all__ = [
    "AgentEvent",
    "ApprovalAsked",
    "ApprovalDecision",
    "BudgetLeft",
    "Counted",
    "Decided",
    "Done",
    "Executed",
    "Judged",
    "Reasoning",
    "Recruited",
    "Speaker",
    "Spoken",
    "TeamEvent",
    "Voted",
]

T = TypeVar("T", default=None)


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """A person's decision on a call. `always`: from now on in this conversation, calls of this tool
    run without asking. `why`: the reason given to the model if the call is not run.
    """

    allowed: bool
    why: str = ""
    always: bool = False


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The model thinks: `text` is between `<think>` and `</think>`, or is one of these."""

    text: str
    tokens: int


class ApprovalAsked:
    """A call waits: say `allow()` or `deny()`, from any thread. The answer's clock is paused."""

    __match_args__ = ("tool", "arguments")

    def __init__(self, tool: str, arguments: dict[str, Any]) -> None:
        self.tool = tool
        self.arguments = arguments
        self._loop = asyncio.get_running_loop()
        self._decision: asyncio.Future[ApprovalDecision] = self._loop.create_future()

    def allow(self, *, always: bool = False) -> None:
        """Run it; with `always`, every later call of this tool in the conversation as well."""
        self._decide(ApprovalDecision(True, always=always))

    def deny(self, why: str = "") -> None:
        """Don't run it; the model is told why and continues."""
        self._decide(ApprovalDecision(False, why))

    async def decision(self) -> ApprovalDecision:
        """Wait for what is said first."""
        return await self._decision

    def _decide(self, decision: ApprovalDecision) -> None:
        def settle() -> None:
            if not self._decision.done():
                self._decision.set_result(decision)

        self._loop.call_soon_threadsafe(settle)


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """The remaining budget, after each call and at the end; only sent if there is a budget."""

    left: Left


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The last event of a stream."""

    result: Result[T]


# -- of a team ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spoken:
    """Something happened in what a member of the team says. Critics speak at the same time."""

    speaker: Speaker
    event: Event


@dataclass(frozen=True, slots=True)
class Decided:
    """The CEO has decided on a round. `experts` and `tokens` are what holds, after the clamps.
    `defaults` names the fields that could not be read, in whose place a default holds.
    """

    round: int
    goes_on: bool
    experts: int
    tokens: int
    direction: str
    defaults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recruited:
    """The experts of a round, the solver first."""

    round: int
    experts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Voted:
    """A critic has voted on the solver's plan."""

    speaker: Speaker
    vote: roles.Vote


@dataclass(frozen=True, slots=True)
class Counted:
    """The votes on a plan are counted. Where no vote could be read, nobody has agreed, and the
    evaluator is told so.
    """

    round: int
    turn: int
    agree: int
    against: int
    unread: int


@dataclass(frozen=True, slots=True)
class Executed:
    """The plan has been run, with this output."""

    round: int
    output: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The evaluator has judged the plan."""

    round: int
    verdict: roles.EvaluatorVerdict


TeamEvent: TypeAlias = Spoken | Decided | Recruited | Voted | Counted | Executed | Judged
AgentEvent: TypeAlias = (
    PolicyText
    | Reasoning
    | CallStarted
    | CallOutput
    | CallFinished
    | Notice
    | TeamEvent
    | ApprovalAsked
    | BudgetLeft
    | Done[T]
)
"""What a stream yields. `Done` comes last and once. An agent's has no `TeamEvent`; a team's has
what its members say in `Spoken`."""

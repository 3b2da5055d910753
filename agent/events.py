"""What a stream yields: the loop's events, and those of whoever watches over it."""

import asyncio
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from typing_extensions import TypeVar

from ..rollout.budget import Left
from ..rollout.events import CallFinished, CallOutput, CallStarted, Notice, PolicyText
from .result import Result

__all__ = ["AgentEvent", "ApprovalAsked", "BudgetLeft", "Decision", "Done", "Reasoning"]

T = TypeVar("T", default=None)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person said to a call. `always`: calls of this tool are run without asking from now
    on, in this conversation; `why` is what the model is told where it is not run.
    """

    allowed: bool
    why: str = ""
    always: bool = False


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The model thinks: `text` stands between `<think>` and `</think>`, or is one of these."""

    text: str
    tokens: int


class ApprovalAsked:
    """A call waits: say `allow()` or `deny()`, from any thread. The answer's clock stands still."""

    __match_args__ = ("tool", "arguments")

    def __init__(self, tool: str, arguments: dict[str, Any]) -> None:
        self.tool = tool
        self.arguments = arguments
        self._loop = asyncio.get_running_loop()
        self._decision: asyncio.Future[Decision] = self._loop.create_future()

    def allow(self, *, always: bool = False) -> None:
        """Run it; with `always`, every later call of this tool in the conversation as well."""
        self._decide(Decision(True, always=always))

    def deny(self, why: str = "") -> None:
        """Don't run it; the model is told why and goes on."""
        self._decide(Decision(False, why))

    async def decision(self) -> Decision:
        """Wait for what is said first."""
        return await self._decision

    def _decide(self, decision: Decision) -> None:
        def settle() -> None:
            if not self._decision.done():
                self._decision.set_result(decision)

        self._loop.call_soon_threadsafe(settle)


@dataclass(frozen=True, slots=True)
class BudgetLeft:
    """What is left of the budget, after each call and at the end; only where there is one."""

    left: Left


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The last event of a stream."""

    result: Result[T]


AgentEvent: TypeAlias = (
    PolicyText
    | Reasoning
    | CallStarted
    | CallOutput
    | CallFinished
    | Notice
    | ApprovalAsked
    | BudgetLeft
    | Done[T]
)
"""What a stream yields. `Done` comes last and once."""

"""Which calls are run: the approval is asked, then the hook that may answer in a tool's place."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..rollout.formats import Call
from ..tools import ErrorKind, ToolResult
from ..tools.errors import UsageError
from .approval import Approval, Verdict, asked
from .events import AgentEvent, ApprovalAsked, ApprovalDecision

__all__ = ["BeforeCall", "CallPolicy", "Hooks"]

_log = logging.getLogger("interlace.agent")

BeforeCall: TypeAlias = Callable[
    [str, dict[str, Any]], ToolResult | Awaitable[ToolResult | None] | None
]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called in the event loop that answers, so they must not block it.

    `event` is called with every event of every question, whoever else reads them. `before_call` is
    called with a tool's name and arguments, once the call is approved: None lets it run; a
    `ToolResult` is given to the model in its place (from a cache, say). Whatever they raise ends
    the question as failed on our side, with a sentence in the result's `error`; `KeyboardInterrupt`
    alone is raised on. What `event` raises at a `CallOutput` goes to the event loop; at the end of
    an answer, and between the turns of a team's members, to the log (`interlace.agent`).
    """

    event: Callable[[AgentEvent[Any]], None] | None = None
    before_call: BeforeCall | None = None

    async def before(self, tool: str, arguments: dict[str, Any]) -> ToolResult | None:
        """Result of `before_call`."""
        if self.before_call is None:
            return None
        with _told("the hook before_call"):
            said = self.before_call(tool, arguments)
            given = await said if inspect.isawaitable(said) else said
        if not isinstance(given, ToolResult | None):
            raise UsageError(
                f"the hook before_call gives a ToolResult or None, not {type(given).__name__}"
            )
        return given

    def hear(self, event: AgentEvent[Any]) -> None:
        """Call `event`."""
        if self.event is not None:
            with _told("the hook event"):
                self.event(event)

    def hear_end(self, event: AgentEvent[Any]) -> None:
        """Call `event` where no question can be ended by it: an error goes to the log."""
        try:
            self.hear(event)
        except UsageError as error:
            _log.error("%s", error, exc_info=error.__cause__)


class CallPolicy:
    """Decides on each call of a conversation, or of a team; remembers what may always be run.

    `tell` is given what has to be asked, and says whether anybody hears it.
    """

    def __init__(
        self, approval: Approval | None, hooks: Hooks, tell: Callable[[ApprovalAsked], bool]
    ) -> None:
        self._approval = approval
        self._hooks = hooks
        self._tell = tell
        self._always: set[str] = set()  # tools that are run without asking any more

    async def __call__(self, call: Call) -> ToolResult | None:
        """Return a result to use instead of running the call, or None to run it."""
        arguments = call.arguments or {}
        why = await self._refusal(call.tool, arguments)
        if why is not None:
            return ToolResult(why, ErrorKind.REFUSED, details={"approval": "denied"})
        return await self._hooks.before(call.tool, arguments)

    async def _refusal(self, tool: str, arguments: dict[str, Any]) -> str | None:
        """Why a call is not approved; None where it is."""
        approval = self._approval
        verdict = approval.verdict(tool, arguments) if approval else Verdict.ALLOW
        if verdict is Verdict.DENY:
            return "Not run: this is not allowed here."
        if approval is None or verdict is Verdict.ALLOW or tool in self._always:
            return None
        if approval.ask is not None:
            with _told("the function that is asked for approval"):
                said = await asked(approval.ask, tool, arguments)
            decision = ApprovalDecision(said is True, said if isinstance(said, str) else "")
        else:
            event = ApprovalAsked(tool, arguments)
            if not self._tell(event):
                return "Not run: it needs a person's approval, and there is nobody to ask."
            decision = await event.decision()
        if decision.allowed and decision.always:
            self._always.add(tool)
        why = f"Not run: {decision.why}" if decision.why else "Not run: a person said no."
        return None if decision.allowed else why


@contextmanager
def _told(whose: str) -> Iterator[None]:
    """Turn whatever code of the user raises into a UsageError that says whose it is."""
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise UsageError(f"{whose} failed: {what}") from error

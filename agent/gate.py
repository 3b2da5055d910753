"""Before a call is run: the approval, then the hook that may stand in for it."""

from collections.abc import Callable
from typing import Any

from ..rollout.formats import Call
from ..tools import ErrorKind, ToolResult
from .approval import Approval, Verdict, asked
from .events import ApprovalAsked, Decision
from .hooks import Hooks

__all__ = ["Gate"]

_NOBODY = "Not run: it needs a person's approval, and there is nobody to ask."


class Gate:
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
            said = await asked(approval.ask, tool, arguments)
            decision = Decision(said is True, said if isinstance(said, str) else "")
        else:
            event = ApprovalAsked(tool, arguments)
            if not self._tell(event):
                return _NOBODY
            decision = await event.decision()
        if decision.allowed and decision.always:
            self._always.add(tool)
        why = f"Not run: {decision.why}" if decision.why else "Not run: a person said no."
        return None if decision.allowed else why

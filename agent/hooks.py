"""Hooks: functions of yours that see what happens, and may stand in for a call."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..tools import ToolResult
from .events import AgentEvent

__all__ = ["BeforeCall", "Hooks"]

BeforeCall: TypeAlias = Callable[
    [str, dict[str, Any]], ToolResult | Awaitable[ToolResult | None] | None
]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Called in the event loop that answers, so they must not block it.

    `event` is called with every event of every question, whoever else reads them. `before_call` is
    called with a tool's name and arguments, once the call is approved: None lets it run; a
    `ToolResult` is given to the model in its place (from a cache, say). What they raise ends the
    question as failed on our side; what `event` raises at a `CallOutput` goes to the event loop.
    """

    event: Callable[[AgentEvent[Any]], None] | None = None
    before_call: BeforeCall | None = None

    async def before(self, tool: str, arguments: dict[str, Any]) -> ToolResult | None:
        """Result of `before_call`."""
        if self.before_call is None:
            return None
        said = self.before_call(tool, arguments)
        return await said if inspect.isawaitable(said) else said

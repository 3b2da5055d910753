"""What people and programs talk to: `Agent`, conversations and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent
    from .approval import Approval, Rule
    from .conversation import Conversation
    from .conversations import Conversations
    from .events import AgentEvent, ApprovalAsked, BudgetLeft, Done, Reasoning
    from .hooks import Hooks
    from .result import Result, Usage
    from .running import Run

_HOMES = {
    "Agent": "agent",
    "AgentEvent": "events",
    "Approval": "approval",
    "ApprovalAsked": "events",
    "BudgetLeft": "events",
    "Conversation": "conversation",
    "Conversations": "conversations",
    "Done": "events",
    "Hooks": "hooks",
    "Reasoning": "events",
    "Result": "result",
    "Rule": "approval",
    "Run": "running",
    "Usage": "result",
}

__all__ = [
    "Agent",
    "AgentEvent",
    "Approval",
    "ApprovalAsked",
    "BudgetLeft",
    "Conversation",
    "Conversations",
    "Done",
    "Hooks",
    "Reasoning",
    "Result",
    "Rule",
    "Run",
    "Usage",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: the command line starts without any of this."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

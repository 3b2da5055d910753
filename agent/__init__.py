"""The public interface: `Agent`, `Team`, conversations and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent
    from .approval import Approval, Rule
    from .call_policy import Hooks
    from .conversation import Conversation
    from .conversations import Conversations
    from .events import (
        AgentEvent,
        ApprovalAsked,
        BudgetLeft,
        Counted,
        Decided,
        Done,
        Executed,
        Judged,
        Reasoning,
        Recruited,
        Spoken,
        Voted,
    )
    from .result import Result, Usage
    from .run import AgentRun
    from .team.embed import langgraph_tools
    from .team.record import Round, read_rounds
    from .team.team import Team

JSON_VERSION = 1
"""The `schema_version` of `Result.to_dict` and of what `--json` prints; it changes when a field
changes its meaning."""

_HOMES = {
    "Agent": "agent",
    "AgentEvent": "events",
    "Approval": "approval",
    "ApprovalAsked": "events",
    "BudgetLeft": "events",
    "Conversation": "conversation",
    "Conversations": "conversations",
    "Counted": "events",
    "Decided": "events",
    "Done": "events",
    "Executed": "events",
    "Hooks": "call_policy",
    "Judged": "events",
    "Reasoning": "events",
    "Recruited": "events",
    "Result": "result",
    "Round": "team.record",
    "Rule": "approval",
    "AgentRun": "run",
    "Spoken": "events",
    "Team": "team.team",
    "Usage": "result",
    "Voted": "events",
    "langgraph_tools": "team.embed",
    "read_rounds": "team.record",
}

__all__ = [
    "Agent",
    "AgentEvent",
    "AgentRun",
    "Approval",
    "ApprovalAsked",
    "BudgetLeft",
    "Conversation",
    "Conversations",
    "Counted",
    "Decided",
    "Done",
    "Executed",
    "Hooks",
    "Judged",
    "Reasoning",
    "Recruited",
    "Result",
    "Round",
    "Rule",
    "Spoken",
    "Team",
    "Usage",
    "Voted",
    "langgraph_tools",
    "read_rounds",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: the command line starts without any of this."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

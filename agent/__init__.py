"""What people and programs talk to: `Agent`, conversations and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent
    from .conversation import Conversation
    from .result import AgentEvent, Done, Result, Usage

__all__ = ["Agent", "AgentEvent", "Conversation", "Done", "Result", "Usage"]

_HOME = {"Agent": "agent", "Conversation": "conversation"}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: the command line starts without any of this."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME.get(name, 'result')}", __name__), name)

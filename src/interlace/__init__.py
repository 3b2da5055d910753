"""interlace: tool-integrated reasoning, from a chat to reinforcement learning, on one engine.

The names below are loaded when they are first used, so that importing this costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent import Agent, Approval, Conversations, Hooks, Team
    from .rollout.budget import Budget
    from .rollout.engines.base import Sampling
    from .rollout.limits import Limits
    from .rollout.task import Task
    from .tools import PythonTool, SearchTool, SqlTool, Tool, ToolResult, tool
    from .tools.errors import InterlaceError
    from .train.evaluation import Evaluation, evaluate, evaluate_async

__all__ = [
    "Agent",
    "Approval",
    "Budget",
    "Conversations",
    "Evaluation",
    "Hooks",
    "InterlaceError",
    "Limits",
    "PythonTool",
    "Sampling",
    "SearchTool",
    "SqlTool",
    "Task",
    "Team",
    "Tool",
    "ToolResult",
    "evaluate",
    "evaluate_async",
    "tool",
]

_HOMES = {
    "Agent": "agent",
    "Approval": "agent",
    "Budget": "rollout.budget",
    "Conversations": "agent",
    "Evaluation": "train.evaluation",
    "Hooks": "agent",
    "InterlaceError": "tools.errors",
    "Limits": "rollout.limits",
    "PythonTool": "tools",
    "Sampling": "rollout.engines.base",
    "SearchTool": "tools",
    "SqlTool": "tools",
    "Task": "rollout.task",
    "Team": "agent",
    "Tool": "tools",
    "ToolResult": "tools",
    "evaluate": "train.evaluation",
    "evaluate_async": "train.evaluation",
    "tool": "tools",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module 'interlace' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Python, SQL, search and user functions behind one small protocol. Knows nothing of models."""

from .base import (
    Artifact,
    Budgeted,
    ClosableSession,
    ErrorKind,
    LiveSession,
    PureTool,
    StartedSession,
    StatelessSession,
    Tool,
    ToolResult,
    ToolSession,
    Unforkable,
)
from .function import FunctionTool, tool
from .python import PythonTool
from .search import SearchTool
from .sql import SqlTool

__all__ = [
    "Artifact",
    "Budgeted",
    "ClosableSession",
    "ErrorKind",
    "FunctionTool",
    "LiveSession",
    "PureTool",
    "PythonTool",
    "SearchTool",
    "SqlTool",
    "StartedSession",
    "StatelessSession",
    "Tool",
    "ToolResult",
    "ToolSession",
    "Unforkable",
    "tool",
]

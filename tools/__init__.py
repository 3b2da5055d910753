"""Python, SQL, search and user functions behind one small protocol. Knows nothing of models."""

from .base import (
    Artifact,
    Budgeted,
    ErrorKind,
    LiveSession,
    PureTool,
    StartedSession,
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
    "ErrorKind",
    "FunctionTool",
    "LiveSession",
    "PureTool",
    "PythonTool",
    "SearchTool",
    "SqlTool",
    "StartedSession",
    "Tool",
    "ToolResult",
    "ToolSession",
    "Unforkable",
    "tool",
]

"""Python, SQL, search and user functions behind one small protocol. Knows nothing of models."""

from .base import Artifact, ErrorKind, Tool, ToolResult, ToolSession, Unforkable
from .function import FunctionTool, tool
from .python import PythonTool
from .search import SearchTool
from .sql import SqlTool

__all__ = [
    "Artifact",
    "ErrorKind",
    "FunctionTool",
    "PythonTool",
    "SearchTool",
    "SqlTool",
    "Tool",
    "ToolResult",
    "ToolSession",
    "Unforkable",
    "tool",
]

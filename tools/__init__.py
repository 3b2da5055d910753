"""Python, SQL, search and user functions behind one small protocol. Knows nothing of models."""

from .base import Artifact, ErrorKind, Tool, ToolResult, ToolSession, Unforkable

__all__ = ["Artifact", "ErrorKind", "Tool", "ToolResult", "ToolSession", "Unforkable"]

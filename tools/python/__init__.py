"""Python for a model: a stateful interpreter for each trajectory."""

from .backend import SessionLimits
from .tool import PythonSession, PythonTool

__all__ = ["PythonSession", "PythonTool", "SessionLimits"]

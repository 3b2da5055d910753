"""Python for a model: a stateful interpreter for each trajectory."""

from .backend import Limits
from .tool import PythonSession, PythonTool

__all__ = ["Limits", "PythonSession", "PythonTool"]

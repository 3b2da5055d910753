"""Python for a model: a stateful interpreter for each trajectory."""

from .tool import PythonTool

__all__ = ["PythonTool"]

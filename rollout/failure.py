"""Failures on our side, in one sentence."""

from ..tools.errors import InterlaceError
from .engines.base import EngineError

__all__ = ["ToolFailed", "reason"]


class ToolFailed(Exception):
    """A tool failed on our side: the trajectory ends, and the policy is not to blame."""


def reason(error: Exception) -> str:
    """The failure in one sentence; our own errors say it themselves."""
    ours = isinstance(error, InterlaceError | EngineError | ToolFailed)
    return str(error) if ours else f"{type(error).__name__}: {error}".rstrip(": ")

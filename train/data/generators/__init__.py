"""Tasks made up on demand, each with an exact checker: for the nano policy, tests and demos."""

from .arithmetic import Arithmetic, check

__all__ = ["Arithmetic", "check"]

"""The type of a solver of the nano policy's tasks, and how often demonstrations show each thing."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from interlace.rollout.task import Task
from interlace.tools import ToolSession
from interlace.train.coldstart.base import Reply

__all__ = ["Shares", "Solver"]


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of demonstrations that show each thing."""

    no_tool_offered: float = 0.05
    failed_attempt: float = 0.12
    altered: float = 0.25
    """Results that are not the tool's own; the answer follows them."""
    outage: float = 0.02
    """The tool is out of order; the answer is then the best guess there is."""
    needless_call: float = 0.1
    """Calls on problems that need none."""
    two_calls: float = 0.5
    """Problems of two steps that take a call for each, the second with what the first gave."""
    several_tools: float = 0.2
    """Conversations that offer more tools than one, and may ask for all of them."""


Solver: TypeAlias = Callable[
    [Task, str, ToolSession | None, random.Random, Shares], Awaitable[Reply]
]
"""Solves a task in a format with a tool's session; without one, as well as that goes."""

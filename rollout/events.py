"""The events of a trajectory, as they happen. For screens and programs; records are elsewhere."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from .trajectory import CallRecord, StopReason

__all__ = [
    "CallFinished",
    "CallOutput",
    "CallStarted",
    "Event",
    "Finished",
    "Listener",
    "Notice",
    "PolicyText",
]

from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class PolicyText:
    """The policy wrote `text` (`tokens` tokens of it)."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call is being run."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CallOutput:
    """A call that still runs showed `text`. Raw: it is untrusted, and `CallFinished` has it all."""

    tool: str
    text: str


@dataclass(frozen=True, slots=True)
class CallFinished:
    """A call came back, or was refused."""

    call: CallRecord


@dataclass(frozen=True, slots=True)
class Notice:
    """We told the model something."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The trajectory is over."""

    stop: StopReason
    answer: str | None


Event: TypeAlias = PolicyText | CallStarted | CallOutput | CallFinished | Notice | Finished
Listener: TypeAlias = Callable[[Event], None]

"""The limits of one trajectory, as one value, checked in one place (the loop)."""

from dataclasses import dataclass

__all__ = ["EARLIER_NAMES", "Limits"]

EARLIER_NAMES = {
    "turns": "max_turns",
    "calls": "max_calls",
    "response_tokens": "max_tokens",
    "tool_output_tokens": "max_tool_tokens",
    "call_seconds": "call_timeout",
    "seconds": "timeout",
}
"""The fields by the names they have in older records of runs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one question may use.

    Where turns, calls or tokens come to their end, a notice after the results of a turn's calls
    tells the model; before its first results it is told nothing.
    """

    max_turns: int = 16
    """Times the policy may speak; the last one is announced, unless it is the first."""
    max_calls: int = 16
    """Tool calls that are answered, those with bad arguments or of no tool included; further ones
    are refused visibly. The last one is announced, and when none is left."""
    max_tokens: int = 4096
    """All tokens after the prompt, those of tools and notices included."""
    max_tool_tokens: int = 512
    """Tokens of one call's output; of a longer one the head and the tail are kept."""
    call_timeout: float = 10.0
    """Wall time of one call; the start of the tool's session before the first one is not in it."""
    timeout: float = 300.0
    """Time of the whole answer, as the clock of clock.py runs: not that of an engine's queue."""

    def __post_init__(self) -> None:
        """Refuse values with which nothing could run."""
        for name in ("max_turns", "max_tokens", "max_tool_tokens", "timeout", "call_timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if self.max_calls < 0:
            raise ValueError(f"max_calls must not be negative, got {self.max_calls!r}")

"""The limits of one trajectory, as one value, checked in one place (the loop)."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one trajectory may use. The model is told where one comes near."""

    turns: int = 16
    """Times the policy may speak; the last one is announced."""
    calls: int = 16
    """Tool calls that are run; further ones are refused visibly."""
    response_tokens: int = 4096
    """All tokens after the prompt, those of tools and notices included."""
    tool_output_tokens: int = 512
    """Tokens of one call's output; of a longer one the head and the tail are kept."""
    call_seconds: float = 10.0
    """Wall time of one call."""
    seconds: float = 300.0
    """Wall time of the whole trajectory."""

    def __post_init__(self) -> None:
        """Refuse values with which nothing could run."""
        for name in ("turns", "response_tokens", "tool_output_tokens", "call_seconds", "seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        if self.calls < 0:
            raise ValueError(f"calls must not be negative, got {self.calls!r}")

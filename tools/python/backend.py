"""The limits of a Python session."""

from dataclasses import dataclass, replace

from ..errors import UsageError

__all__ = ["Limits", "check_limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a session. Sizes are in bytes."""

    memory: int = 2_000_000_000
    """Of all its processes together."""
    processes: int = 64
    """Processes and threads."""
    disk: int = 256_000_000
    """Files, those in /tmp and /dev/shm included."""
    files: int = 20_000
    open_files: int = 256


def check_limits(limits: Limits) -> Limits:
    """The limits, if they make sense. Raises `UsageError`."""
    if limits.memory < 50_000_000 or limits.disk < 1_000_000 or limits.files < 100:
        raise UsageError("memory must be 50 MB or more, disk 1 MB or more, files 100 or more")
    if limits.processes < 4 or limits.open_files < 32:
        raise UsageError("processes must be 4 or more, open_files 32 or more")
    return replace(limits)

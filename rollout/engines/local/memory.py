"""How much memory a model may still take, and one error for having none left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["free_bytes", "one_memory_error"]

# The last is cuBLAS's and cuDNN's, where the card has no room for their own buffers.
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "_status_alloc_failed")


@contextmanager
def one_memory_error() -> Iterator[None]:
    """Raise MemoryError for each of the ways in which torch says that there is no memory left."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        text = str(error).partition("\n")[0]
        if not any(phrase in text.lower() for phrase in _PHRASES):
            import torch

            if not isinstance(error, torch.OutOfMemoryError):
                raise
        raise MemoryError(text) from error


def free_bytes(device: "torch.device") -> int | None:
    """Memory that is free on the device, in bytes; None where nobody says.

    On a CPU what the system calls available, or what is left of the process's control group.
    """
    if device.type == "cuda":
        import torch

        # What torch holds in reserve and does not use is free for it, too.
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    amounts = [amount for amount in (_available(), _left_in_group()) if amount is not None]
    return min(amounts, default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_group() -> int | None:
    """The bytes left in this process's cgroup (v2), file cache not counted, or None if unknown."""
    try:
        path = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
        group = Path("/sys/fs/cgroup") / path.lstrip("/")
        most = (group / "memory.max").read_text().strip()
        if most == "max":
            return None
        used = int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(most) - used + int(statistics.get("inactive_file", 0))
    except (OSError, ValueError):
        return None

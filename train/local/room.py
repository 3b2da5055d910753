"""Training that finds no memory, told in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...rollout.engines.local.memory import one_memory_error
from ...tools.errors import ModelError

__all__ = ["needing_memory"]


@contextmanager
def needing_memory(step: int, advice: str) -> Iterator[None]:
    """Raise ModelError with the advice where the device has no room for the update of a step."""
    try:
        with one_memory_error():
            yield
    except MemoryError as error:
        raise ModelError(
            f"there is no memory for the update of step {step} ({error}): {advice}, compute layers "
            "again or train adapters; the last checkpoint is whole"
        ) from error

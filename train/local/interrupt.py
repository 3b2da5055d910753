"""Ctrl-C and SIGTERM that wait for the end of a step."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = ["end_as_asked", "noting_signals"]


@contextmanager
def noting_signals() -> Iterator[list[int]]:
    """A list that is no longer empty once Ctrl-C was pressed or SIGTERM came (Slurm, Kubernetes):
    a step is never broken off half-way.

    A second signal acts at once, as it would have without us. Outside of the main thread signals
    are somebody else's.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return

    def note(number: int, frame: object) -> None:
        if noted:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_as_asked(noted: Sequence[int]) -> None:
    """Do what the first signal asked for, now that all is saved: nothing where none came.

    Raises KeyboardInterrupt after Ctrl-C. SIGTERM is raised again for its own handler; in a
    program that does not, it ends the process.
    """
    if signal.SIGINT in noted[:1]:
        raise KeyboardInterrupt
    for number in noted[:1]:
        signal.raise_signal(number)

"""Ctrl-C that waits for the end of a step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["noting_ctrl_c"]


@contextmanager
def noting_ctrl_c() -> Iterator[list[int]]:
    """A list that is no longer empty once Ctrl-C was pressed: a step is never broken off half-way.

    A second Ctrl-C interrupts at once. Outside of the main thread Ctrl-C is somebody else's.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def note(number: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)

"""Things that a process inherits by `os.fork` and can't use: locks that were held, threads that are
gone, processes and connections that are its parent's.
"""

import logging
import os
from collections.abc import Callable
from typing import Protocol, TypeVar
from weakref import WeakSet

__all__ = ["Forkable", "renew_in_child"]


_log = logging.getLogger(__name__)
T = TypeVar("T")


class Forkable(Protocol):
    """An object that can be used in a forked process after `after_fork`."""

    def after_fork(self) -> Callable[[], None] | None:
        """Replace what can't be shared with the parent. It runs in the child, before all else;
        what it returns runs once all others have done so.

        What is the parent's is set aside, not closed, if closing it could end it for the parent.
        """
        ...


_inherited: WeakSet[Forkable] = WeakSet()


def renew_in_child(one: Forkable) -> None:
    """Call its `after_fork` in every process that is forked while it lives."""
    _inherited.add(one)


def _renew() -> None:
    for then in [_tried(one.after_fork) for one in list(_inherited)]:
        if then is not None:
            _tried(then)


def _tried(step: Callable[[], T]) -> T | None:
    """Run a step: one that fails leaves no other object with locks that nobody holds any more."""
    try:
        return step()
    except Exception:
        _log.exception("An object can't be used in the forked process %d.", os.getpid())
        return None


os.register_at_fork(after_in_child=_renew)

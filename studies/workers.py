"""Processes that train beside each other."""

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor

__all__ = ["workers"]


def workers(count: int) -> ProcessPoolExecutor:
    """So many processes, a run at a time each. They end with the command, however it ends."""
    # Not forked: a fork would copy threads of torch in the middle of what they do.
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """Or a worker would finish its run, and begin others, when the command is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

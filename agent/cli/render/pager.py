"""A pager for long output on a terminal."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console

from .terminal import is_plain, make_console

__all__ = ["paged"]


@contextmanager
def paged() -> Iterator[Console]:
    """A console on stdout; on a terminal through `less`, which ends at once if one page is enough.

    Set `PAGER` to another program, or to `cat` for none.
    """
    less = [os.environ["PAGER"]] if os.environ.get("PAGER") else ["less", "-RFX"]
    if is_plain(sys.stdout) or less == ["cat"] or shutil.which(less[0]) is None:
        yield make_console(sys.stdout)
        return
    width = shutil.get_terminal_size().columns
    pager = subprocess.Popen(less, stdin=subprocess.PIPE, text=True, errors="backslashreplace")
    assert pager.stdin is not None
    try:
        # A reader who has seen enough closes the pipe.
        with suppress(BrokenPipeError), pager.stdin:
            yield make_console(pager.stdin, force_terminal=True, width=width)
    finally:
        while True:
            try:
                pager.wait()
                break
            except KeyboardInterrupt:  # Ctrl-C is the pager's own business
                continue

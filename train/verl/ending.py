"""Why a run ended, from the process that knows it to the one that says it."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["ENDED", "note_why"]

ENDED = "INTERLACE_VERL_ENDED"
"""The variable that names the file for it, on a disk that the nodes share."""


def note_why(sentence: str) -> None:
    """Leave a sentence for `interlace train`, which started the run; without it nothing is done."""
    file = os.environ.get(ENDED)
    if file:
        with suppress(OSError):  # it stands in the log as well
            Path(file).write_text(sentence, encoding="utf-8")

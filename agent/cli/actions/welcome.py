"""`interlace` alone: leads a new user to a first answer."""

import sys

from ..chat.session import ChatSession
from ..exits import exit_codes, run_to_end
from ..options import GuardOptions, LimitOptions, ModelOptions, OutputOptions
from .chat import converse

__all__ = ["EXAMPLE", "welcome"]

EXAMPLE = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
_WORDS = """\
interlace lets a model run Python in the middle of its thought. This is the
bundled demonstration model, nano: it loads in seconds and knows word problems
with arithmetic. Press Enter to ask it the question below, or type one of your
own.
"""
_MORE = """\
Next: `interlace chat --model smollm2` (or any Hugging Face id) for other
questions, `interlace init` for a program of your own, `interlace --help` for
everything else."""


def welcome() -> int:
    """A first chat with the bundled model; returns the exit code. For a terminal."""
    with exit_codes():
        print(_WORDS, file=sys.stderr)
        session = ChatSession(
            ModelOptions(), LimitOptions(), GuardOptions(), OutputOptions(), example=EXAMPLE
        )
        code = run_to_end(converse(session), interrupt=False)
        print(_MORE, file=sys.stderr)
    return code

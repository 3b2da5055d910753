"""`interlace` alone: whoever comes for the first time is led to an answer."""

import sys

from ..approval_options import GuardOptions
from ..exits import guarded, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions

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
    from ..chat.session import Chat
    from .chat import converse

    with guarded():
        print(_WORDS, file=sys.stderr)
        talk = Chat(
            ModelOptions(), LimitOptions(), GuardOptions(), OutputOptions(), example=EXAMPLE
        )
        code = run_to_end(converse(talk), interrupt=False)
        print(_MORE, file=sys.stderr)
    return code

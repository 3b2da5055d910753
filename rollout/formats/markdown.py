"""ToRL (arXiv 2503.23383) and STILL-3-Tool (arXiv 2503.04548): Markdown code in the thought."""

import re
from collections.abc import Sequence

from ...tools import Tool
from ..trajectory import CallRecord, FinishReason
from .alike import alike
from .base import Block, Sample
from .scan import Marks, boxed, in_python_string
from .tags import PYTHON_SAMPLE, Tagged

__all__ = ["Markdown"]

_FENCE_END = re.compile(r"^[ \t]*```[ \t]*$\n?", re.MULTILINE)


class Markdown(Tagged):
    r"""A block of Python is run, and its output follows in its own block.

    Sampling pauses where the code's fence closes; the papers pause one line later, where the model
    itself has opened the output. The text comes out the same, and what opens a result is ours.

    Example:
        >>> Markdown().parse("```python\nprint(6)\n```\n", FinishReason.STOP, ()).calls[0].arguments
        {'code': 'print(6)'}
        >>> Markdown().parse(r"It is \boxed{6}.", FinishReason.EOS, ()).answer
        '6'
    """

    name = "markdown"
    stop = ("\n```\n",)
    tool, argument = "python", "code"
    control_tags = ("```",)
    marks = Marks(
        call=re.compile(r"^[ \t]*```(?:python3?|py)[ \t]*\n", re.MULTILINE | re.IGNORECASE),
        call_end=_FENCE_END,
        result=re.compile(
            rf"^[ \t]*(?:{alike('```')}|~~~)[ \t]*{alike('output')}\b[^\n]*(?:\n|\Z)",
            re.MULTILINE,
        ),
        result_end=_FENCE_END,
    )
    what = "code block"
    blocks = tuple(
        Block(f"```{language}\n", "```", "code", "python")
        for language in ("python", "python3", "py")
    )
    sample = Sample(
        "A crate holds 4387 bolts. How many bolts are in 296 crates?",
        (
            "I multiply.\n```python\nprint(4387 * 296)\n```\n",
            "There are \\boxed{1298552} bolts.",
        ),
        ("1298552",),
        PYTHON_SAMPLE,
    )

    def system(self, tools: Sequence[Tool]) -> str:
        """How to run code (where it can be run) and how to answer."""
        if not tools:
            return "Solve the problem step by step. Put the final answer in \\boxed{}."
        return (
            "Solve the problem step by step. Where it helps, write Python code that prints what "
            "you want to know:\n```python\nprint(1 + 1)\n```\nIt is run for you, and its output "
            "follows in a block that begins with ```output. Then think on. Put the final answer in "
            "\\boxed{}."
        )

    def in_string(self, body: str) -> bool:
        """Inside a Python string."""
        return in_python_string(body)

    def read(self, body: str) -> str:
        """The code, as it is."""
        return body.strip("\n").rstrip()

    def write_block(self, argument: str) -> str:
        """A block of Python."""
        return f"```python\n{argument}\n```\n"

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A thought and the answer in a box."""
        return f"{self.write_thought(thought)}\\boxed{{{answer}}}"

    def answer(self, plain: str, finish: FinishReason) -> str | None:
        """The content of the last box once the turn is over, else None."""
        return None if finish is FinishReason.STOP else boxed(plain) or None

    def render(self, calls: Sequence[CallRecord]) -> str:
        """A block of output for each call."""
        return "".join(f"```output\n{call.output}\n```\n" for call in calls)

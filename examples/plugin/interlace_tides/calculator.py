"""A format: code between tags of its own."""

from collections.abc import Sequence

from interlace.rollout.formats import Sample
from interlace.rollout.formats.tags import Tagged
from interlace.tools import Tool

__all__ = ["Calculator"]


class Calculator(Tagged):
    """Python between `<calc>` and `</calc>`; what it prints comes back between `<equals>` tags."""

    name = "calculator"
    stop = ("</calc>", "</answer>")
    tool, argument, language = "python", "code", "python"
    call_tag, result_tag, answer_tag = "calc", "equals", "answer"
    sample = Sample(
        "What is 17 * 23?",
        ("<calc>print(17 * 23)</calc>", "<answer>391</answer>"),
        ("391",),
        ("python", "code", "Runs Python code; what it prints comes back."),
    )

    def system(self, tools: Sequence[Tool]) -> str:
        """How to run code, where it can be run, and how to answer."""
        how = "Write <calc>print(2 + 2)</calc>; what it prints comes back. " if tools else ""
        return f"{how}Give the answer as <answer>4</answer>."

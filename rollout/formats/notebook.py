"""Datarus (arXiv 2508.13382): steps of a notebook, or one compact reflection."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...tools import Tool
from ..trajectory import FinishReason
from .base import Block, Call, Sample
from .scan import boxed, in_python_string, last_block, unfenced, without_thoughts
from .tags import PYTHON_SAMPLE, Tagged

__all__ = ["Notebook"]


class Notebook(Tagged):
    r"""Two modes, told apart by whether there are tools.

    With a Python tool, the agentic mode: steps of a thought, an action and its input, with what
    came back as an observation, until an analysis ends. Without tools, the reflection mode:
    reasoning in <think>, then the answer.

    Example:
        >>> step = "<step><action>python</action><action_input>1 + 1</action_input>"
        >>> Notebook().parse(step, FinishReason.STOP, ()).calls[0].arguments
        {'code': '1 + 1'}
    """

    name = "notebook"
    stop = ("</action_input>", "</stop_analysis>")
    tool, argument = "python", "code"
    call_tag, result_tag, answer_tag = "action_input", "observation", "answer"
    more_tags = ("step", "thought", "action", "stop_analysis", "think")
    # Its tool is named before the input, which may be another's than Python: shown once it is read.
    blocks = (
        Block("<action_input>", "</action_input>", "call", "python"),
        Block("<answer>", "</answer>", "answer"),
    )
    sample = Sample(
        "A crate holds 4387 bolts. How many bolts are in 296 crates?",
        (
            "<step>\n<thought>I multiply.</thought>\n<action>python</action>\n"
            "<action_input>\nprint(4387 * 296)\n</action_input>",
            "</step>\n<stop_analysis>\n<thought>That is the number.</thought>\n"
            "<answer>\\boxed{1298552}</answer>\n</stop_analysis>",
        ),
        ("1298552",),
        PYTHON_SAMPLE,
    )

    def system(self, tools: Sequence[Tool]) -> str:
        """How to write steps and how to end, or, without tools, how to reflect."""
        if not tools:
            return (
                "Solve the problem. Reason briefly between <think> and </think>, then give the "
                "answer: <answer>\\boxed{answer}</answer>"
            )
        return (
            "Solve the problem in steps, as in a notebook. A step is a thought and code to run:\n"
            "<step>\n<thought>...</thought>\n<action>python</action>\n"
            "<action_input>\nprint(1 + 1)\n</action_input>\n"
            "Its output comes back between <observation> and </observation>; then write </step>. "
            "Variables stay. Once you know the answer:\n<stop_analysis>\n<thought>...</thought>\n"
            "<answer>\\boxed{answer}</answer>\n</stop_analysis>"
        )

    def in_string(self, body: str) -> bool:
        """Inside a Python string."""
        return in_python_string(body)

    def read(self, body: str) -> str:
        """The code, without a fence."""
        return unfenced(body)

    def write_call(
        self, tool: str, arguments: Mapping[str, Any], *, thought: str = "", after: bool = False
    ) -> str:
        """A step: thought, action and its input; after another step, that one's end first.

        Raises UsageError for another tool or other arguments.
        """
        previous = "</step>\n" if after else ""
        return previous + super().write_call(tool, arguments, thought=thought)

    def write_block(self, argument: str) -> str:
        """An action and its input."""
        return f"<action>python</action>\n<action_input>\n{argument}\n</action_input>"

    def write_thought(self, thought: str) -> str:
        """The beginning of a step."""
        return f"<step>\n<thought>{thought}</thought>\n"

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """The end of the analysis with the answer in a box; without steps, a reflection."""
        block = f"<answer>\\boxed{{{answer}}}</answer>"
        if not after:
            return f"<think>{thought}</think>\n{block}"
        return f"</step>\n<stop_analysis>\n<thought>{thought}</thought>\n{block}\n</stop_analysis>"

    def call(self, body: str, lead: str) -> Call:
        """Python, or whatever else the action names (which then is no tool)."""
        action = last_block(lead, "action", final=False)
        if action and "python" not in action.casefold():
            return Call(action, {self.argument: self.read(body)})
        return super().call(body, lead)

    def outside_thoughts(self, plain: str) -> str:
        """Outside of a step's thoughts and a reflection's."""
        steps = without_thoughts(plain, "<thought>", "</thought>")
        return super().outside_thoughts(steps)

    def answer(self, plain: str, finish: FinishReason) -> str | None:
        """The answer of the block that ends the analysis; of a reflection, once it has ended."""
        final = finish is FinishReason.EOS
        block = last_block(plain, "stop_analysis", final=final)
        if block is None and finish is FinishReason.STOP:
            return None
        block = plain if block is None else block
        answer = last_block(block, self.answer_tag, final=final)
        if answer is None:
            return boxed(block) or None
        found = boxed(answer)
        return (answer if found is None else found) or None

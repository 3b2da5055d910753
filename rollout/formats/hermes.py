"""The JSON tool calls of Hermes, Qwen and many other chat templates."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...tools import Tool
from .base import Call, Sample
from .tool_calls import CallBlock, MarkedCalls, dangles, left_over, read_call, read_json

__all__ = ["Hermes", "JsonCalls"]

_FENCE = re.compile(r"\s*```\w*[ \t]*\n")
_SEPARATOR = re.compile(r"\s*[;,]?\s*(?=[{\[])")


class JsonCalls(MarkedCalls):
    """Calls as JSON objects between two marks: one, several, or a list of them."""

    closing: ClassVar[re.Pattern[str] | None]
    """The mark behind the calls. Where it is missing, they end with their JSON; None: always."""

    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls of all JSON values up to the closing mark."""
        calls: list[Call] = []
        fence = _FENCE.match(text, mark.end())
        position = fence.end() if fence else mark.end()
        while not calls or _SEPARATOR.match(text, position):
            separator = _SEPARATOR.match(text, position) if calls else None
            found = read_json(text, separator.end() if separator else position)
            if isinstance(found, str):
                return self._broken(calls, text, position, found, final=final)
            value, position = found
            calls += [read_call(each) for each in (value if isinstance(value, list) else [value])]
            if isinstance(value, list) and not value:
                calls.append(read_call(value))
        if fence and (close := re.compile(r"\s*```").match(text, position)):
            position = close.end()
        if self.closing is None:
            another = self.opening.search(text, position)
            end = another.start() if another else len(text)
            over = text[position:end]
            return (left_over(calls, over), end) if dangles(over) else (calls, position)
        closing = self.closing.search(text, position)
        if closing is None:
            return calls, position
        between = text[position : closing.start()]
        if between.strip():
            if self.opening.search(between):  # it closes another block
                return calls, position
            calls = left_over(calls, between)
        return calls, closing.end()

    def _broken(
        self, calls: list[Call], text: str, position: int, reason: str, *, final: bool
    ) -> CallBlock:
        """A block whose JSON can't be read: up to its closing mark, or the next block."""
        closing = None if self.closing is None else self.closing.search(text, position)
        marks = [closing, self.opening.search(text, position)]
        nearest = min((mark for mark in marks if mark), key=lambda mark: mark.start(), default=None)
        end = len(text) if nearest is None else nearest.start()
        if nearest is not None and nearest is marks[0]:
            end = nearest.end()
        if nearest is None and not final:  # a limit broke it off: nobody was asked for anything
            return calls, end
        return [*calls, Call("", None, f"The tool call is not valid JSON: {reason}.")], end


class Hermes(JsonCalls):
    r"""A JSON object in `<tool_call>` tags.

    Example:
        >>> from interlace.rollout.trajectory import FinishReason
        >>> text = '<tool_call>{"name": "python", "arguments": {"code": "1 + 1"}}</tool_call>'
        >>> Hermes().parse(text, FinishReason.EOS, ()).calls[0].arguments
        {'code': '1 + 1'}
    """

    name = "hermes"
    opening = re.compile("<tool_call>")
    closing = re.compile(r"\s*</tool_call>")
    tags = ("<tool_call>", "</tool_call>", "<tools>", "</tools>")
    told = (
        "To call one, write its name and arguments as JSON between tags:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
    )
    sample = Sample(
        "A crate holds 4387 bolts. How many bolts are in 296 crates?",
        (
            'I multiply.\n<tool_call>\n{"name": "python", "arguments": '
            '{"code": "print(4387 * 296)"}}\n</tool_call>',
            "There are \\boxed{1298552} bolts.",
        ),
        ("1298552",),
        ("python", "code", "Runs Python code; what it prints comes back."),
    )

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A JSON object between tags."""
        written = json.dumps({"name": tool, "arguments": dict(arguments)})
        return f"<tool_call>\n{written}\n</tool_call>"

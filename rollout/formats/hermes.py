"""The JSON tool calls of Hermes, Qwen and many other chat templates."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...tools import Tool
from .base import Call, Sample
from .tool_calls import CallBlock, JsonFault, MarkedCalls, read_call, read_json

__all__ = ["Hermes", "JsonCalls"]

_FENCE = re.compile(r"\s*```\w*[ \t]*\n")
_FENCE_END = re.compile(r"\s*```")
_SEPARATOR = re.compile(r"\s*[;,]?\s*(?=\{|\[\s*[{\]])")


class JsonCalls(MarkedCalls):
    """Calls as JSON objects between two marks: one, several, or a list of them."""

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
            if isinstance(found, JsonFault):
                problem = Call("", None, f"The tool call is not valid JSON: {found.reason}.")
                cut = not final and found.cut
                return self.broken_block(calls, text, position, problem, final=final, cut=cut)
            value, position = found
            calls += [read_call(each) for each in (value if isinstance(value, list) else [value])]
            if isinstance(value, list) and not value:
                calls.append(read_call(value))
        if fence and (close := _FENCE_END.match(text, position)):
            position = close.end()
        return self.whole_block(calls, text, position)


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
    closing = re.compile("</tool_call>")
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

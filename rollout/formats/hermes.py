"""The JSON tool calls of Hermes, Qwen and many other chat templates."""

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from ...tools import Tool
from ..trajectory import CallRecord, Finish
from .base import Call, Parsed
from .scan import boxed

__all__ = ["Hermes", "tool_schema"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FORGED = re.compile(r"<tool_response>.*?(?:</tool_response>|(?=<tool_call>)|\Z)", re.DOTALL)
_CLOSING = re.compile(r"\s*</tool_call>")
# Models write line breaks into JSON strings as they are.
_JSON = json.JSONDecoder(strict=False)


class Hermes:
    r"""Any tool, called with a JSON object; results come as messages of their own.

    The final answer is what the last `\boxed{}` of a turn without calls holds, or the turn's whole
    text. Thoughts (`<think>`) hold neither calls nor answers.

    Example:
        >>> text = '<tool_call>{"name": "python", "arguments": {"code": "1 + 1"}}</tool_call>'
        >>> Hermes().parse(text, Finish.EOS, ()).calls
        (Call(tool='python', arguments={'code': '1 + 1'}, problem=None),)
    """

    name: ClassVar[str] = "hermes"
    inline: ClassVar[bool] = False
    stop: ClassVar[tuple[str, ...]] = ()
    control_tags: ClassVar[tuple[str, ...]] = (
        _OPEN,
        _CLOSE,
        "<tool_response>",
        "</tool_response>",
        "<tools>",
        "</tools>",
        "<think>",
        "</think>",
    )

    def check(self, tools: Sequence[Tool]) -> None:
        """Any tool can be called."""

    def system(self, tools: Sequence[Tool]) -> str:
        """How to answer, and, for templates that don't say it themselves, how to call tools."""
        answer = "Put the final answer in \\boxed{}."
        if not tools:
            return f"Solve the problem step by step. {answer}"
        listed = "\n".join(json.dumps(tool_schema(tool), ensure_ascii=False) for tool in tools)
        return (
            "Solve the problem step by step. You may call these functions:\n"
            f"<tools>\n{listed}\n</tools>\n"
            "To call one, write its name and arguments as JSON between tags:\n"
            f'{_OPEN}\n{{"name": "...", "arguments": {{...}}}}\n{_CLOSE}\n'
            f"Its result comes in the next message. {answer}"
        )

    def parse(self, text: str, finish: Finish, tools: Sequence[Tool]) -> Parsed:
        """Read one turn: its calls in order, or, where it has none, its answer."""
        text = without_thinking(text)
        plain, count = _FORGED.subn("\n", text)
        calls, rest = _calls(plain, final=finish is Finish.EOS)
        answer = None
        if not calls:
            answer = boxed(rest)
            if not answer and finish in (Finish.EOS, Finish.STOP):
                answer = rest.strip()
        return Parsed(tuple(calls), answer or None, bool(count))

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The outputs alone: what stands around them is the template's."""
        return "\n".join(call.output for call in calls)


def without_thinking(text: str) -> str:
    """What is said outside of thoughts.

    A template may have opened the thought, so that only its end is in the text. A thought that is
    never closed ends at the first call.
    """
    head, end, tail = text.partition("</think>")
    if end and "<think>" not in head:
        text = tail
    parts: list[str] = []
    while True:
        said, opened, text = text.partition("<think>")
        parts.append(said)
        if not opened:
            return "\n".join(parts)
        _, closed, tail = text.partition("</think>")
        if not closed:
            call = text.find(_OPEN)
            tail = text[call:].replace("<think>", "") if call >= 0 else ""
        text = tail


def _calls(text: str, *, final: bool) -> tuple[list[Call], str]:
    """All calls in the text, and the text without them."""
    calls: list[Call] = []
    rest: list[str] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        rest.append(text[position:start])
        start += len(_OPEN)
        start += len(text[start:]) - len(text[start:].lstrip())
        try:
            value, position = _JSON.raw_decode(text, start)
            calls.append(_call(value))
            if closing := _CLOSING.match(text, position):
                position = closing.end()
        except (ValueError, RecursionError) as error:
            ends = [end for tag in (_CLOSE, _OPEN) if (end := text.find(tag, start)) >= 0]
            position = min(ends, default=len(text))
            if text.startswith(_CLOSE, position):
                position += len(_CLOSE)
            if ends or final:  # else a limit broke it off: nobody was asked for anything
                why = getattr(error, "msg", "nested too deeply or a number too long")
                calls.append(Call("", None, f"The tool call is not valid JSON: {why}."))
    return calls, "\n".join([*rest, text[position:]])


def _call(value: object) -> Call:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Call("", None, 'A tool call is a JSON object with "name" and "arguments".')
    name, arguments = value["name"], value.get("arguments", {})
    if isinstance(arguments, str):  # an object written as a string, as some APIs have it
        try:
            arguments = _JSON.decode(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        return Call(name, None, 'The "arguments" of a tool call are a JSON object.')
    try:  # what a record can't hold can't be passed on
        json.dumps([name, arguments], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return Call(
            "", None, "The tool call holds a number or a character that can't be passed on."
        )
    return Call(name, arguments)


def tool_schema(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates take it: name, description and the JSON schema of its arguments."""
    parameters = _tidy(tool.arguments.model_json_schema())
    parameters.pop("description", None)  # the arguments class's own docstring
    parameters.pop("title", None)
    parameters.setdefault("properties", {})
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": parameters,
        },
    }


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the titles that pydantic gives each field."""
    tidy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs") and isinstance(value, dict):
            tidy[key] = {name: _tidy(field) for name, field in value.items()}
        elif key == "additionalProperties" and value is False:
            continue
        elif isinstance(value, dict) and key != "default":
            tidy[key] = _tidy(value)
        elif isinstance(value, list) and key in ("anyOf", "allOf", "oneOf", "prefixItems"):
            tidy[key] = [_tidy(item) for item in value]
        else:
            tidy[key] = value
    return tidy

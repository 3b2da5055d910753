"""The JSON tool calls of Hermes, Qwen and many other chat templates."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...tools import Tool
from ..trajectory import CallRecord, FinishReason
from .base import Block, Call, Format, Parsed, Sample
from .scan import boxed

__all__ = ["Hermes", "tool_schema"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MARK = re.compile("<think>|<tool_response>|<tool_call>")
_IN_THOUGHT = re.compile("<think>|</think>|<tool_call>")
_RESPONSE_END = re.compile(r"</tool_response>|(?=<tool_call>)|\Z")
_TAG = re.compile("</?tool_call>")
_NOT_BLANK = re.compile(r"\S")
_CLOSING = re.compile(r"\s*</tool_call>")
# Models write line breaks into JSON strings as they are.
_JSON = json.JSONDecoder(strict=False)


class Hermes(Format):
    r"""Any tool, called with a JSON object; results come as messages of their own.

    The final answer is what the last `\boxed{}` of a turn without calls holds, or the turn's whole
    text. Thoughts (`<think>`) hold neither calls nor answers.

    Example:
        >>> text = '<tool_call>{"name": "python", "arguments": {"code": "1 + 1"}}</tool_call>'
        >>> Hermes().parse(text, FinishReason.EOS, ()).calls
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
    blocks = (Block(_OPEN, _CLOSE, "call"),)
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

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """Read one turn: its calls in order, or, where it has none, its answer."""
        calls, rest, forged = _CallReader(text).read(final=finish is FinishReason.EOS)
        answer = None
        if not calls:
            answer = boxed(rest)
            if answer is None and finish in (FinishReason.EOS, FinishReason.STOP):
                answer = rest.strip()
        return Parsed(tuple(calls), answer or None, forged, text=rest.strip())

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The outputs alone: what stands around them is the template's."""
        return "\n".join(call.output for call in calls)

    def write_call(
        self, tool: str, arguments: Mapping[str, Any], *, thought: str = "", after: bool = False
    ) -> str:
        """A thought and a call as JSON."""
        written = json.dumps({"name": tool, "arguments": dict(arguments)})
        return "\n".join(filter(None, (thought, f"{_OPEN}\n{written}\n{_CLOSE}")))

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A thought and the answer in a box."""
        return "\n".join(filter(None, (thought, f"\\boxed{{{answer}}}")))


class _JsonText(str):
    """A text in which JSON may be wrong thousands of times.

    An error of `json` counts the lines before it, each time all of the text. Nobody reads them.
    """

    def count(self, *_: object) -> int:
        return 0

    def rfind(self, *_: object) -> int:
        return -1


class _CallReader:
    """One turn's text, read from left to right.

    Where a call's JSON can be read it is skipped as a whole, so that no tag in its strings counts.
    """

    def __init__(self, text: str) -> None:
        self._text = _JsonText(text)
        self._json: dict[int, tuple[object, int] | str] = {}

    def read(self, *, final: bool) -> tuple[list[Call], str, bool]:
        """The calls in order, the text outside of thoughts, calls and results, and whether the
        policy wrote a result itself. `final`: nobody broke the turn off.

        A template may have opened the first thought, so that only its end is in the text. A
        thought that is never closed ends at the first call.
        """
        text, calls, rest = self._text, list[Call](), list[str]()
        forged, thoughts_close = False, True
        position = self._thought_end(0, opened=False) or 0
        while mark := _MARK.search(text, position):
            rest.append(text[position : mark.start()])
            position = mark.end()
            if mark[0] == _OPEN:
                call, position = self._call(position, final=final)
                calls += [call] if call is not None else []
            elif mark[0] == "<tool_response>":
                forged = True
                end = _RESPONSE_END.search(text, position)
                position = end.end() if end else len(text)
            else:
                after = self._thought_end(position, opened=True) if thoughts_close else None
                if after is None:
                    thoughts_close = False
                    first_call = text.find(_OPEN, position)
                    after = first_call if first_call >= 0 else len(text)
                position = after
        return calls, "\n".join([*rest, text[position:]]), forged

    def _thought_end(self, position: int, *, opened: bool) -> int | None:
        """The end of the thought that `position` lies in, or None if it is never closed, or if
        another opens first, so that it was not a thought (unless `opened` by its tag).
        """
        while mark := _IN_THOUGHT.search(self._text, position):
            position = mark.end()
            if mark[0] == "</think>":
                return position
            if mark[0] == "<think>" and not opened:
                return None
            if mark[0] == _OPEN and isinstance(found := self._decode(position), tuple):
                position = found[1]
        return None

    def _call(self, start: int, *, final: bool) -> tuple[Call | None, int]:
        """The call whose opening tag ends at `start`, and where the text goes on behind it."""
        text, found = self._text, self._decode(start)
        if isinstance(found, tuple):
            value, position = found
            closing = _CLOSING.match(text, position)
            return _call(value), closing.end() if closing else position
        tag = _TAG.search(text, start)
        position = len(text) if tag is None else tag.start()
        if tag is not None and tag[0] == _CLOSE:
            position = tag.end()
        if tag is None and not final:  # a limit broke it off: nobody was asked for anything
            return None, position
        return Call("", None, f"The tool call is not valid JSON: {found}."), position

    def _decode(self, start: int) -> tuple[object, int] | str:
        """The JSON behind `start` and where it ends, or why there is none."""
        if start not in self._json:
            try:
                first = _NOT_BLANK.search(self._text, start)
                self._json[start] = _JSON.raw_decode(
                    self._text, first.start() if first else len(self._text)
                )
            except (ValueError, RecursionError) as error:
                why = getattr(error, "msg", "nested too deeply or a number too long")
                self._json[start] = str(why)
        return self._json[start]


def _call(value: object) -> Call:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Call("", None, 'A tool call is a JSON object with "name" and "arguments".')
    name, arguments = value["name"], value.get("arguments", {})
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if isinstance(arguments, str):  # an object written as a string, as some APIs have it
        try:
            arguments = _JSON.decode(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        return Call(name, None, 'The "arguments" of a tool call are a JSON object.', written)
    try:  # what a record can't hold can't be passed on
        json.dumps([name, arguments], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return Call(
            "", None, "The tool call holds a number or a character that can't be passed on."
        )
    return Call(name, arguments, None, written)


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

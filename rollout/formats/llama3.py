"""Calls of Llama 3: bare JSON, or Python syntax, often with no mark at all before them."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...tools import Tool
from .base import Block, Call
from .tool_calls import (
    CallBlock,
    JsonFault,
    MarkedCalls,
    left_over,
    read_arguments,
    read_call,
    read_json,
)

__all__ = ["Llama3", "PythonCalls", "read_python_calls"]

_TAG = "<|python_tag|>"
_SEPARATOR = re.compile(r"\s*[;,]?\s*(?=\{)")
_BLANK = re.compile(r"\s*")
_END = re.compile(r"\s*(?:<\|(?:eom|eot)_id\|>)?\s*\Z")


class Llama3(MarkedCalls):
    """A JSON object with the key `parameters`, at the beginning of a line; `;` between several.

    After `<|python_tag|>` stands such JSON, or Python code itself. A list of calls in Python's
    syntax, as Llama 3.2 and 4 write it, is read as syntax and never evaluated.
    """

    name = "llama3"
    opening = re.compile(
        r"<\|python_tag\|>|(?:\A|(?<=\n)|(?<=</think>))[ \t]*"
        r'(?:(?=\{\s*"(?:name|type|function)"\s*:)|(?=\[\s*[A-Za-z_][\w.]*\())'
    )
    tags = (_TAG,)
    result = ("<|start_header_id|>ipython<|end_header_id|>", "<|eot_id|>")
    ends = ("<|eot_id|>", "<|eom_id|>")

    @property
    def blocks(self) -> tuple[Block, ...]:
        """None: nothing marks a call while it streams."""
        return ()

    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls; None for JSON, or a list, that is no call of a tool."""
        tagged = mark[0].endswith(_TAG)
        blank = _BLANK.match(text, mark.end())
        start = blank.end() if blank else mark.end()
        if text.startswith("{", start):
            return self._json(text, start, tools, tagged=tagged, final=final)
        if text.startswith("[", start):
            read = read_python_calls(text, start)
            if isinstance(read, tuple):
                calls, end = read
                if tagged or _known(calls, tools) or all(call.arguments for call in calls):
                    rest = _END.match(text, end)
                    over = left_over(calls, text[end:]) if tagged and not rest else calls
                    return over, len(text) if tagged or rest else end
            elif not tagged and not final:
                return None
            elif not tagged:
                named = re.match(r"\[\s*([\w.]+)\(", text[start:])
                if named and any(tool.name == named[1] for tool in tools):
                    return [Call(named[1], None, read)], len(text)
                return None
        if not tagged:
            return None
        if not final:  # a limit broke it off: nobody was asked for anything
            return [], len(text)
        code = text[start:].rstrip()
        read = read_python_calls(f"[{code}]", 0) if ".call(" in code else ""
        if isinstance(read, tuple) and all(call.tool.endswith(".call") for call in read[0]):
            built_in = [
                Call(call.tool.removesuffix(".call"), call.arguments, call.problem)
                for call in read[0]
            ]
            return built_in, len(text)
        return [Call("python", {"code": code}) if code else read_call(None)], len(text)

    def _json(
        self, text: str, start: int, tools: Sequence[Tool], *, tagged: bool, final: bool
    ) -> CallBlock | None:
        """The JSON objects from `start` on."""
        calls: list[Call] = []
        position = start
        while not calls or (separator := _SEPARATOR.match(text, position)):
            found = read_json(text, separator.end() if calls and separator else position)
            if isinstance(found, JsonFault):
                if not final:
                    return calls, len(text)
                problem = f"The tool call is not valid JSON: {found.reason}."
                return [*calls, Call("", None, problem)], len(text)
            value, position = found
            if not calls and not tagged and not _is_call(value, tools):
                return None
            calls.append(read_call(value))
        return self.whole_block(calls, text, position)

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A JSON object."""
        return json.dumps({"name": tool, "parameters": dict(arguments)}, ensure_ascii=False)


class PythonCalls(Llama3):
    """Llama 3.2, Llama 4: a list of calls in Python's syntax. The JSON of `llama3` is read too."""

    name = "llama3_python"

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A list of one call."""
        values = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        return f"[{tool}({values})]"


def _is_call(value: object, tools: Sequence[Tool]) -> bool:
    """True for a call; False for JSON that a model says to people."""
    if not isinstance(value, dict):
        return False
    inner = value["function"] if isinstance(value.get("function"), dict) else value
    if not isinstance(inner.get("name"), str):
        return False
    known = any(tool.name == inner["name"] for tool in tools)
    return known or "parameters" in inner or "arguments" in inner


def _known(calls: Sequence[Call], tools: Sequence[Tool]) -> bool:
    """True if one of the calls, or all where there are no tools, is of a tool that there is."""
    return not tools or any(call.tool == tool.name for call in calls for tool in tools)


_CALL_NAME = re.compile(r"[A-Za-z_][\w.]*")


def read_python_calls(text: str, start: int) -> tuple[list[Call], int] | str:
    """The list of calls in Python's syntax at `start`, and where it ends; or why there is none.

    Only constants, lists and dicts may be arguments. Nothing is evaluated.
    """
    end = _bracket_end(text, start)
    if end is None:
        return "The list of calls is not closed."
    try:
        parsed = ast.parse(text[start:end].strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"The list of calls is no Python: {getattr(error, 'msg', error)}."
    if not isinstance(parsed, ast.List) or not parsed.elts:
        return "A list of calls holds calls: [name(key=value)]."
    calls = []
    for node in parsed.elts:
        if not isinstance(node, ast.Call):
            return "A list of calls holds calls: [name(key=value)]."
        name = ast.unparse(node.func)
        if not _CALL_NAME.fullmatch(name):
            return "A list of calls holds calls: [name(key=value)]."
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            calls.append(Call(name, None, "Each argument of a call needs its name: key=value."))
            continue
        try:
            arguments = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        except (ValueError, TypeError, RecursionError, MemoryError):
            calls.append(Call(name, None, "The arguments of a call are values, not expressions."))
            continue
        if len(arguments) < len(node.keywords):
            calls.append(Call(name, None, "An argument stands in one call twice."))
            continue
        calls.append(_json_like(name, arguments))
    return calls, end


def _json_like(name: str, arguments: dict[str, Any]) -> Call:
    """The call with arguments that JSON can hold."""
    try:
        return read_arguments(name, json.loads(json.dumps(arguments)))
    except (TypeError, ValueError):
        return Call(name, None, "The arguments of a call are texts, numbers, lists or dicts.")


_TOKEN = re.compile(r"""\"(?:\\.|[^"\\])*\"|'(?:\\.|[^'\\])*'|[\[\](){}]""", re.DOTALL)


def _bracket_end(text: str, start: int) -> int | None:
    """The position after the bracket that closes the one at `start`; strings are skipped."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] in "[({":
            depth += 1
        elif token[0] in "])}":
            depth -= 1
            if not depth:
                return token.end()
    return None

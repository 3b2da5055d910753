"""Calls as a name and then a JSON object, between special tokens: Mistral, DeepSeek, Kimi K2."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...tools import Tool
from .base import Block, Call
from .hermes import JsonCalls
from .tagged_calls import DeepSeekInvoked
from .tool_calls import CallBlock, JsonFault, MarkedCalls, read_arguments, read_json

__all__ = ["DeepSeek", "DeepSeekFenced", "Kimi", "Mistral", "MistralList", "NamedCalls"]


class NamedCalls(MarkedCalls):
    """Base class. A subclass has the patterns of what is before and after a call's JSON."""

    head: ClassVar[re.Pattern[str]]
    """The text before a call's JSON, with its `name`, and its `id` where it has one."""
    tail: ClassVar[re.Pattern[str]]
    """The text behind it; a call is whole without it."""

    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls up to the mark that closes the block."""
        calls: list[Call] = []
        position = mark.start()
        while head := self.head.match(text, position):
            found = read_json(text, head.end())
            if isinstance(found, JsonFault):
                problem = f"The arguments of the tool call are not valid JSON: {found.reason}."
                broken = Call(head["name"].strip(), None, problem)
                cut = not final and found.cut
                return self.broken_block(calls, text, head.end(), broken, final=final, cut=cut)
            value, position = found
            named = head.groupdict()
            calls.append(read_arguments(named["name"].strip(), value, named.get("id") or ""))
            tail = self.tail.match(text, position)
            position = tail.end() if tail else position
        if not calls:
            shape = self.write_block("NAME", {"KEY": "VALUE"})
            problem = f"The tool call has no name that can be read. A call is written as {shape}"
            cut = not (final or (self.closing and self.closing.search(text, mark.end())))
            broken = Call("", None, problem)
            return self.broken_block([], text, mark.end(), broken, final=final, cut=cut)
        return self.whole_block(calls, text, position)


class _MistralJson(JsonCalls):
    """The list of calls that Mistral's models wrote before their names came first."""

    name = "mistral_v3"
    opening = re.compile(r"\[TOOL_CALLS\](?=\s*[\[{])")

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A list of one call."""
        call = {"name": tool, "arguments": dict(arguments)}
        return f"[TOOL_CALLS][{json.dumps(call, ensure_ascii=False)}]"


class Mistral(NamedCalls):
    """Mistral's models since Magistral and Mistral Small 3.2: the name, then JSON.

    The list of older models is read as well.
    """

    name = "mistral"
    opening = re.compile(r"\[TOOL_CALLS\]")
    head = re.compile(
        r"\s*\[TOOL_CALLS\]\s*(?P<name>[^\[{\s]+)\s*"
        r"(?:\[CALL_ID\]\s*(?P<id>[^\[{\s]*)\s*)?(?:\[ARGS\])?(?=\s*\{)"
    )
    tail = re.compile("")
    tags = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[TOOL_CONTENT]", "[AVAILABLE_TOOLS]")
    thought = ("[THINK]", "[/THINK]")
    result = ("[TOOL_RESULTS]", "[/TOOL_RESULTS]")
    ends = ("</s>",)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All calls, up to the end of the turn."""
        return (Block("[TOOL_CALLS]", "</s>", "call"),)

    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls after one or several marks, or a list of them."""
        if listed := _MistralJson.opening.match(text, mark.start()):
            return _MistralJson().read_block(text, listed, tools, final=final)
        return super().read_block(text, mark, tools, final=final)

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """The name, a mark and JSON."""
        return f"[TOOL_CALLS]{tool}[ARGS]{json.dumps(dict(arguments), ensure_ascii=False)}"


class MistralList(Mistral):
    """Mistral's models before: a JSON list of calls after one mark."""

    name = "mistral_v3"

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A list of one call."""
        return _MistralJson().write_block(tool, arguments)


_BEGIN, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
_ALL_BEGIN, _ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"


class DeepSeek(NamedCalls):
    """DeepSeek V3.1: the name, then JSON. The calls of V3, R1, V3.2 and V4 are read as well."""

    name = "deepseek"
    opening = re.compile(f"{_ALL_BEGIN}|{_BEGIN}|{DeepSeekInvoked.opening.pattern}")
    head = re.compile(
        rf"\s*(?:{_ALL_BEGIN})?\s*{_BEGIN}(?:function{_SEP}(?P<fenced>(?=[^<\n{{]+\n\s*```))?)?"
        rf"(?P<name>[^<\n{{]+)(?:{_SEP}|\s*```(?:json)?[ \t]*\n)(?=\s*\{{)"
    )
    tail = re.compile(rf"\s*(?:```)?\s*{_END}|\s*```")
    closing = re.compile(_ALL_END)
    tags = (_ALL_BEGIN, _ALL_END, _BEGIN, _SEP, _END, *DeepSeekInvoked.tags)
    result = ("<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>")
    ends = ("<｜end▁of▁sentence｜>",)

    @property
    def control_tags(self) -> tuple[str, ...]:
        """The tags of calls, results and thoughts."""
        return (*super().control_tags, "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>")

    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls of the block, in either notation."""
        if invoked := DeepSeekInvoked.opening.match(text, mark.start()):
            return DeepSeekInvoked().read_block(text, invoked, tools, final=final)
        return super().read_block(text, mark, tools, final=final)

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """The name, a mark and JSON."""
        written = json.dumps(dict(arguments), ensure_ascii=False)
        return f"{_ALL_BEGIN}{_BEGIN}{tool}{_SEP}{written}{_END}{_ALL_END}"


class DeepSeekFenced(DeepSeek):
    """DeepSeek V3 and R1: a type, the name, then JSON in a fence."""

    name = "deepseek_v3"

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """The type, the name and a fence."""
        written = json.dumps(dict(arguments), ensure_ascii=False)
        return f"{_ALL_BEGIN}{_BEGIN}function{_SEP}{tool}\n```json\n{written}\n```{_END}{_ALL_END}"


class Kimi(NamedCalls):
    """Kimi K2: an id that holds the name, then JSON."""

    name = "kimi_k2"
    opening = re.compile(r"<\|tool_calls_section_begin\|>|<\|tool_call_begin\|>")
    head = re.compile(
        r"\s*(?:<\|tool_calls_section_begin\|>)?\s*<\|tool_call_begin\|>\s*"
        r"(?P<id>(?:functions\.)?(?P<name>[^<:\s]+)(?::\d+)?)\s*<\|tool_call_argument_begin\|>"
    )
    tail = re.compile(r"\s*<\|tool_call_end\|>")
    closing = re.compile(r"<\|tool_calls_section_end\|>")
    tags = (
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    )
    ends = ("<|im_end|>",)

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """The section of one call."""
        written = json.dumps(dict(arguments), ensure_ascii=False)
        return (
            f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{tool}:0"
            f"<|tool_call_argument_begin|>{written}<|tool_call_end|><|tool_calls_section_end|>"
        )

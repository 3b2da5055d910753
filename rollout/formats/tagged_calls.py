"""Calls whose arguments are between tags as bare text: Qwen3-Coder, GLM, DeepSeek V3.2, MiniMax.

The type of a value is that of the tool's schema, where the syntax does not write it. No tag can be
escaped in a value: a closing tag ends one only where something of the call follows it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ...tools import Tool
from .base import Call
from .schema import ArgumentTypes
from .tool_calls import CallBlock, MarkedCalls, bare, read_arguments, read_json

__all__ = ["DeepSeekInvoked", "Glm", "MiniMax", "Qwen3Coder", "TaggedCalls"]


class TaggedCalls(MarkedCalls):
    """Base class. A subclass has the patterns of a call's parts, which blank space may separate."""

    untyped = True
    head: ClassVar[re.Pattern[str]]
    """The beginning of a call, with its `name`."""
    value: ClassVar[re.Pattern[str]]
    """The beginning of an argument, with its `key`."""
    value_end: ClassVar[re.Pattern[str]]
    """The end of an argument."""
    tail: ClassVar[re.Pattern[str]]
    """The end of a call."""
    trims: ClassVar[bool] = False
    """True if one line break at each end of a value is markup."""

    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls up to the mark that closes the block."""
        calls: list[Call] = []
        position = mark.end()
        while head := self.head.match(text, position):
            read = self._call(text, head, tools, final=final)
            if isinstance(read, tuple):
                call, position = read
                calls.append(call)
                continue
            problem = f"{read} A call is written as {self.write_block('NAME', {'KEY': 'VALUE'})}"
            broken = Call(head["name"].strip(), None, problem)
            cut = not final and "is not closed" in read
            return self.broken_block(calls, text, head.end(), broken, final=final, cut=cut)
        if not calls:
            shape = self.write_block("NAME", {"KEY": "VALUE"})
            problem = f"The tool call has no name that can be read. A call is written as {shape}"
            return self.broken_block([], text, position, Call("", None, problem), final=final)
        return self.whole_block(calls, text, position)

    def _call(
        self, text: str, head: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> tuple[Call, int] | str:
        """The call that begins with `head` and the position after it, or what is wrong with it."""
        name, position = head["name"].strip(), head.end()
        types, arguments = ArgumentTypes.of(name, tools), dict[str, Any]()
        while begin := self.value.match(text, position):
            end = self.value_end.search(text, begin.end())
            key = begin["key"].strip()
            if end is None:
                return f"The argument {key!r} is not closed."
            if key in arguments:
                return f"The argument {key!r} stands in one call twice."
            arguments[key] = self.read_value(begin, text[begin.end() : end.start()], types)
            position = end.end()
        tail = self.tail.match(text, position)
        if tail is None:
            if final and arguments and not text[position:].strip():
                return read_arguments(name, arguments), len(text)
            shown = text[position : position + 60].strip().partition("\n")[0]
            return (
                f"Behind its arguments the call holds {shown!r}." if shown else "It is not closed."
            )
        return read_arguments(name, arguments), tail.end()

    def read_value(self, begin: re.Match[str], text: str, types: ArgumentTypes) -> Any:
        """The value of an argument, from its text."""
        if self.trims:
            text = text.removeprefix("\n").removesuffix("\n")
        return types.read(begin["key"].strip(), text)


class Qwen3Coder(TaggedCalls):
    """Qwen3-Coder, Qwen3.5 and later, Nemotron 3: a function and its parameters.

    Example:
        >>> from interlace.rollout.trajectory import FinishReason
        >>> text = "<tool_call><function=f><parameter=x>1</parameter></function></tool_call>"
        >>> Qwen3Coder().parse(text, FinishReason.EOS, ()).calls[0].arguments
        {'x': '1'}
    """

    name = "qwen3_coder"
    opening = re.compile(r"<tool_call>|<function=(?=[^<>\s]+>)")
    head = re.compile(r"\s*(?:<function=|(?<=<function=))(?P<name>[^>\n]*)>")
    value = re.compile(r"\s*<parameter=(?P<key>[^>\n]*)>")
    value_end = re.compile(
        r"</parameter>(?=\s*(?:<parameter=[^>\n]*>|</function>|</tool_call>|\Z))"
    )
    tail = re.compile(r"\s*(?:</function>|(?=</tool_call>))")
    closing = re.compile("</tool_call>")
    tags = (
        "<tool_call>",
        "</tool_call>",
        "<function=",
        "</function>",
        "<parameter=",
        "</parameter>",
    )
    trims = True

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Each parameter's value on lines of its own."""
        values = "".join(
            f"<parameter={key}>\n{bare(value)}\n</parameter>\n" for key, value in arguments.items()
        )
        return f"<tool_call>\n<function={tool}>\n{values}</function>\n</tool_call>"


class Glm(TaggedCalls):
    """GLM 4.5 and later: the name, then keys and values.

    Example:
        >>> from interlace.rollout.trajectory import FinishReason
        >>> text = "<tool_call>f<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>"
        >>> Glm().parse(text, FinishReason.EOS, ()).calls[0].arguments
        {'x': '1'}
    """

    name = "glm"
    opening = re.compile(r"<tool_call>")
    head = re.compile(r"(?<=<tool_call>)\s*(?P<name>[^<{\[\s]+)")
    value = re.compile(r"\s*<arg_key>(?P<key>[^<]*)</arg_key>\s*<arg_value>")
    value_end = re.compile(r"</arg_value>(?=\s*(?:<arg_key>[^<]*</arg_key>|</tool_call>|\Z))")
    tail = re.compile(r"(?=\s*</tool_call>)")
    closing = re.compile("</tool_call>")
    tags = (
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<|observation|>",
    )
    ends = ("<|observation|>", "<|user|>")

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Each key and each value on lines of their own."""
        values = "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{bare(value)}</arg_value>\n"
            for key, value in arguments.items()
        )
        return f"<tool_call>{tool}\n{values}</tool_call>"


class InvokedCalls(TaggedCalls):
    """Calls that name the tool in an attribute: `<invoke name="f"><parameter name="x">`."""

    untyped = False

    def read_value(self, begin: re.Match[str], text: str, types: ArgumentTypes) -> Any:
        """The value: as the tag says (`string="false"` is JSON), else of the schema's type."""
        written = begin.groupdict().get("string")
        if written == "true":
            return text
        if written == "false" and isinstance(found := read_json(text, 0), tuple):
            return found[0] if not text[found[1] :].strip() else text
        return types.read(begin["key"], text)


class MiniMax(InvokedCalls):
    """MiniMax M2: `<invoke>` in tags of its own."""

    name = "minimax_m2"
    untyped = True
    opening = re.compile(r"<minimax:tool_call>")
    head = re.compile(r'\s*<invoke name="(?P<name>[^"\n]*)">')
    value = re.compile(r'\s*<parameter name="(?P<key>[^"\n]*)">')
    value_end = re.compile(r'</parameter>(?=\s*(?:<parameter name="|</invoke>|</minimax:|\Z))')
    tail = re.compile(r"\s*</invoke>")
    closing = re.compile(r"</minimax:tool_call>")
    tags = ("<minimax:tool_call>", "</minimax:tool_call>", "<invoke name=", "</invoke>")

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Each parameter on a line."""
        values = "".join(
            f'<parameter name="{key}">{bare(value)}</parameter>\n'
            for key, value in arguments.items()
        )
        return (
            f'<minimax:tool_call>\n<invoke name="{tool}">\n{values}</invoke>\n</minimax:tool_call>'
        )


class DeepSeekInvoked(InvokedCalls):
    """DeepSeek V3.2 and V4: `<invoke>`, each tag marked as the model's own."""

    name = "deepseek_v3_2"
    opening = re.compile(r"<｜DSML｜ ?(?:function_calls|tool_calls|calls)>")
    head = re.compile(r'\s*<｜DSML｜ ?invoke name="(?P<name>[^"\n]*)">')
    value = re.compile(
        r'\s*<｜DSML｜ ?parameter name="(?P<key>[^"\n]*)"(?: string="(?P<string>true|false)")?>'
    )
    value_end = re.compile(r"</｜DSML｜ ?parameter>(?=\s*(?:</?｜DSML｜ ?(?:parameter|invoke)|\Z))")
    tail = re.compile(r"\s*</｜DSML｜ ?invoke>")
    closing = re.compile(r"</｜DSML｜ ?(?:function_calls|tool_calls|calls)>")
    tags = ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", "<｜DSML｜", "</｜DSML｜")
    result = ("<function_results>", "</function_results>")
    ends = ("<｜end▁of▁sentence｜>",)

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """Each parameter on a line, with a mark whether it is text or JSON."""
        values = "".join(
            f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">'
            f"{bare(value)}</｜DSML｜parameter>\n"
            for key, value in arguments.items()
        )
        return (
            f'<｜DSML｜function_calls>\n<｜DSML｜invoke name="{tool}">\n{values}'
            "</｜DSML｜invoke>\n</｜DSML｜function_calls>"
        )

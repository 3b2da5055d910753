"""Formats whose calls are those of a chat template: any tool, results as messages of their own.

What differs from one model to the next is how a block of calls is written; a subclass reads and
writes that. Thoughts, answers, forged results and what the model is told are the same for all.
"""

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from ...tools import Tool
from ...tools.errors import UsageError
from ..trajectory import CallRecord, FinishReason
from .alike import alike
from .base import Block, Call, Format, Parsed, Sample
from .scan import boxed, unfenced, unlabelled
from .schema import tool_schema

__all__ = [
    "CallBlock",
    "JsonFault",
    "JsonText",
    "MarkedCalls",
    "ReadTurn",
    "ToolCalls",
    "dangles",
    "left_over",
    "read_arguments",
    "read_call",
    "read_json",
]

CallBlock = tuple[list[Call], int]
"""The calls of a block, and the position after it."""

_NOT_BLANK = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class ReadTurn:
    """A turn taken apart, for a chat template: its words by the key of the message, its calls.

    A call that could not be read has no arguments, so that each result still finds its own.
    """

    words: dict[str, str]
    calls: list[Call]


class ToolCalls(Format):
    r"""Base class: any tool, called in a syntax of the model's own.

    The final answer is what the last `\boxed{}` of a turn without calls holds, or the turn's whole
    text. What can't be read in a call, or is left over after it, is told to the model as the
    call's problem, and nothing is dropped.
    """

    inline: ClassVar[bool] = False
    stop: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str]
    tags: ClassVar[tuple[str, ...]]
    """The tags and special tokens of its calls: first the one before a call and the one after."""
    ends: ClassVar[tuple[str, ...]] = ()
    """Special tokens that end a turn, for vocabularies that don't name them as such."""

    @abstractmethod
    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A call as the model writes it."""

    @property
    def control_tags(self) -> tuple[str, ...]:
        """The tags of calls, and what ends a turn."""
        return (*self.tags, *self.ends)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block of a call, from the first to the last of its tags."""
        return (Block(self.tags[0], self.tags[1], "call"),)

    @cached_property
    def sample(self) -> Sample:
        """A product that Python works out."""
        return Sample(
            "A crate holds 4387 bolts. How many bolts are in 296 crates?",
            (
                self.write_call("python", {"code": "print(4387 * 296)"}, thought="I multiply."),
                self.write_answer("1298552"),
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
            f"<tools>\n{listed}\n</tools>\n{self.told}\n"
            f"Its result comes in the next message. {answer}"
        )

    @property
    def told(self) -> str:
        """How to write a call, in the system prompt."""
        return f"To call one, write:\n{self.write_block('NAME', {'ARGUMENT': 'VALUE'})}"

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The outputs alone: what is around them is the template's."""
        return "\n".join(call.output for call in calls)

    def write_call(
        self, tool: str, arguments: Mapping[str, Any], *, thought: str = "", after: bool = False
    ) -> str:
        """A thought and a call. Raises UsageError for arguments that would be read as others."""
        block = self.write_block(tool, arguments)
        self.check_written(block, tool, arguments)
        return "\n".join(filter(None, (thought, block)))

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A thought and the answer in a box."""
        return "\n".join(filter(None, (thought, f"\\boxed{{{answer}}}")))

    @abstractmethod
    def read_turn(self, text: str, tools: Sequence[Tool]) -> ReadTurn:
        """An earlier turn, taken apart: what it said, and its calls."""

    def check_written(self, block: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raise UsageError where a block is not read as the call it was written for.

        Some syntaxes have no way to escape their own tags in an argument.
        """
        calls = self.parse(block, FinishReason.EOS, ()).calls
        typed = [(call.tool, json.dumps(call.arguments, sort_keys=True)) for call in calls]
        if self.untyped:  # the tool's schema gives numbers and the like their type back
            typed = [(call.tool, _as_text(call.arguments or {})) for call in calls]
            same = typed == [(tool, _as_text(arguments))]
        else:
            same = typed == [(tool, json.dumps(dict(arguments), sort_keys=True))]
        if not same:
            raise UsageError(
                f"the format {self.name} can't write this call of {tool!r} so that it is read "
                "again: use the format hermes, in which any text can stand in an argument"
            )

    untyped: ClassVar[bool] = False
    """True where values are written as bare text: their type is the tool's schema's."""


def _as_text(arguments: Mapping[str, Any]) -> str:
    return json.dumps({key: bare(value) for key, value in arguments.items()}, sort_keys=True)


def bare(value: object) -> str:
    """A value as text without quotes: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def ended(finish: FinishReason) -> bool:
    """True if the model ended its turn itself, so that what it wrote is whole."""
    return finish in (FinishReason.EOS, FinishReason.STOP)


def answer_in(text: str, finish: FinishReason) -> str | None:
    """The answer in the text of a turn without calls: its last box, else all of it."""
    answer = boxed(text)
    if answer is None and ended(finish):
        answer = text.strip()
    return answer or None


def without_end(text: str, ends: Sequence[str]) -> str:
    """A turn's text without the special token that ends it."""
    return next((text.removesuffix(end) for end in ends if text.endswith(end)), text)


def readable(call: Call) -> Call:
    """The call, without arguments where they could not be read."""
    return call if call.arguments is not None else Call(call.tool or "invalid", {}, id=call.id)


_FENCED = re.compile(r"\s*```\w*[\d.]*[ \t]*\n.*\n[ \t]*```\s*", re.DOTALL)
_CODE = {("python", "code"): "python", ("sql", "query"): "sql"}
"""The arguments of our tools that hold code, and its language."""


def unwrapped(call: Call) -> Call:
    """The call with its code as such: without a Markdown fence around it."""
    changed = dict(call.arguments or {})
    for name, value in changed.items():
        if (language := _CODE.get((call.tool, name))) and isinstance(value, str):
            if _FENCED.fullmatch(value) and (code := unfenced(value, language)):
                changed[name] = code
            elif language == "sql":
                changed[name] = unlabelled(value)
    if changed == (call.arguments or {}):
        return call
    return replace(call, arguments=changed)


class MarkedCalls(ToolCalls):
    """Base class of syntaxes in which marks are around blocks of calls, thoughts and results.

    Thoughts hold neither calls nor answers.
    """

    opening: ClassVar[re.Pattern[str]]
    """The mark that begins a block of calls."""
    closing: ClassVar[re.Pattern[str] | None] = None
    """The mark that ends it, if there is one. Where it is missing, the last call ends the block."""
    thought: ClassVar[tuple[str, str]] = ("<think>", "</think>")
    result: ClassVar[tuple[str, str]] = ("<tool_response>", "</tool_response>")
    """The tags around a result."""

    @abstractmethod
    def read_block(
        self, text: str, mark: re.Match[str], tools: Sequence[Tool], *, final: bool
    ) -> CallBlock | None:
        """The calls of the block that `mark` opens, and the position after it.

        `final`: the model ended the turn itself. Else a limit may have broken the block off: calls
        that are not whole are left out. None where the mark opens no block.
        """

    @cached_property
    def _boundary(self) -> re.Pattern[str]:
        """The end of a block, or the beginning of another: one search, for any number of blocks."""
        closing = "(?!)" if self.closing is None else self.closing.pattern
        return re.compile(f"(?P<closing>{closing})|{self.opening.pattern}", self.opening.flags)

    def whole_block(self, calls: list[Call], text: str, position: int) -> CallBlock:
        """The block whose last call ends at `position`, or what is wrong with its end."""
        mark = self._boundary.search(text, position)
        end = len(text) if mark is None else mark.start()
        over = text[position:end]
        if mark is not None and mark["closing"] is not None:
            return left_over(calls, over) if over.strip() else calls, mark.end()
        dangles = over.lstrip()[:1] in tuple('{[}]",')  # else words to whoever reads the turn
        return (left_over(calls, over), end) if dangles else (calls, position)

    def broken_block(
        self,
        calls: list[Call],
        text: str,
        position: int,
        problem: Call,
        *,
        final: bool,
        cut: bool = False,
    ) -> CallBlock:
        """The block that can't be read from `position` on: up to its closing mark, or the next.

        `cut`: a limit broke it off in a value, so that a mark after `position` lies in that.
        """
        mark = None if cut else self._boundary.search(text, position)
        if mark is None:  # where a limit broke it off, nobody was asked for anything
            return [*calls, problem] if final else calls, len(text)
        closed = mark["closing"] is not None
        return [*calls, problem], mark.end() if closed else mark.start()

    @property
    def control_tags(self) -> tuple[str, ...]:
        """The tags of calls, results and thoughts, and what ends a turn."""
        return tuple(dict.fromkeys((*self.tags, *self.result, *self.thought, *self.ends)))

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """Read one turn: its calls in order, or, where it has none, its answer."""
        text = without_end(text, self.ends)
        calls, rest, forged = _Reader(self, text, tools, final=ended(finish)).read()
        if calls:
            return Parsed(tuple(map(unwrapped, calls)), None, forged, text=rest.strip())
        return Parsed((), answer_in(rest, finish), forged, text=rest.strip())

    def read_turn(self, text: str, tools: Sequence[Tool]) -> ReadTurn:
        """An earlier turn, taken apart: what it said, and its calls."""
        text = without_end(text, self.ends)
        reader = _Reader(self, text, tools, final=True)
        calls, _, _ = reader.read()
        return ReadTurn({"content": reader.without_blocks()}, [*map(readable, calls)])


class _Reader:
    """One turn's text, read from left to right.

    A block of calls that can be read is skipped as a whole, so that no tag in its strings counts.
    """

    def __init__(
        self, format: MarkedCalls, text: str, tools: Sequence[Tool], *, final: bool
    ) -> None:
        self._format, self._text = format, JsonText(text)
        self._tools, self._final = tools, final
        self._think, self._thought = format.thought
        result, result_end = map(alike, format.result)
        marks = f"{re.escape(self._think)}|(?P<result>{result})|{format.opening.pattern}"
        self._mark = re.compile(marks, format.opening.flags)
        thoughts = f"{re.escape(self._think)}|{re.escape(self._thought)}|{format.opening.pattern}"
        self._in_thought = re.compile(thoughts, format.opening.flags)
        ends = f"(?P<end>{result_end})|{format.opening.pattern}"
        self._result_ends = re.compile(ends, format.opening.flags)
        self._found: dict[int, CallBlock | None] = {}
        self._blocks: list[tuple[int, int]] = []

    def read(self) -> tuple[list[Call], str, bool]:
        """The calls in order, the text outside of thoughts, calls and results, and whether the
        policy wrote a result itself.

        A template may have opened the first thought, so that only its end is in the text. A
        thought that is never closed ends at the first call.
        """
        text, calls, rest = self._text, list[Call](), list[str]()
        forged, thoughts_close, kept = False, True, 0
        position = kept = self._thought_end(0, opened=False) or 0
        while mark := self._mark.search(text, position):
            if mark["result"] is not None:
                forged = True
                rest.append(text[kept : mark.start()])
                position = kept = self._behind_result(mark.end())
            elif mark[0] == self._think:
                rest.append(text[kept : mark.start()])
                after = self._thought_end(mark.end(), opened=True) if thoughts_close else None
                if after is None:
                    thoughts_close = False
                    first_call = self._format.opening.search(text, mark.end())
                    after = first_call.start() if first_call else len(text)
                position = kept = after
            elif (block := self._block(mark)) is None:  # a mark that opens nothing
                position = max(mark.end(), mark.start() + 1)
            else:
                rest.append(text[kept : mark.start()])
                calls += block[0]
                position = kept = block[1]
                self._blocks.append((mark.start(), block[1]))
        return calls, "\n".join([*rest, text[kept:]]), forged

    def without_blocks(self) -> str:
        """The text that was read, without its calls."""
        pieces, position = [], 0
        for start, end in self._blocks:
            pieces.append(self._text[position:start])
            position = end
        return "".join([*pieces, self._text[position:]]).rstrip()

    def _thought_end(self, position: int, *, opened: bool) -> int | None:
        """The end of the thought that `position` lies in, or None if it is never closed, or if
        another opens first, so that it was not a thought (unless `opened` by its tag).
        """
        while mark := self._in_thought.search(self._text, position):
            position = max(mark.end(), mark.start() + 1)
            if mark[0] == self._thought:
                return position
            if mark[0] == self._think:
                if not opened:
                    return None
            elif (block := self._block(mark)) and all(not call.problem for call in block[0]):
                position = max(position, block[1])
        return None

    def _block(self, mark: re.Match[str]) -> CallBlock | None:
        if mark.start() not in self._found:
            self._found[mark.start()] = self._format.read_block(
                self._text, mark, self._tools, final=self._final
            )
        return self._found[mark.start()]

    def _behind_result(self, start: int) -> int:
        """The end of a result that the policy wrote: its closing tag, the next call, or the end."""
        mark = self._result_ends.search(self._text, start)
        if mark is None:
            return len(self._text)
        return mark.start() if mark["end"] is None else mark.end()


# -- JSON ------------------------------------------------------------------------------------------


class JsonText(str):
    """A text in which JSON may be wrong thousands of times.

    An error of `json` counts the lines before it, each time all of the text. Nobody reads them.
    """

    def count(self, *_: object) -> int:
        """Nothing."""
        return 0

    def rfind(self, *_: object) -> int:
        """Nowhere."""
        return -1


class _KeyTwice(ValueError):
    """One of two values would be lost."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _KeyTwice(f"the key {twice!r} stands in one object twice")
    return found


@dataclass(frozen=True, slots=True)
class JsonFault:
    """The reason why a text is no JSON. `cut`: it breaks off at its end, in the middle of it."""

    reason: str
    cut: bool = False


# Models write line breaks into JSON strings as they are.
_JSON = json.JSONDecoder(strict=False, object_pairs_hook=_once)


def read_json(text: str, start: int) -> tuple[Any, int] | JsonFault:
    """The JSON after `start` and the position after it, or the reason why there is none."""
    first = _NOT_BLANK.search(text, start)
    try:
        return _JSON.raw_decode(text, first.start() if first else len(text))
    except json.JSONDecodeError as error:
        # A word such as `false` may lack its last letters.
        cut = error.msg.startswith("Unterminated string") or error.pos > len(text) - 5
        return JsonFault(error.msg, cut)
    except _KeyTwice as error:
        return JsonFault(str(error))
    except (ValueError, RecursionError):
        return JsonFault("nested too deeply or a number too long")


_SHAPE = 'A tool call is a JSON object with "name" and "arguments".'


def read_call(value: Any) -> Call:
    """The call that a JSON value stands for: `{"name": ..., "arguments": {...}}`.

    The key may be `parameters`, the whole may be under `function`, with `type` and `id`, and the
    arguments may be an object written as a string: models know all of these from one API or
    another.
    """
    if not isinstance(value, dict):
        return Call("", None, _SHAPE)
    id = value.get("id", "")
    if isinstance(value.get("function"), dict) and value.keys() <= {"function", "type", "id"}:
        value = value["function"]
    name = value.get("name")
    if not isinstance(name, str):
        return Call("", None, _SHAPE)
    keys = [key for key in ("arguments", "parameters") if key in value]
    unknown = value.keys() - {"name", "arguments", "parameters", "id", "type"}
    written = _written({key: each for key, each in value.items() if key != "name"})
    if unknown:
        problem = (
            f"A tool call has no key {', '.join(map(json.dumps, sorted(unknown)))}: it holds "
            '"name" and "arguments", and the values for the tool go inside "arguments".'
        )
        return Call(name, None, problem, written)
    if len(keys) == 2:
        problem = 'A tool call has "arguments" or "parameters", not both.'
        return Call(name, None, problem, written)
    arguments = value[keys[0]] if keys else {}
    return read_arguments(name, arguments, id if isinstance(id, str) else "")


def read_arguments(name: str, arguments: object, id: str = "") -> Call:
    """The call of the tool `name` with arguments as they were read from JSON."""
    written = _written(arguments)
    if isinstance(arguments, str):  # an object written as a string, as some APIs have it
        found = read_json(written, 0)
        arguments = None
        if isinstance(found, tuple) and not _NOT_BLANK.search(written, found[1]):
            arguments = found[0]
    if not isinstance(arguments, dict):
        problem = 'The "arguments" of a tool call are a JSON object.'
        return Call(name, None, problem, written, id)
    try:  # what a record can't hold can't be passed on
        json.dumps([name, arguments], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return Call(
            "", None, "The tool call holds a number or a character that can't be passed on."
        )
    return Call(name, arguments, None, written, id)


def _written(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def dangles(text: str) -> bool:
    """True if what follows a call that no mark closes looks like more of it; else it is words."""
    return text.lstrip()[:1] in tuple('{[}]",')


def left_over(calls: Sequence[Call], text: str) -> list[Call]:
    """The problem of a block in which text is left over after its calls, instead of them."""
    shown = text.strip()
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    name = calls[-1].tool if calls else ""
    return [Call(name, None, f"Nothing was run: behind the tool call is left over {shown!r}.")]

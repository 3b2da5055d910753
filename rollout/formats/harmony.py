"""gpt-oss's harmony: messages on channels, of which one may be addressed to a tool."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...tools import Tool
from ..trajectory import FinishReason
from .base import Block, Call, Parsed
from .tool_calls import (
    JsonFault,
    JsonText,
    ReadTurn,
    ToolCalls,
    answer_in,
    dangles,
    ended,
    left_over,
    read_arguments,
    read_json,
    readable,
    unwrapped,
)

__all__ = ["Harmony"]

_START, _CHANNEL, _CONSTRAIN, _BODY = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
_END, _CALL, _RETURN = "<|end|>", "<|call|>", "<|return|>"
_TERMINATOR = re.compile(r"<\|(?:end|call|return)\|>|(?=<\|start\|>)|\Z")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


@dataclass(frozen=True, slots=True)
class _Said:
    """One message: who writes it, on which channel, to whom, and its text.

    `call` is the call in it, and `closed` says that its end is in the text.
    """

    role: str
    channel: str
    recipient: str
    body: str
    closed: bool
    call: Call | None = None


class Harmony(ToolCalls):
    """Messages on the channels `analysis`, `commentary` and `final`.

    A message to `functions.NAME` is a call, and ends the turn. The answer is read from `final`;
    text without a channel counts as that. `to=python` is the model's built-in tool, whose argument
    is the code itself.
    """

    name = "gpt_oss"
    tags = (_CHANNEL, _START, _END, _BODY, _CONSTRAIN)
    thought = (f"{_CHANNEL}analysis{_BODY}", _END)
    ends = (_CALL, _RETURN)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """A message to a tool, and one on the channel `final`; their end is the turn's."""
        return tuple(
            block
            for start in ("", f"{_START}assistant")
            for block in (
                Block(f"{start}{_CHANNEL}commentary to=", _CALL, "call"),
                Block(f"{start}{_CHANNEL}final{_BODY}", _RETURN, "answer"),
            )
        )

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """Read the messages of one turn."""
        calls: list[Call] = []
        finals, forged = [], False
        said = self._messages(text, tools)
        for message in said:
            if message.role != "assistant":
                forged = True
            elif message.call is not None:
                if message.closed or ended(finish):
                    calls.append(message.call)
            elif message.channel in ("final", ""):
                finals.append(message.body)
        if calls:
            spoken = "\n".join(each.body for each in said if each.channel == "commentary")
            return Parsed(tuple(map(unwrapped, calls)), None, forged, text=spoken.strip())
        text = "\n".join(finals)
        return Parsed((), answer_in(text, finish), forged, text=text.strip())

    def read_turn(self, text: str, tools: Sequence[Tool]) -> ReadTurn:
        """An earlier turn: its last words as content; beside a call, all its words as thought."""
        said = [each for each in self._messages(text, tools) if each.role == "assistant"]
        calls = [readable(each.call) for each in said if each.call is not None]
        words = [each for each in said if each.call is None]
        if calls:
            return ReadTurn({"content": "", "thinking": _joined(words)}, calls[:1])
        final = [each for each in words if each.channel in ("final", "")]
        return ReadTurn({"content": _joined(final or words)}, [])

    def write_block(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A message to the tool, up to the token that ends the turn."""
        written = json.dumps(dict(arguments), ensure_ascii=False)
        return f"{_CHANNEL}commentary to=functions.{tool} {_CONSTRAIN}json{_BODY}{written}"

    def write_call(
        self, tool: str, arguments: Mapping[str, Any], *, thought: str = "", after: bool = False
    ) -> str:
        """A thought on its channel, and a message to the tool."""
        block = self.write_block(tool, arguments)
        self.check_written(block, tool, arguments)
        return f"{_analysis(thought)}{block}"

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A thought on its channel, and the answer in a box on the last."""
        return f"{_analysis(thought)}{_CHANNEL}final{_BODY}\\boxed{{{answer}}}"

    def _messages(self, text: str, tools: Sequence[Tool]) -> list[_Said]:
        """The messages of a text that begins in the head of one, after `<|start|>assistant`."""
        said: list[_Said] = []
        text = JsonText(text)
        position, first = 0, True
        while position < len(text):
            start = text.find(_START, position) if not first else 0
            if start < 0:
                start = position
            at = start + (len(_START) if text.startswith(_START, start) else 0)
            body = text.find(_BODY, at)
            another = text.find(_START, at)
            if body < 0 or 0 <= another < body:  # words without a head
                end = another if another >= 0 else len(text)
                words = text[at:end]
                position, first = max(end, at + 1), False
                if said and not words.replace(_END, "").strip():
                    continue
                said.append(self._bare(words))
                continue
            head = text[at:body]
            message, position = self._read(head, text, body + len(_BODY), first, tools)
            said.append(message)
            first = False
        return said

    def _bare(self, words: str) -> _Said:
        """Words where a head should be: an answer, or what is wrong with them."""
        if _CHANNEL in words or _RECIPIENT.search(words):
            problem = f"A message has a head and a text: {_CHANNEL}commentary to=functions.NAME"
            call = Call("", None, f"{problem} {_CONSTRAIN}json{_BODY}" + '{"KEY": "VALUE"}')
            return _Said("assistant", "", "", "", False, call)
        return _Said("assistant", "", "", words, False)

    def _read(
        self, head: str, text: str, start: int, first: bool, tools: Sequence[Tool]
    ) -> tuple[_Said, int]:
        """The message whose head and beginning are these, and the position after it."""
        role, _, rest = head.partition(_CHANNEL)
        found = _RECIPIENT.search(head)
        recipient = found[1] if found else ""
        role = _RECIPIENT.sub("", role).strip()
        role = role.removeprefix("assistant").strip() or "assistant"
        words = _RECIPIENT.sub("", rest).replace(_CONSTRAIN, " ").split()
        channel = words[0] if words else ""
        if role == "assistant" and recipient and recipient not in ("assistant", "user"):
            call, end, closed = self._call(recipient, words, text, start)
            return _Said(role, channel, recipient, "", closed, call), end
        stop = _TERMINATOR.search(text, start)
        assert stop is not None, "it matches the end of the text"
        body = text[start : stop.start()]
        return _Said(role, channel, recipient, body, bool(stop[0])), stop.end()

    def _call(
        self, recipient: str, words: list[str], text: str, start: int
    ) -> tuple[Call, int, bool]:
        """The call to a recipient, the position after it, and whether it was closed."""
        name = recipient.removeprefix("functions.")
        found = read_json(text, start)
        if recipient == "python" and (
            isinstance(found, JsonFault) or not isinstance(found[0], dict)
        ):
            stop = _TERMINATOR.search(text, start)
            assert stop is not None, "it matches the end of the text"
            return Call("python", {"code": text[start : stop.start()]}), stop.end(), bool(stop[0])
        position = start if isinstance(found, JsonFault) else found[1]
        stop = _TERMINATOR.search(text, position)
        assert stop is not None, "it matches the end of the text"
        closed, over = bool(stop[0]), text[position : stop.start()]
        if isinstance(found, JsonFault):
            problem = f"The arguments of the tool call are not valid JSON: {found.reason}."
            # A mark in a string that a limit broke off closes nothing.
            return Call(name, None, problem), stop.end(), closed and not found.cut
        call = read_arguments(name, found[0])
        if over.strip() and (closed or dangles(over)):
            (call,) = left_over([call], over)
        return call, stop.end(), closed


def _joined(said: Sequence[_Said]) -> str:
    return "\n".join(each.body for each in said)


def _analysis(thought: str) -> str:
    return f"{_CHANNEL}analysis{_BODY}{thought}{_END}{_START}assistant" if thought else ""

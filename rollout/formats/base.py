"""A format's interface: how a model calls a tool, and how results are written back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from ...tools import Tool
from ...tools.errors import UsageError
from ..trajectory import CallRecord, FinishReason

__all__ = [
    "AnsweredCall",
    "Block",
    "Call",
    "ChatContext",
    "Format",
    "Message",
    "Parsed",
    "Sample",
]


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call and its result, as chat APIs have them.

    `arguments` is JSON as the policy wrote it, `id` the name that its server gave the call, if any.
    """

    tool: str
    arguments: str
    result: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as chat templates know it.

    `results` are those of a tool's message one by one, notices included. `calls` are those of an
    assistant's message for chat APIs, whose `content` has them no more. `said` is all that the
    policy wrote of such a message, thoughts and calls too, as long as its question is open.
    """

    role: str
    content: str
    results: tuple[str, ...] = ()
    calls: tuple[AnsweredCall, ...] = ()
    said: str = ""


@dataclass(frozen=True, slots=True)
class ChatContext:
    """A request's context as messages, for servers that take no token ids.

    `tools` are schemas as chat templates take them. `begun` is what the assistant has said already
    of the message that it is asked for.
    """

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    begun: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the policy wrote. `problem` says why it could not be read, where it could not.

    `written` are its arguments as JSON text, readable or not; `id` is the name that the policy gave
    the call, in syntaxes that have one.
    """

    tool: str
    arguments: dict[str, Any] | None
    problem: str | None = None
    written: str = field(default="", compare=False, repr=False)
    id: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """One turn's text, parsed.

    `complete` is False if the stop was a false alarm (a tag inside a string in code): sampling
    continues. `answer` is the final answer, if the turn gives one. `forged` says that the policy
    wrote tool output itself. `text` is what the turn says to people: without calls, results,
    thoughts and the format's own marks; None if the format does not tell.
    """

    calls: tuple[Call, ...] = ()
    answer: str | None = None
    forged: bool = False
    complete: bool = True
    text: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a turn between two marks, for screens and statistics.

    `code` and `call` ask for a tool. A `call` has its own notation (JSON, say), so it is shown
    once it has been read, not while it streams. `language` is that of the code or the answer.
    """

    open: str
    close: str
    kind: Literal["code", "call", "answer"]
    language: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A short made-up trajectory: a question, the policy's turns, and the outputs between them.

    `tool` is the tool that it calls: name, argument and description.
    """

    question: str
    said: tuple[str, ...]
    outputs: tuple[str, ...]
    tool: tuple[str, str, str]


@runtime_checkable
class Format(Protocol):
    """How a model asks for tools. Stateless; works on text; the loop and the template make ids.

    A format of your own inherits from this class, for the defaults of what it leaves out.
    """

    @property
    def name(self) -> str:
        """Its name in records and on the command line."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """The strings after which sampling pauses so that the turn can be read."""
        ...

    @property
    def inline(self) -> bool:
        """True if tool output continues the assistant's message (tags), False if it is a
        separate message through the chat template (Hermes).
        """
        ...

    @property
    def control_tags(self) -> tuple[str, ...]:
        """Tags with a meaning in this format, which tool output must not carry live."""
        ...

    def check(self, tools: Sequence[Tool]) -> None:
        """Raise UsageError where this format can't express a call of one of these tools."""
        ...

    def system(self, tools: Sequence[Tool]) -> str:
        """The system prompt: what the model is told of tools and answers. Without tools: of the
        answer only.
        """
        ...

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """Read the text of one turn."""
        ...

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The results of one turn's calls as text. Their `output` is harmless already.

        An inline format gives the whole block; else this is the content of a tool message, and
        the encoder asks for each call's alone.
        """
        ...

    @property
    def thought(self) -> tuple[str, str]:
        """The marks that open and close a thought."""
        return "<think>", "</think>"

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The marked parts of a turn: calls and answers."""
        return ()

    @property
    def sample(self) -> Sample | None:
        """A short trajectory for reports and tests, or None."""
        return None

    def write_call(
        self, tool: str, arguments: Mapping[str, Any], *, thought: str = "", after: bool = False
    ) -> str:
        """A turn as a model would write it: a thought, then a call. `parse` reads it back.

        `after`: the turn continues a response in which a tool has answered already. Raises
        UsageError where the format can't express the call.
        """
        raise UsageError(f"the format {self.name} can't write a call")

    def write_answer(self, answer: str, *, thought: str = "", after: bool = False) -> str:
        """A turn that ends with the final answer, as a model would write it."""
        return "\n".join(filter(None, (thought, answer)))

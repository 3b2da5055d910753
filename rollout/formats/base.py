"""What a format is: how a model asks for a tool, and how the answer is written back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...tools import Tool
from ..trajectory import CallRecord, Finish

__all__ = ["Call", "Format", "Message", "Parsed"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, as chat templates know it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the policy wrote. `problem` says why it could not be read, where it could not."""

    tool: str
    arguments: dict[str, Any] | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one turn's text means.

    `complete` is False where the stop was a false alarm (a tag inside a string in code): sampling
    goes on. `answer` is the final answer, if the turn gives one. `forged` says that the policy
    wrote tool output itself.
    """

    calls: tuple[Call, ...] = ()
    answer: str | None = None
    forged: bool = False
    complete: bool = True


class Format(Protocol):
    """How a model asks for tools. Stateless; works on text; the loop and the template make ids."""

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
        """Whether tool output continues the assistant's own message (tags), or comes as a message
        of its own through the chat template (Hermes).
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

    def parse(self, text: str, finish: Finish, tools: Sequence[Tool]) -> Parsed:
        """Read the text of one turn."""
        ...

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The results of one turn's calls as text. Their `output` is harmless already.

        An inline format gives the whole block; else this is the content of a tool message, and
        the encoder asks for each call's alone.
        """
        ...

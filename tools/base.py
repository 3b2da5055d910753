"""The interface of tools: a name, typed arguments, and a separate session for each trajectory.

A tool knows nothing of models or tokens. It takes arguments and returns text to read. A mistake of
the model (a syntax error, a timeout, an unknown table) is a `ToolResult` with an error kind and
never an exception; only a failure on our side may be `UNAVAILABLE`, so that a reward can tell the
two apart.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, JsonValue

__all__ = [
    "INTERRUPTED",
    "Artifact",
    "Budgeted",
    "ClosableSession",
    "ErrorKind",
    "LiveSession",
    "PureTool",
    "StartedSession",
    "StatelessSession",
    "Tool",
    "ToolResult",
    "ToolSession",
    "Unforkable",
    "encodable",
]


INTERRUPTED = "(interrupted)"
"""The last line of what a call gave that was stopped while it ran."""


class ErrorKind(StrEnum):
    """Why a call did not do what was asked.

    `REFUSED` and `INTERRUPTED` are the host's decision, `UNAVAILABLE` its failure; all others are
    the caller's doing.
    """

    ARGUMENTS = "arguments"
    """The arguments do not fit the tool's schema."""
    SYNTAX = "syntax"
    """The code, the query, or the call itself does not parse."""
    EXCEPTION = "exception"
    """The code ran and raised."""
    TIMEOUT = "timeout"
    """The call passed its deadline and was stopped."""
    MEMORY = "memory"
    """The call asked for more memory than its limit."""
    FORBIDDEN = "forbidden"
    """The call asked for something the tool does not allow."""
    NOT_FOUND = "not_found"
    """A tool, table, document or other named thing does not exist."""
    REFUSED = "refused"
    """The host refused to run the call (a budget is spent, a person said no)."""
    INTERRUPTED = "interrupted"
    """The host stopped the call while it ran (Ctrl-C, the time for the question is up)."""
    DIED = "died"
    """The code ended the tool's own process; the session starts anew."""
    UNAVAILABLE = "unavailable"
    """The tool itself failed: our fault, not the caller's."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A rich output kept beside the text: a plot, an HTML table, a file."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64"
    )

    mime: str
    data: bytes
    name: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a call.

    `text` is what the model reads, made `encodable`. The loop keeps it within a token budget; a
    tool that knows best what can be left out may be `Budgeted`.
    `state_lost` says that the session was restarted and what earlier calls defined is gone; `text`
    says so too. `seconds` is the wall time of the call.
    """

    text: str
    error: ErrorKind | None = None
    state_lost: bool = False
    seconds: float = 0.0
    artifacts: tuple[Artifact, ...] = ()
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", encodable(self.text))

    @property
    def ok(self) -> bool:
        """True if the call did what was asked."""
        return self.error is None


def encodable(text: str) -> str:
    r"""Text with what UTF-8 can't hold (lone surrogates, as in names of files) written as escapes.

    Example:
        >>> encodable("caf\udce9.txt, \ud83d\ude42")
        'caf\\udce9.txt, 🙂'
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return joined.encode(errors="backslashreplace").decode()
    return text


class Unforkable(RuntimeError):
    """The session cannot be copied as it is; the message says why."""


class ToolSession(Protocol):
    """One trajectory's state inside a tool. Calls come one at a time."""

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        """Run one call, stopped after `seconds`. Never raises for what the caller did.

        When this coroutine is cancelled, the call is stopped and the session stays usable.
        """
        ...

    async def fork(self) -> "ToolSession":
        """A session with a copy of this one's state; raises `Unforkable` where that cannot be.

        A copy that holds something is a `ClosableSession`: whoever made it closes it.
        """
        ...


@runtime_checkable
class ClosableSession(ToolSession, Protocol):
    """A session that holds something of its own: a process, a connection."""

    async def close(self) -> None:
        """Free all it holds. A session that its tool opened is closed by its tool."""
        ...


@runtime_checkable
class StatelessSession(ToolSession, Protocol):
    """A session that keeps nothing between calls: a copy of it is one of any earlier time too."""

    stateless: Literal[True]


@runtime_checkable
class StartedSession(ToolSession, Protocol):
    """A session that takes time to start, or of which there is something to record."""

    async def ready(self) -> None:
        """Wait until a call can begin at once: what a call may take does not count this.

        Called before each call, since a session may have to start anew. Raises `ToolUnavailable`.
        """
        ...

    @property
    def details(self) -> Mapping[str, JsonValue]:
        """The details recorded with the trajectory, once the session is ready."""
        ...


@runtime_checkable
class LiveSession(ToolSession, Protocol):
    """A session that tells what a call shows before its end: to people who wait, and where it is
    cancelled.
    """

    on_output: Callable[[str], None] | None
    """Given each piece of text as it arrives, in the event loop. The result has all of it again."""
    interrupted: ToolResult | None
    """What the last call had given when it was cancelled; None where nothing ran, or it ended."""


@runtime_checkable
class Budgeted(Protocol):
    """A tool that shortens its results itself: it knows what in them can best be spared."""

    def within(self, budget: int, count: Callable[[str], int]) -> "Tool":
        """The same tool, with results of at most `budget` as `count` measures a text.

        One that was given its own budget keeps to that.
        """
        ...


@runtime_checkable
class PureTool(Protocol):
    """A tool that says whether a result depends on the call alone, not on calls before: if so, a
    group of attempts asks it once for equal calls.
    """

    @property
    def pure(self) -> bool:
        """True if equal calls have equal results."""
        ...


class Tool(Protocol):
    """Something a model may call. Stateless itself: state lives in its sessions."""

    @property
    def name(self) -> str:
        """The name the model calls it by: letters, digits and underscores."""
        ...

    @property
    def description(self) -> str:
        """One or two sentences for the model."""
        ...

    @property
    def arguments(self) -> type[BaseModel]:
        """The schema of a call's arguments."""
        ...

    def session(self) -> AbstractAsyncContextManager[ToolSession]:
        """Open a session; leaving the context frees all it holds."""
        ...

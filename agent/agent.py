"""An agent: a model, the tools it is offered, and how it is let act."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self, TypeAlias, TypeVar

from ..rollout.engines import Engine, Sampling
from ..rollout.formats import FORMATS, Format
from ..rollout.limits import Limits
from ..rollout.models import default_format, load_engine
from ..rollout.policy import Policy
from ..tools import FunctionTool, PythonTool, Tool
from ..tools.errors import UsageError
from .background import BackgroundLoop, in_daemon
from .conversation import Conversation
from .result import AgentEvent, Result

__all__ = ["TOOLS", "Agent", "AnyTool"]

T = TypeVar("T")

AnyTool: TypeAlias = str | Tool | Callable[..., Any]
"""A tool by its name, a tool, or a plain typed function."""

TOOLS: dict[str, Callable[[], Tool]] = {"python": PythonTool}
"""The tools that can be asked for by name."""


class Agent:
    """A model that answers questions and calls tools while it thinks.

    `model` is a name (see `load_engine`) or an engine; it is loaded once, at the first question.
    `format` is how the model asks for tools: by default, what suits the model. Without `sampling`
    an agent is greedy: the same question gives the same answer. Use it as a context manager, or
    close it when done; an engine that was passed in stays open.

    The methods whose names end in `_sync` need no event loop and work inside a running one too.

    Example:
        with Agent() as agent:
            print(agent.run_sync("How many bolts are in 296 crates of 4387?").answer)
    """

    def __init__(
        self,
        model: str | Engine = "nano",
        *,
        tools: Sequence[AnyTool] = ("python",),
        format: str | Format | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        device: str = "auto",
    ) -> None:
        """Raises UsageError for a tool or a format that does not exist."""
        self.model = model
        self.tools = [_tool(one) for one in tools]
        self.format = _format(format) if isinstance(format, str) else format
        self.limits = limits or Limits()
        self.sampling = sampling or Sampling(temperature=0.0)
        self.device = device
        self.last: Result | None = None
        """The latest result of `run` or `stream`, of a question that was cancelled too."""
        self._policy: Policy | None = None
        self._loading: asyncio.Task[Policy] | None = None
        self._background: BackgroundLoop | None = None

    # -- async ----------------------------------------------------------------------------------

    async def run(self, question: str) -> Result:
        """Answer one question; never raises for what the model or a tool did.

        Raises ModelError or MissingExtra where the model can't be loaded.
        """
        async with self.conversation() as conversation:
            try:
                return await conversation.ask(question)
            finally:
                self.last = conversation.last

    async def stream(self, question: str) -> AsyncGenerator[AgentEvent, None]:
        """Yield what happens as it happens, and at the end `Done` with the result.

        Closing the stream, or cancelling the task that reads it, stops the answer; what there is of
        it is `last`. Raises as `run` does.
        """
        async with self.conversation() as conversation:
            try:
                async with aclosing(conversation.stream(question)) as events:
                    async for event in events:
                        yield event
            finally:
                self.last = conversation.last

    @asynccontextmanager
    async def conversation(self) -> AsyncIterator[Conversation]:
        """Questions that share one context and the tools' state. Raises as `run` does."""
        async with Conversation(await self.policy()) as conversation:
            yield conversation

    async def policy(self) -> Policy:
        """The model, loaded, with its format, tools and limits: what the runner rolls out."""
        if self._policy is None:
            if self._loading is None or self._loading.done():
                self._loading = asyncio.create_task(self._load())
            # Who stops waiting does not stop the loading: another may wait for it too.
            self._policy = await asyncio.shield(self._loading)
        return self._policy

    async def _load(self) -> Policy:
        if isinstance(self.model, str):
            name = self.model
            engine = await in_daemon(lambda: load_engine(name, device=self.device))
        else:
            name, engine = self.model.name, self.model
        format = self.format or _format(default_format(name, engine.tokenizer, self.tools))
        return Policy(engine, format, self.tools, sampling=self.sampling, limits=self.limits)

    async def aclose(self) -> None:
        """Free the model. The agent loads it again if it is asked again."""
        policy, self._policy = self._policy, None
        if policy is not None and isinstance(self.model, str):
            await policy.engine.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- sync -----------------------------------------------------------------------------------

    def run_sync(self, question: str) -> Result:
        """As `run`. Ctrl-C stops the answer and raises KeyboardInterrupt; `last` is what it had."""
        return self._wait(self.run(question))

    def stream_sync(self, question: str) -> Iterator[AgentEvent]:
        """As `stream`."""
        events = self.stream(question)

        async def step() -> AgentEvent | None:
            return await anext(events, None)

        try:
            while (event := self._wait(step())) is not None:
                yield event
        finally:
            self._wait(events.aclose())

    def close(self) -> None:
        """As `aclose`, for an agent that was used through its sync methods."""
        if self._background is not None:
            self._wait(self.aclose())
            self._background.close()
            self._background = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._background is None:
            self._background = BackgroundLoop()
        return self._background.run(work)


def _tool(one: AnyTool) -> Tool:
    if isinstance(one, str):
        if one not in TOOLS:
            raise UsageError(f"there is no tool {one!r}; there is: {', '.join(TOOLS)}")
        return TOOLS[one]()
    return FunctionTool(one) if callable(one) else one


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]

"""Base class of `Agent` and `Team`: async methods and their synchronous counterparts."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from .background import BackgroundLoop
from .events import AgentEvent
from .result import Result
from .running import Run

__all__ = ["Answers"]

T = TypeVar("T", default=None)
V = TypeVar("V")


class Answers(ABC, Generic[T]):
    """Somebody who can be asked, and their sync twins.

    The methods whose names end in `_sync` need no event loop and work inside a running one too.
    """

    def __init__(self) -> None:
        self.last: Result[T] | None = None
        """The latest result of `run` or `stream`, of a question that was cancelled too."""
        self._background: BackgroundLoop | None = None

    @abstractmethod
    async def run(self, question: str) -> Result[T]:
        """Answer one question."""

    @abstractmethod
    def stream(self, question: str) -> Run[T]:
        """The events as they happen, and at the end `Done` with the result."""

    @abstractmethod
    async def aclose(self) -> None:
        """Free what was started."""

    @abstractmethod
    def _hold(self, kept: bool) -> None:
        """Set whether started tools are kept from question to question."""

    async def __aenter__(self) -> Self:
        self._hold(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hold(False)
        await self.aclose()

    def run_sync(self, question: str) -> Result[T]:
        """As `run`. Ctrl-C stops the answer and raises KeyboardInterrupt; `last` is what it had."""
        return self._wait(self.run(question))

    def stream_sync(self, question: str) -> Iterator[AgentEvent[T]]:
        """As `stream`."""
        return self._events_sync(self.stream(question))

    def close(self) -> None:
        """As `aclose`, for one that was used through its sync methods."""
        if self._background is not None:
            self._wait(self.aclose())
            self._background.close()
            self._background = None

    def __enter__(self) -> Self:
        self._hold(True)
        return self

    def __exit__(self, *_: object) -> None:
        self._hold(False)
        self.close()

    def _events_sync(self, run: Run[T]) -> Iterator[AgentEvent[T]]:
        async def step() -> AgentEvent[T] | None:
            return await anext(run, None)

        try:
            while (event := self._wait(step())) is not None:
                yield event
        finally:
            self._wait(run.aclose())

    def _wait(self, work: Coroutine[Any, Any, V]) -> V:
        if self._background is None:
            self._background = BackgroundLoop()
        return self._background.run(work)

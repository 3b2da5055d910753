"""The interface between the `search` tool and whatever does the searching."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Hit", "Passage", "Retriever"]


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that can be found and cited by its id."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found; a higher score is better, `None` where the searcher gives none."""

    passage: Passage
    score: float | None = None


class Retriever(Protocol):
    """Finds passages. It keeps nothing between searches, and many may run at once.

    `search` raises `ToolUnavailable` when the search itself failed; that nothing was found is an
    empty list. It is stopped by cancelling it.
    """

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Hold the resources that searches share (an index, connections) while any search runs."""
        ...

    async def search(self, query: str, top: int) -> Sequence[Hit]:
        """The best `top` passages for a query, best first."""
        ...

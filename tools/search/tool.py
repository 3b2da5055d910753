"""The `search` tool: words go in, the passages found come out as text."""

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..arguments import read_arguments
from ..base import ErrorKind, ToolResult, ToolSession
from ..errors import InterlaceError, UsageError
from .base import Hit, Retriever
from .http import HttpRetriever
from .index import SearchIndex

__all__ = ["SearchArguments", "SearchTool"]

NO_RESULTS = "No results."
MOST_PASSAGES = 100
_LONGEST_LABEL = 200
"""Characters of a title or an id that are shown."""
_OPEN = 4_000
"""Characters of a result if the caller sets no limit."""
_LONGEST_TOKEN = 32
"""Characters for one unit of a budget, at most: so long a text is not counted, but cut."""
_LEAST = 3
"""How many times the room of its own cut a passage must have, to be shown at all."""


class SearchArguments(BaseModel):
    """The arguments of the `search` tool."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="What to look for, in a few words.")


class SearchTool:
    """Finds passages in files, or asks a search server for them.

    `source` is a file or folder of documents or rows (docs/search.md), whose index lies in the
    folder `index` or in the user's cache; or the address of a server that speaks Search-R1's
    protocol (`http://...`); or any `Retriever`, such as an `HttpRetriever` with its own settings.

    At most `top` passages come back, with title, id and score, cut so that all of it has at most
    `budget` as `count` measures it (characters, or a tokenizer's tokens; the loop gives the tokens
    it has to a tool without a budget). What was cut is said. What is shown is in
    `details["hits"]`, too. Finding nothing is not an error; a search that failed is
    `UNAVAILABLE`.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> async def main(folder: str) -> None:
    ...     corpus = Path(folder, "tea.jsonl")
    ...     corpus.write_text('{"id": "a", "title": "Tea", "text": "Steep it."}')
    ...     async with SearchTool(corpus, index=Path(folder, "index")).session() as session:
    ...         print((await session.call({"query": "how to steep"}, seconds=10)).text)
    >>> with TemporaryDirectory() as folder:
    ...     asyncio.run(main(folder))
    Doc 1 (Title: Tea; id: a; score: 0.49)
    Steep it.
    """

    name = "search"
    pure = True
    """The same words find the same passages: a group of attempts may share them."""
    description = (
        "Searches a collection of texts for the words of the query and returns the passages that "
        "fit best."
    )
    arguments = SearchArguments

    def __init__(
        self,
        source: str | os.PathLike[str] | Retriever,
        top: int = 3,
        *,
        index: str | os.PathLike[str] | None = None,
        budget: int | None = None,
        count: Callable[[str], int] = len,
    ) -> None:
        """Raises `UsageError`, `MissingExtra`, or `DataError` where there is nothing to search."""
        if not 1 <= top <= MOST_PASSAGES:
            raise UsageError(f"a search gives 1 to {MOST_PASSAGES} passages, not {top}")
        if budget is not None and budget < 1:
            raise UsageError(f"the budget of a result must be at least 1, not {budget}")
        self.top = top
        self.budget = budget
        self.count = count
        self.retriever = _retriever(source, index)

    def within(self, budget: int, count: Callable[[str], int]) -> "SearchTool":
        """The same tool with this budget for results, unless it has its own budget."""
        if self.budget is not None:
            return self
        tool = copy(self)
        tool.budget, tool.count = budget, count
        return tool

    def prepare(self) -> None:
        """Build the index or bring it up to date now, not when the first session opens.

        Raises `DataError` where the files can't be read or the index can't be written.
        """
        if isinstance(self.retriever, SearchIndex):
            self.retriever.prepare()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """A session. The first one waits until the index is there."""
        async with self.retriever.opened():
            yield _SearchSession(self)

    async def run(self, query: str, seconds: float) -> ToolResult:
        """Search, stopped after `seconds`."""
        if not query.strip():
            return ToolResult("query: is empty; give some words.", ErrorKind.ARGUMENTS)
        try:
            async with asyncio.timeout(seconds):
                hits = await self.retriever.search(query, self.top)
        except TimeoutError:
            text = f"The time limit of {seconds:g} s was reached."
            return ToolResult(text, ErrorKind.TIMEOUT)
        except InterlaceError as error:
            return ToolResult(f"The search failed: {error}.", ErrorKind.UNAVAILABLE)
        left_out = self._left_out(query)
        note = f"\n\n({left_out})" if left_out else ""
        budget = (self.budget or _OPEN) - self.count(note)
        text, shown = _render(hits[: self.top], budget, self.count)
        found: list[JsonValue] = [
            {"id": hit.passage.id, "title": hit.passage.title, "score": hit.score}
            for hit in hits[:shown]
        ]
        return ToolResult(text + note, details={"hits": found})

    def _left_out(self, query: str) -> str:
        index = self.retriever
        return index.left_out(query) if isinstance(index, SearchIndex) else ""


class _SearchSession:
    """Stateless, so that a copy of it is itself."""

    stateless: Literal[True] = True

    def __init__(self, tool: SearchTool) -> None:
        self._tool = tool

    async def call(self, arguments: Mapping[str, JsonValue], seconds: float) -> ToolResult:
        start = time.perf_counter()
        read = read_arguments(SearchArguments, arguments)
        result = read if isinstance(read, ToolResult) else await self._tool.run(read.query, seconds)
        return dataclasses.replace(result, seconds=time.perf_counter() - start)

    async def fork(self) -> ToolSession:
        return self


def _retriever(
    source: str | os.PathLike[str] | Retriever, index: str | os.PathLike[str] | None
) -> Retriever:
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        source = HttpRetriever(source)
    if isinstance(source, str | os.PathLike):
        return SearchIndex(source, index)
    if index is not None:
        raise UsageError("only files have an index; a search server or retriever takes none")
    return source


def _render(hits: Sequence[Hit], budget: int, count: Callable[[str], int]) -> tuple[str, int]:
    """The text for the model, and the number of passages in it.

    The next passage may use what a passage leaves of its share of the budget. If there is no room
    for a part of each, the last ones are left out, but never the first.
    """
    if not hits:
        return NO_RESULTS, 0
    heads = [_head(rank, hit) for rank, hit in enumerate(hits, start=1)]
    # Measured piece by piece, as tokens of a joined text are hardly ever more than of its pieces.
    sizes = [count(f"{head}\n\n") for head in heads]
    least = _LEAST * count(_cut_note(1_000))
    shown, more = len(hits), ""
    while shown > 1 and sum(sizes[:shown]) + count(more) + shown * least > budget:
        shown -= 1
        more = f"\n\n(the first {shown} of {len(hits)} passages)"
    left = budget - sum(sizes[:shown]) - count(more)
    docs = []
    for rank, (head, hit) in enumerate(zip(heads[:shown], hits, strict=False)):
        text = _cut(hit.passage.text.strip(), max(left // (shown - rank), 0), count)
        left -= count(text)
        docs.append(head + text)
    return "\n\n".join(docs) + more, shown


def _head(rank: int, hit: Hit) -> str:
    labels = [("Title", hit.passage.title), ("id", hit.passage.id)]
    if hit.score is not None:
        labels.append(("score", f"{hit.score:.2f}"))
    # On one line, not longer than one.
    known = "; ".join(
        f"{name}: {_cut(' '.join(value.split()), _LONGEST_LABEL, len)}"
        for name, value in labels
        if value
    )
    return f"Doc {rank} ({known})\n" if known else f"Doc {rank}\n"


def _cut(text: str, budget: int, count: Callable[[str], int]) -> str:
    """Text of at most `budget`, with a note where it was longer. The note is never left out."""
    if len(text) <= budget * _LONGEST_TOKEN and count(text) <= budget:
        return text
    least, most = 0, min(len(text) - 1, budget * _LONGEST_TOKEN)
    while least < most:
        middle = (least + most + 1) // 2
        if count(_beginning(text, middle)) <= budget:
            least = middle
        else:
            most = middle - 1
    return _beginning(text, least)


def _beginning(text: str, characters: int) -> str:
    kept = text[:characters].rstrip()
    return kept + _cut_note(len(text) - len(kept))


def _cut_note(characters: int) -> str:
    return f" [... {characters} more characters]"

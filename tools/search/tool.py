"""The `search` tool: words go in, the passages found come out as text."""

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..arguments import read_arguments
from ..base import ErrorKind, ToolResult, ToolSession
from ..errors import ToolUnavailable, UsageError
from .base import Hit, Retriever
from .http import HttpRetriever
from .index import SearchIndex

__all__ = ["SearchArguments", "SearchTool"]

NO_RESULTS = "No results."
MOST_PASSAGES = 100
_LONGEST_LABEL = 200
"""Characters of a title or an id that are shown."""


class SearchArguments(BaseModel):
    """The arguments of the `search` tool."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="What to look for, in a few words.")


class SearchTool:
    """Finds passages in files, or asks a search server for them.

    `source` is a file or folder of JSONL, text or Markdown, whose index lies in the folder `index`
    or in the user's cache; or the address of a server that speaks Search-R1's protocol
    (`http://...`); or any `Retriever`, such as an `HttpRetriever` with its own settings.

    At most `top` passages come back, with title, id and score, cut so that their texts have at
    most `characters` characters together. What was found stands in `details["hits"]`, too. That
    nothing was found is no error; that the search failed is `UNAVAILABLE`.

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
        characters: int = 4_000,
    ) -> None:
        """Raises `UsageError`, `MissingExtra`, or `DataError` where there is nothing to search."""
        if not 1 <= top <= MOST_PASSAGES:
            raise UsageError(f"a search gives 1 to {MOST_PASSAGES} passages, not {top}")
        if characters < 100:
            raise UsageError("the passages that a search gives need 100 characters or more")
        self.top = top
        self.characters = characters
        self.retriever = _retriever(source, index)

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
        except ToolUnavailable as error:
            return ToolResult(f"The search failed: {error}.", ErrorKind.UNAVAILABLE)
        hits = hits[: self.top]
        found: list[JsonValue] = [
            {"id": hit.passage.id, "title": hit.passage.title, "score": hit.score} for hit in hits
        ]
        return ToolResult(_render(hits, self.characters), details={"hits": found})


class _SearchSession:
    """Stateless, so that a copy of it is itself."""

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


def _render(hits: Sequence[Hit], characters: int) -> str:
    """What the model reads. What a passage leaves of its share of the budget, the next may use."""
    shown = []
    for rank, hit in enumerate(hits, start=1):
        text = _cut(hit.passage.text.strip(), characters // (len(hits) - rank + 1))
        characters -= len(text)
        labels = [("Title", hit.passage.title), ("id", hit.passage.id)]
        if hit.score is not None:
            labels.append(("score", f"{hit.score:.2f}"))
        known = "; ".join(f"{name}: {_label(value)}" for name, value in labels if value)
        shown.append(f"Doc {rank} ({known})\n{text}" if known else f"Doc {rank}\n{text}")
    return "\n\n".join(shown) or NO_RESULTS


def _cut(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    kept = text[: max(characters - 40, 0)].rstrip()
    return f"{kept} [... {len(text) - len(kept)} more characters]"


def _label(text: str) -> str:
    """A title or id on one line, not longer than one."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_LABEL else f"{line[:_LONGEST_LABEL]}..."

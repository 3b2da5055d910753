"""The three families of tasks that the nano policy knows, each with its tool and its formats."""

import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ...rollout.task import Task
from ...tools import Tool
from ...tools.python import PythonTool
from ...tools.search import SearchTool
from ...tools.sql import SqlTool, Workers
from ..coldstart import Solver, solve_arithmetic, solve_database, solve_lookup
from ..generators import arithmetic, database, lookup

__all__ = ["BY_HEART", "FAMILIES", "Family", "Source", "World"]

_CORPORA = 256
"""Corpora whose indexes are kept: more than are read at once."""


class Source(Protocol):
    """Endlessly many tasks, by number."""

    def __getitem__(self, index: int) -> Task:
        """Task number `index`."""
        ...

    def __iter__(self) -> Iterator[Task]:
        """All of them, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of tasks: where they come from, how they are solved and in which formats.

    `source` makes the tasks of a seed and a split, `alike` more tasks on the same database or
    corpus as a task's. `twin` gives the same question in another world, where its answer is another
    one; None for arithmetic, of which there is only one world.
    """

    name: str
    formats: tuple[str, ...]
    source: Callable[[int, str], Source]
    alike: Callable[[int, Task], Source]
    solve: Solver
    twin: Callable[[Task], Task] | None
    questions: tuple[int, ...]
    """How many a conversation has, each as likely."""

    def needs_tool(self, task: Task, format: str) -> bool:
        """Whether the answer can't be known without a call. The number that a query gives can't
        be, be the query as simple as it likes; a query can.
        """
        asks_rows = self.name == "database" and format != "reex_sql"
        return bool(task.data["needs_tool"]) or asks_rows


def _database(seed: int, split: str) -> Source:
    return database.Databases(seed, split)


def _lookup(seed: int, split: str) -> Source:
    # Each level more often than the one below it.
    return lookup.Lookups(seed, split, levels=(0, 1, 1, 2, 2, 2))


def _arithmetic(without_tool: float) -> Family:
    """Problems that need no tool have a larger share in training, as they take longer to learn."""

    def source(seed: int, split: str) -> Source:
        share = without_tool if split == "train" else 0.25
        return arithmetic.Arithmetic(seed, split, without_tool=share)

    return Family(
        "arithmetic",
        ("retool", "hermes"),
        source,
        lambda seed, task: source(seed, task.data["split"]),
        solve_arithmetic,
        None,
        (1, 1, 2, 3, 4, 6),
    )


FAMILIES: Mapping[str, Family] = {
    "arithmetic": _arithmetic(0.4),
    "database": Family(
        "database",
        ("reex_sql", "hermes"),
        _database,
        lambda seed, task: database.Databases(
            seed, task.data["split"], database=task.data["database"]
        ),
        solve_database,
        database.twin,
        (1, 1, 2, 3),
    ),
    "lookup": Family(
        "lookup",
        ("search_r1", "hermes"),
        _lookup,
        lambda seed, task: replace(
            lookup.Lookups(seed, task.data["split"], levels=(0, 1, 1, 2, 2, 2)),
            corpus=task.data["corpus"],
        ),
        solve_lookup,
        lookup.twin,
        (1, 1, 2, 3),
    ),
}

BY_HEART: Mapping[str, Family] = {**FAMILIES, "arithmetic": _arithmetic(0.8)}
"""The same families, with mostly such arithmetic as is known or not: sums of two digits, say."""


class World:
    """The tools that tasks come with: one interpreter for all, a database or a corpus for each.

    Tasks on the same corpus share its index, which lies in a folder of its own until the world is
    left.
    """

    def __init__(self, python: Tool | None = None) -> None:
        self.python = python or PythonTool()
        self._workers = Workers(1)
        self._searches: OrderedDict[str, tuple[SearchTool, Path]] = OrderedDict()
        self._one_at_a_time = threading.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "World":
        folder = tempfile.TemporaryDirectory(prefix="interlace-corpora-")
        self._folder = Path(self._stack.enter_context(folder))
        await self._stack.enter_async_context(self._workers.held())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._searches.clear()
        await self._stack.aclose()

    def tool(self, task: Task) -> Tool:
        """The tool that a task is solved with."""
        if "database" in task.data:
            return SqlTool(database.open_database(task, workers=self._workers))
        if "corpus" in task.data:
            return self._search(task.data["corpus"])
        return self.python

    def tools(self, task: Task) -> Sequence[Tool]:
        """The same, as a runner asks for it."""
        return [self.tool(task)]

    async def right(self, task: Task, format: str, answer: str | None) -> bool:
        """Whether an answer is right: a query, where the format answers with one, by its rows."""
        if answer is None:
            return False
        if format == "reex_sql":
            return bool(await database.check_query(task, answer, workers=self._workers))
        return arithmetic.check(task, answer)

    def _search(self, corpus: Mapping[str, Any]) -> SearchTool:
        with self._one_at_a_time:  # a runner asks from many threads
            return self._cached(f"{corpus['names']} {corpus['facts']}", corpus)

    def _cached(self, key: str, corpus: Mapping[str, Any]) -> SearchTool:
        if key not in self._searches:
            while len(self._searches) >= _CORPORA:
                _, (_, oldest) = self._searches.popitem(last=False)
                shutil.rmtree(oldest)  # whoever still reads it has the files open
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            file = lookup.write_corpus(corpus, folder / "corpus.jsonl")
            self._searches[key] = (SearchTool(file, index=folder / "index"), folder)
        return self._searches[key][0]

"""The tools that tasks bring: one interpreter for all, a database or a corpus for each."""

import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from ...rollout.task import Task
from ...tools import Tool
from ...tools.errors import UsageError
from ...tools.importing import find
from ...tools.named import TOOLS
from ...tools.python import PythonTool
from ...tools.search import SearchTool
from ...tools.sql import Workers, connect_file
from .generators import database, lookup

__all__ = ["TaskTools", "bring_tools", "check_tools"]

_CORPORA = 256
"""Corpora whose indexes are kept: more than are read at once."""


def bring_tools(tasks: Iterable[Task]) -> bool:
    """Return True if any of the tasks comes with a database or a corpus of its own."""
    return any("database" in task.data or "corpus" in task.data for task in tasks)


def check_tools(tasks: Iterable[Task]) -> None:
    """Check that tasks whose tools nobody named can be solved with the tools that they bring.

    Raises UsageError for tasks that are to be searched for and bring no corpus.
    """
    for task in tasks:
        if "search" in task.data.get("tools", ()) and "corpus" not in task.data:
            raise UsageError(
                "these tasks are to be answered by searching, and no corpus comes with them: name "
                "one as a tool (search:PATH), or name other tools (python, none)"
            )


class TaskTools:
    """The tool each task is solved with, as a runner's `tools_for`.

    A task whose `data["database"]` is a path is asked of that file; a generated database is built
    in memory, a generated corpus indexed in a temporary folder that tasks on the same corpus share.
    Other tasks get `python`. Use it as an async context manager.

    Example:
        async with TaskTools() as tools:
            runner = Runner(policy, tools_for=tools)
    """

    def __init__(self, python: Tool | None = None, *, sql: str = "sql") -> None:
        """`sql` names the tool for tasks with a database, with its settings: `sql@rows=3`.

        Raises UsageError for settings that it does not have.
        """
        self.python = python or PythonTool()
        self._sql: Callable[..., Tool] = find("tool", sql, TOOLS).bind(TOOLS["sql"])
        self.workers = Workers(1)
        """The processes that answer queries on generated databases."""
        self._searches: OrderedDict[str, tuple[SearchTool, Path]] = OrderedDict()
        self._one_at_a_time = threading.Lock()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Make the folder of the indexes and hold the SQL workers."""
        folder = tempfile.TemporaryDirectory(prefix="interlace-corpora-")
        self._folder = Path(self._stack.enter_context(folder))
        await self._stack.enter_async_context(self.workers.held())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._searches.clear()
        await self._stack.aclose()

    def __call__(self, task: Task) -> Sequence[Tool]:
        """The tools of a task, as a runner asks for them."""
        return [self.tool(task)]

    def tool(self, task: Task) -> Tool:
        """The tool that a task is solved with."""
        if isinstance(place := task.data.get("database"), str):
            connect_file(place)  # refuses the address of a server
            return self._sql(place)
        if "database" in task.data:
            return self._sql(database.open_database(task, workers=self.workers))
        if "corpus" in task.data:
            with self._one_at_a_time:  # a runner asks from many threads
                return self._search(task.data["corpus"])
        return self.python

    def _search(self, corpus: Mapping[str, Any]) -> SearchTool:
        key = f"{corpus['names']} {corpus['facts']}"
        if key not in self._searches:
            while len(self._searches) >= _CORPORA:
                _, (_, oldest) = self._searches.popitem(last=False)
                shutil.rmtree(oldest)  # a session that still reads it has the files open
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            file = lookup.write_corpus(corpus, folder / "corpus.jsonl")
            self._searches[key] = (SearchTool(file, index=folder / "index"), folder)
        return self._searches[key][0]

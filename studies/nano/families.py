"""The three families of tasks that the nano policy knows, each with its tool and its formats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from interlace.rollout.task import Task
from interlace.train.data.generators import arithmetic, database, lookup
from interlace.train.data.generators.catalog import GENERATORS, LOOKUP_LEVELS
from interlace.train.data.generators.endless import EndlessTasks
from interlace.train.data.task_tools import TaskTools

from .solve_arithmetic import solve_arithmetic
from .solve_lookups import solve_database, solve_lookup
from .solver import Solver

__all__ = ["BY_HEART", "FAMILIES", "Family", "is_right"]


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of tasks: where they come from, how they are solved and in which formats.

    `source` makes the tasks of a seed and a split, `alike` more tasks on the same database or
    corpus as a task's. `twin` gives the same question in another world, where its answer is another
    one; None for arithmetic, of which there is only one world.
    """

    name: str
    formats: tuple[str, ...]
    source: Callable[[int, str], EndlessTasks]
    alike: Callable[[int, Task], EndlessTasks]
    solve: Solver
    twin: Callable[[Task], Task] | None
    questions: tuple[int, ...]
    """How many a conversation has, each as likely."""

    def needs_tool(self, task: Task, format: str) -> bool:
        """True if the answer can't be known without a call. The number that a query gives can't
        be, however simple the query; the query itself can.
        """
        asks_rows = self.name == "database" and format != "reex_sql"
        return bool(task.data["needs_tool"]) or asks_rows


def _arithmetic(source: Callable[[int, str], EndlessTasks]) -> Family:
    return Family(
        "arithmetic",
        ("retool", "hermes"),
        source,
        lambda seed, task: source(seed, task.data["split"]),
        solve_arithmetic,
        None,
        (1, 1, 2, 3, 4, 6),
    )


def _mostly_without_tool(seed: int, split: str) -> EndlessTasks:
    return arithmetic.Arithmetic(seed, split, without_tool=0.8 if split == "train" else 0.25)


FAMILIES: Mapping[str, Family] = {
    "arithmetic": _arithmetic(GENERATORS["arithmetic"]),
    "database": Family(
        "database",
        ("reex_sql", "hermes"),
        GENERATORS["database"],
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
        GENERATORS["lookup"],
        lambda seed, task: replace(
            lookup.Lookups(seed, task.data["split"], levels=LOOKUP_LEVELS),
            corpus=task.data["corpus"],
        ),
        solve_lookup,
        lookup.twin,
        (1, 1, 2, 3),
    ),
}

BY_HEART: Mapping[str, Family] = {**FAMILIES, "arithmetic": _arithmetic(_mostly_without_tool)}
"""The same families, with mostly such arithmetic as is known or not: sums of two digits, say."""


async def is_right(tools: TaskTools, task: Task, format: str, answer: str | None) -> bool:
    """Return True for a right answer. A query, in the format that answers with one, is judged by
    the rows it returns.
    """
    if answer is None:
        return False
    if format == "reex_sql":
        return bool(await database.check_query(task, answer, workers=tools.workers))
    return arithmetic.check(task, answer)

"""Questions over small databases whose values have to be looked up before a query can be right.

The question names things as people do ("New Haven", "lost", "3 kg"); the database spells the place
in its own way, keeps the kind as a code and the amount in another unit, and no two databases do it
alike. Every task follows from (seed, split, index) alone, and its database from the task's `data`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...rollout.task import Task, equal_answers
from ...tools.sql import (
    COMPARED,
    Comparison,
    QueryFailed,
    SqliteDatabase,
    Workers,
    equal_results,
)
from .worlds import PLACES, STYLES, WORLDS, World

__all__ = ["LEVELS", "LOOKUPS", "SPLITS", "Databases", "check", "check_query", "open_database"]

SPLITS = ("train", "test", "held_out")
LOOKUPS = ("place", "kind", "amount")
LEVELS: dict[int, tuple[tuple[str, ...], ...]] = {
    1: ((),),
    2: (("place",),),
    3: (("kind",),),
    4: (("amount",),),
    5: (("place", "kind"), ("place", "amount"), ("kind", "amount")),
    6: (LOOKUPS,),
}
"""The combinations of values that must be looked up, by level."""
_AGGREGATES = {"count": "count(*)", "total": "sum({})", "most": "max({})"}


@dataclass(frozen=True, slots=True)
class Databases:
    """A source of tasks.

    `split`: `train`, `test` (trained worlds, unseen questions) or `held_out` (worlds that are
    never trained on). `levels`: 1 needs no lookup, 2 the spelling of a place, 3 a code, 4 a unit,
    5 two of them, 6 all three.

    A task's `data` holds `gold` (the query), `steps` (the queries that lead to it, `gold` being
    the last one), `lookups`, `level`, `template`, `split`, `needs_tool`, and `database`, from
    which `open_database` makes it.

    Example:
        >>> task = next(iter(Databases(seed=1, split="test")))
        >>> check(task, task.answer)
        True
    """

    seed: int
    split: str = "train"
    levels: tuple[int, ...] = tuple(LEVELS)

    def __post_init__(self) -> None:
        """Refuse what no task can be drawn from."""
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {self.split!r}")
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise ValueError(f"levels must be numbers from 1 to {len(LEVELS)}, not {self.levels!r}")

    def __iter__(self) -> Iterator[Task]:
        """Endlessly many tasks."""
        index = 0
        while True:
            yield self[index]
            index += 1

    def __getitem__(self, index: int) -> Task:
        """Task number `index`, without drawing those before it."""
        rng = random.Random(f"database {self.seed} {self.split} {index}")
        held_out = self.split == "held_out"
        worlds = [i for i, world in enumerate(WORLDS) if world.held_out == held_out]
        while True:  # some draws belong to the other split, or their lookups change nothing
            made = _Made(rng.choice(worlds), rng.randrange(2**31))
            level = rng.choice(self.levels)
            question = _ask(made, rng.choice(LEVELS[level]), rng)
            if question is None or (not held_out and question.is_test != (self.split == "test")):
                continue
            data = question.data | {"level": level, "split": self.split}
            id = f"database-{self.split}-{self.seed}-{index}"
            return Task(id, question.text, question.answer, data)


def open_database(task: Task, *, workers: Workers | None = None) -> SqliteDatabase:
    """The task's database: the same from the same task, whenever and wherever."""
    made = task.data["database"]
    return SqliteDatabase.memory(_Made(made["world"], made["seed"]).script(), workers=workers)


def check(task: Task, answer: str | None) -> bool:
    """Whether `answer` is the task's answer, exactly."""
    return answer is not None and task.answer is not None and equal_answers(answer, task.answer)


async def check_query(
    task: Task, query: str, *, workers: Workers | None = None, seconds: float = 5.0
) -> Comparison:
    """Whether a query gives what the gold query gives. A query that fails gives nothing.

    Raises `QueryFailed` where the gold query fails: that is our fault, and no reward of 0.
    """
    database = open_database(task, workers=workers)
    async with database.held():
        gold = await database.query(task.data["gold"], COMPARED, seconds)
        try:
            predicted = await database.query(query, COMPARED, seconds)
        except QueryFailed as error:
            return Comparison(False, error.text)
    return equal_results(task.data["gold"], predicted, gold)


# -- a database ----------------------------------------------------------------------------------


class _Made:
    """A database: what its world leaves open follows from a seed."""

    def __init__(self, world: int, seed: int) -> None:
        rng = random.Random(f"world {world} {seed}")
        self.key = {"world": world, "seed": seed}
        self.world: World = WORLDS[world]
        self.style = rng.choice(sorted(STYLES))
        self.places = rng.sample(PLACES, 5)
        self.codes = dict(zip(self.world.kinds, _codes(rng, len(self.world.kinds)), strict=True))
        self.large = rng.random() < 0.5
        """Whether amounts are kept in the larger unit."""
        scale = 1 if self.large else self.world.factor
        self.rows = [
            (
                i + 1,
                rng.choice(self.places),
                rng.choice(self.world.kinds),
                rng.randint(1, 20 * scale),
                rng.randint(2, 60),
            )
            for i in range(rng.randint(20, 40))
        ]

    @property
    def unit(self) -> str:
        return self.world.units[self.large]

    def spelt(self, name: str) -> str:
        return STYLES[self.style](name)

    def script(self) -> str:
        w = self.world
        rows = ", ".join(
            f"({i}, '{self.spelt(place)}', '{self.codes[kind]}', {amount}, {number})"
            for i, place, kind, amount, number in self.rows
        )
        kinds = ", ".join(f"('{code}', '{self.spelt(kind)}')" for kind, code in self.codes.items())
        return (
            f"create table {w.table} (id integer primary key, {w.place} text, {w.kind} text, "
            f"{w.amount} integer, {w.number} integer);\n"
            f"insert into {w.table} values {rows};\n"
            f"create table {w.kind}_code (code text primary key, meaning text);\n"
            f"insert into {w.kind}_code values {kinds};\n"
            f"create table unit (column_name text primary key, unit text);\n"
            f"insert into unit values ('{w.amount}', '{self.unit}');\n"
        )

    def schema(self) -> str:
        w = self.world
        columns = ", ".join(["id", w.place, w.kind, w.amount, w.number])
        return f"{w.table}({columns}), {w.kind}_code(code, meaning), unit(column_name, unit)"


def _codes(rng: random.Random, number: int) -> list[str]:
    letter = rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ")
    return [f"{letter}{digits}" for digits in rng.sample(range(10, 100), number)]


# -- a question ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Question:
    text: str
    answer: str
    is_test: bool
    data: dict[str, Any]


def _ask(made: _Made, lookups: tuple[str, ...], rng: random.Random) -> _Question | None:
    """A question with these lookups; None where leaving one of them out gives the same answer."""
    w = made.world
    aggregate = rng.choice(sorted(_AGGREGATES))
    place, kind = rng.choice(made.places), rng.choice(w.kinds)
    larger = rng.randint(2, 12)
    stored = larger * (1 if made.large else w.factor)
    asked = larger * (w.factor if made.large else 1)
    at_least = rng.randint(10, 40) if not lookups else None

    def answer(limit: int) -> int | None:
        numbers = [
            n
            for _, p, k, a, n in made.rows
            if ("place" not in lookups or p == place)
            and ("kind" not in lookups or k == kind)
            and ("amount" not in lookups or a > limit)
            and (at_least is None or n >= at_least)
        ]
        if aggregate == "count":
            return len(numbers)
        return (sum(numbers) if aggregate == "total" else max(numbers)) if numbers else None

    right = answer(stored)
    if not right or ("amount" in lookups and right == answer(asked)):
        return None
    where, steps = _conditions(made, lookups, place, kind, stored)
    if at_least is not None:
        where.append(f"{w.number} >= {at_least}")
    gold = (
        f"select {_AGGREGATES[aggregate].format(w.number)} from {w.table} "
        f"where {' and '.join(where)}"
    )
    which = _which(w, lookups, place, kind, f"{asked} {w.units[not made.large]}")
    if at_least is not None:
        which = f"{w.things} that have at least {at_least} {w.number}"
    text = rng.choice(_wordings(w, aggregate)).format(which)
    data = {
        "gold": gold,
        "steps": [*steps, gold],
        "lookups": list(lookups),
        "needs_tool": bool(lookups),
        "template": f"{w.table}/{aggregate}",
        "database": made.key,
    }
    key = f"{w.table} {aggregate} {which}"
    is_test = hashlib.blake2b(key.encode(), digest_size=8).digest()[0] % 10 == 0
    return _Question(f"Tables: {made.schema()}\n{text}", str(right), is_test, data)


def _conditions(
    made: _Made, lookups: tuple[str, ...], place: str, kind: str, stored: int
) -> tuple[list[str], list[str]]:
    """The conditions of the gold query, and the queries that find their values."""
    w = made.world
    conditions = {
        "place": f"{w.place} = '{made.spelt(place)}'",
        "kind": f"{w.kind} = '{made.codes[kind]}'",
        "amount": f"{w.amount} > {stored}",
    }
    steps = {
        "place": f"select distinct {w.place} from {w.table}",
        "kind": f"select code, meaning from {w.kind}_code",
        "amount": f"select unit from unit where column_name = '{w.amount}'",
    }
    return [conditions[each] for each in lookups], [steps[each] for each in lookups]


def _which(w: World, lookups: tuple[str, ...], place: str, kind: str, limit: str) -> str:
    that = [w.of_kind.format(kind)] if "kind" in lookups else []
    that += [w.more.format(limit)] if "amount" in lookups else []
    at = [w.at.format(place)] if "place" in lookups else []
    return " ".join([w.things, *at, *(["that", " and ".join(that)] if that else [])])


def _wordings(w: World, aggregate: str) -> tuple[str, ...]:
    of = w.counted  # such as "pieces in the {}"
    if aggregate == "count":
        return ("How many {} are there?", "What is the number of {}?", "Count the {}.")
    if aggregate == "total":
        return (f"How many {of} are there in total?", f"What is the total number of {of}?")
    return (
        f"What is the largest number of {w.number} that one of the {{}} has?",
        f"Of the {{}}, what is the highest number of {w.number}?",
    )

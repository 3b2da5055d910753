"""Questions over small databases whose values have to be looked up before a query can be right.

The question names things as people do ("New Haven", "lost", "3 kg"); the database spells the place
in its own way, keeps the kind as a code and the amount in another unit, and no two databases do it
alike. Every task follows from (seed, split, index) alone, and its database from the task's `data`.
"""

import hashlib
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ....rollout.task import Task, equal_answers
from ....tools.sql import COMPARED, Comparison, QueryFailed, SqliteDatabase, Workers, equal_results
from .endless import EndlessTasks
from .table_domains import PLACES, STYLES, TABLE_DOMAINS, TableDomain

__all__ = [
    "LEVELS",
    "LOOKUPS",
    "Databases",
    "check",
    "check_query",
    "open_database",
    "script",
    "twin",
]

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
class Databases(EndlessTasks):
    """A source of tasks.

    `split`: `train`, `test` (trained domains, unseen questions) or `held_out` (domains that are
    never trained on). `levels`: 1 needs no lookup, 2 the spelling of a place, 3 a code, 4 a unit,
    5 two of them, 6 all three.

    A task's `data` holds `gold` (the query), `steps` (the queries that lead to it, `gold` being
    the last one), `facts` (for each lookup: what the question says, what the database says, what
    the query has to say), `lookups`, `level`, `template`, `split`, `needs_tool`, and `database`,
    from which `open_database` makes it.

    `database`: all questions are about this one (a task's `data["database"]`); else about one each.
    The question does not say what tables there are: the tool's description does.

    Example:
        >>> task = next(iter(Databases(seed=1, split="test")))
        >>> check(task, task.answer)
        True
    """

    levels: tuple[int, ...] = tuple(LEVELS)
    database: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Refuse settings from which no task can be drawn."""
        EndlessTasks.__post_init__(self)
        if not self.levels or not set(self.levels) <= set(LEVELS):
            raise ValueError(f"levels must be numbers from 1 to {len(LEVELS)}, not {self.levels!r}")

    def __getitem__(self, index: int) -> Task:
        """Task number `index`, without drawing those before it."""
        rng = random.Random(f"database {self.seed} {self.split} {index}")
        held_out = self.split == "held_out"
        domains = [i for i, each in enumerate(TABLE_DOMAINS) if each.held_out == held_out]
        while True:  # some draws belong to the other split, or their lookups change nothing
            if self.database is not None:
                made = _Made(**self.database)
            else:
                made = _Made(rng.choice(domains), rng.randrange(2**31))
            level = rng.choice(self.levels)
            asked = _draw(made, rng.choice(LEVELS[level]), rng)
            if not held_out and asked.is_test != (self.split == "test"):
                continue
            id = f"database-{self.split}-{self.seed}-{index}"
            task = _task(id, made, asked, {"level": level, "split": self.split})
            if task is not None:
                return task


def twin(task: Task) -> Task:
    """The same question over another database of its domain, where the answer is another one."""
    data = task.data
    asked = _Asked(**data["asked"])
    for attempt in itertools.count():
        key = data["database"] | {"seed": data["database"]["seed"] + 1 + attempt}
        places = _Made(**data["database"]).places
        made = _Made(**(key | {"places": places}))
        other = _task(f"{task.id}-twin", made, asked, {n: data[n] for n in ("level", "split")})
        if other is None or other.answer == task.answer:
            continue
        if not asked.lookups or other.data["gold"] != task.data["gold"]:
            return other
    raise AssertionError("unreachable")


def script(database: Mapping[str, Any]) -> str:
    """The SQL script that makes a task's `data["database"]`."""
    return _Made(**database).script()


def open_database(task: Task, *, workers: Workers | None = None) -> SqliteDatabase:
    """The task's database: the same from the same task, whenever and wherever."""
    return SqliteDatabase.memory(script(task.data["database"]), workers=workers)


def check(task: Task, answer: str | None) -> bool:
    """True if `answer` is the task's answer, exactly."""
    return answer is not None and task.answer is not None and equal_answers(answer, task.answer)


async def check_query(
    task: Task, query: str, *, workers: Workers | None = None, seconds: float = 5.0
) -> Comparison:
    """Compare a query's result with the gold query's. A query that fails is not equal.

    Raises `QueryFailed` if the gold query fails: that is our fault, and not a reward of 0.
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
    """A database: what its domain leaves open follows from a seed."""

    def __init__(self, world: int, seed: int, places: Sequence[str] | None = None) -> None:
        rng = random.Random(f"world {world} {seed}")
        self.key: dict[str, Any] = {"world": world, "seed": seed}
        self.domain = TABLE_DOMAINS[world]
        self.style = rng.choice(sorted(STYLES))
        self.places = rng.sample(PLACES, 5)
        if places is not None:
            self.key["places"] = self.places = list(places)
        letter = rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ")
        numbers = rng.sample(range(10, 100), len(self.domain.kinds))
        codes = [f"{letter}{number}" for number in numbers]
        self.codes = dict(zip(self.domain.kinds, codes, strict=True))
        self.large = rng.random() < 0.5
        """Whether amounts are kept in the larger unit."""
        scale = 1 if self.large else self.domain.factor
        self.rows = [
            (
                i + 1,
                rng.choice(self.places),
                rng.choice(self.domain.kinds),
                rng.randint(1, 20 * scale),
                rng.randint(2, 60),
            )
            for i in range(rng.randint(20, 40))
        ]

    @property
    def unit(self) -> str:
        return self.domain.units[self.large]

    def spelt(self, name: str) -> str:
        return STYLES[self.style](name)

    def script(self) -> str:
        w = self.domain
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


# -- a question ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """The content of a question, whatever the database."""

    lookups: Sequence[str]
    aggregate: str
    place: str
    kind: str
    larger: int
    """The amount, in the larger unit; `in_larger`: whether the question says it so."""
    in_larger: bool
    at_least: int | None
    which: str
    wording: int

    @property
    def is_test(self) -> bool:
        """One question in ten, by a hash that no Python version changes."""
        key = f"{self.aggregate} {self.which}"
        return hashlib.blake2b(key.encode(), digest_size=8).digest()[0] % 10 == 0


def _draw(made: _Made, lookups: Sequence[str], rng: random.Random) -> _Asked:
    w = made.domain
    aggregate = rng.choice(sorted(_AGGREGATES))
    place, kind = rng.choice(made.places), rng.choice(w.kinds)
    larger = rng.randint(2, 12)
    in_larger = not made.large  # in the unit that the database does not have
    at_least = rng.randint(10, 40) if not lookups else None
    if at_least is not None:
        which = f"{w.things} that have at least {at_least} {w.number}"
    else:
        amount = f"{larger if in_larger else larger * w.factor} {w.units[in_larger]}"
        which = _which(w, lookups, place, kind, amount)
    wording = rng.randrange(len(_wordings(w, aggregate)))
    return _Asked(
        list(lookups), aggregate, place, kind, larger, in_larger, at_least, which, wording
    )


def _task(id: str, made: _Made, asked: _Asked, data: dict[str, Any]) -> Task | None:
    """A question as a task; None where leaving a lookup out would give the same answer."""
    w = made.domain
    stored = asked.larger * (1 if made.large else w.factor)
    said = asked.larger * (1 if asked.in_larger else w.factor)

    def answer(limit: int) -> int | None:
        numbers = [
            n
            for _, p, k, a, n in made.rows
            if ("place" not in asked.lookups or p == asked.place)
            and ("kind" not in asked.lookups or k == asked.kind)
            and ("amount" not in asked.lookups or a > limit)
            and (asked.at_least is None or n >= asked.at_least)
        ]
        if asked.aggregate == "count":
            return len(numbers)
        return (sum(numbers) if asked.aggregate == "total" else max(numbers)) if numbers else None

    right = answer(stored)
    trap = "amount" in asked.lookups and asked.in_larger != made.large
    if not right or (trap and right == answer(said)):
        return None
    conditions, steps, facts = _lookups(made, asked, said, stored)
    if asked.at_least is not None:
        conditions.append(f"{w.number} >= {asked.at_least}")
    gold = (
        f"select {_AGGREGATES[asked.aggregate].format(w.number)} from {w.table} "
        f"where {' and '.join(conditions)}"
    )
    data |= {
        "gold": gold,
        "steps": [*steps, gold],
        "facts": facts,
        "lookups": list(asked.lookups),
        "needs_tool": bool(asked.lookups),
        "template": f"{w.table}/{asked.aggregate}",
        "database": made.key,
        "asked": asdict(asked),
    }
    question = _wordings(w, asked.aggregate)[asked.wording].format(asked.which)
    return Task(id, question, str(right), data)


def _lookups(
    made: _Made, asked: _Asked, said: int, stored: int
) -> tuple[list[str], list[str], list[list[str]]]:
    """The conditions of the gold query, the queries that find their values, and what they find."""
    w = made.domain
    conditions = {
        "place": f"{w.place} = '{made.spelt(asked.place)}'",
        "kind": f"{w.kind} = '{made.codes[asked.kind]}'",
        "amount": f"{w.amount} > {stored}",
    }
    steps = {
        "place": f"select distinct {w.place} from {w.table}",
        "kind": f"select code, meaning from {w.kind}_code",
        "amount": f"select unit from unit where column_name = '{w.amount}'",
    }
    found = {
        "place": [asked.place, made.spelt(asked.place), made.spelt(asked.place)],
        "kind": [asked.kind, made.codes[asked.kind], made.codes[asked.kind]],
        "amount": [f"{said} {w.units[asked.in_larger]}", made.unit, str(stored)],
    }
    each = asked.lookups
    return [conditions[n] for n in each], [steps[n] for n in each], [found[n] for n in each]


def _which(w: TableDomain, lookups: Sequence[str], place: str, kind: str, limit: str) -> str:
    that = [w.of_kind.format(kind)] if "kind" in lookups else []
    that += [w.more.format(limit)] if "amount" in lookups else []
    at = [w.at.format(place)] if "place" in lookups else []
    return " ".join([w.things, *at, *(["that", " and ".join(that)] if that else [])])


def _wordings(w: TableDomain, aggregate: str) -> tuple[str, ...]:
    of = w.counted  # such as "pieces in the {}"
    if aggregate == "count":
        return ("How many {} are there?", "What is the number of {}?", "Count the {}.")
    if aggregate == "total":
        return (f"How many {of} are there in total?", f"What is the total number of {of}?")
    return (
        f"What is the largest number of {w.number} that one of the {{}} has?",
        f"Of the {{}}, what is the highest number of {w.number}?",
    )

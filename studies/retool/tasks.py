"""Little stories in which something becomes more and less: small enough for text to work them out.

Whether a verb adds or takes away has to be known. Demonstrations show some of the verbs only; the
others are met in reinforcement learning for the first time, where nothing but the outcome says what
they mean. Every task follows from (seed, split, index) alone; the numbers of a story decide its
split, so that no held-out story can have been trained on.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from interlace.rollout.task import Task
from interlace.train.data.generators.endless import EndlessTasks

__all__ = ["SPLITS", "Stories", "expression", "working"]

SPLITS = ("train", "choose", "test")
"""Trained on; for the choice of the checkpoints that are compared; for what is reported."""

SHOWN = {
    "+": ("finds", "buys", "gets", "wins", "earns", "picks"),
    "-": ("loses", "sells", "breaks", "eats", "drops", "spends"),
}
"""Verbs of the demonstrations."""
FURTHER = {
    "+": ("gathers", "inherits", "catches", "borrows"),
    "-": ("burns", "donates", "wastes", "lends"),
}
"""Verbs that demonstrations leave out."""
NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Leo")
ITEMS = ("pens", "coins", "nuts", "cards", "shells", "figs", "stamps", "plums", "beads", "pears")
LEAST, MOST = 2, 12
"""The numbers of a story; what is left never falls below `LEAST`."""


@dataclass(frozen=True, slots=True)
class Stories(EndlessTasks):
    """A source of tasks, endless or by index.

    `changes`: how often the number changes. `shown`: only verbs of the demonstrations. A task's
    `data` holds `numbers` (the first, then what is added or, below 0, taken away).

    Example:
        >>> task = Stories(seed=1, split="test", changes=(2,))[0]
        >>> len(task.data["numbers"]), str(sum(task.data["numbers"])) == task.answer
        (3, True)
    """

    splits: ClassVar[Sequence[str]] = SPLITS

    changes: tuple[int, ...] = (1, 2, 3)
    shown: bool = False

    def __getitem__(self, index: int) -> Task:
        """Task number `index`, without drawing those before it."""
        rng = random.Random(f"stories {self.seed} {self.split} {index}")
        while True:
            numbers = _numbers(rng, rng.choice(self.changes))
            if _split(numbers) == self.split:
                break
        verbs = {sign: SHOWN[sign] if self.shown else SHOWN[sign] + FURTHER[sign] for sign in "+-"}
        name, item = rng.choice(NAMES), rng.choice(ITEMS)
        parts = [f"{name} has {numbers[0]} {item}"]
        for number in numbers[1:]:
            verb = rng.choice(verbs["+" if number > 0 else "-"])
            parts.append(f"{verb} {abs(number)}")
        question = f"{', '.join(parts)}. How many {item}?"
        id = f"stories-{self.split}-{self.seed}-{index}"
        return Task(id, question, str(sum(numbers)), {"numbers": numbers})


def _numbers(rng: random.Random, changes: int) -> list[int]:
    numbers = [rng.randint(LEAST, MOST)]
    for _ in range(changes):
        left = sum(numbers)
        takes = left > 2 * LEAST and rng.random() < 0.5
        most = min(MOST, left - LEAST) if takes else MOST
        number = rng.randint(LEAST, most)
        numbers.append(-number if takes else number)
    return numbers


def _split(numbers: list[int]) -> str:
    """A tenth each to choose and to test, by a hash that no Python version changes."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return {0: "choose", 1: "test"}.get(digest[0] % 10, "train")


def expression(task: Task) -> str:
    """The expression given to an interpreter.

    Example:
        >>> expression(Task("a", "?", "10", {"numbers": [4, 8, -2]}))
        '4+8-2'
    """
    first, *rest = task.data["numbers"]
    return f"{first}" + "".join(f"{number:+}" for number in rest)


def working(task: Task) -> str:
    """The same in written steps.

    Example:
        >>> working(Task("a", "?", "10", {"numbers": [4, 8, -2]}))
        '4+8=12, 12-2=10'
    """
    left, *rest = task.data["numbers"]
    steps = []
    for number in rest:
        steps.append(f"{left}{number:+}={left + number}")
        left += number
    return ", ".join(steps)

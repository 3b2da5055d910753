"""Problems of known difficulty, experts of known strength, a price of tokens: what is best follows.

A situation says how hard a problem is, how strong the experts are, what tokens cost, and perhaps
how sure it is that the solution so far is right. A CEO continues with so many experts of so many
tokens each, or stops. Then

    one expert's chance     p = skill * (1 - exp(-tokens / depth)), less skill and more depth for
                            harder problems
    the team's chance       1 - (1 - p)^experts, or 1 - (1 - right so far) * (1 - p)^experts
    the reward              the team's chance - price * experts * tokens / 1000

It is the expected reward: nothing is drawn. Every situation follows from its numbers alone, and
they decide its split, so no held-out situation can have been trained on.
"""

import hashlib
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache

from interlace.rollout.task import Task
from interlace.rollout.team.replies import CeoDecision, read_decision

__all__ = [
    "ACTIONS",
    "EXPERTS",
    "INVALID",
    "TOKENS",
    "Action",
    "Situation",
    "best",
    "read_action",
    "situations",
    "stream",
]

EXPERTS = (2, 3, 4)
TOKENS = (256, 512, 1024, 2048)
SPLITS = ("train", "test")
INVALID = -0.5
"""The reward of words that are no decision within the menu."""

_LEVELS = range(1, 7)
_PRICES = range(1, 5)
_SURE = (None, 20, 50, 80, 95)


@dataclass(frozen=True, slots=True)
class Action:
    """A CEO's possible decision. Stopping costs nothing, whatever its numbers say."""

    experts: int
    tokens: int
    stops: bool = False

    @property
    def spends(self) -> int:
        """Tokens of all experts together."""
        return 0 if self.stops else self.experts * self.tokens


STOP = Action(EXPERTS[0], TOKENS[0], stops=True)
ACTIONS = (*(Action(*each) for each in itertools.product(EXPERTS, TOKENS)), STOP)
"""All decisions that differ in what they do."""


@dataclass(frozen=True, slots=True)
class Situation:
    """The situation a CEO is told of. `sure`: percent, or None if there is no solution yet.

    Example:
        >>> easy = Situation(difficulty=1, strength=6, price=4, sure=None)
        >>> best(easy).spends < best(Situation(6, 6, 1, None)).spends
        True
        >>> best(Situation(6, 1, 4, 95)).stops
        True
    """

    difficulty: int
    strength: int
    price: int
    sure: int | None

    def reward(self, action: Action | None) -> float:
        """The expected reward of an action; None stands for a reply that is not a decision."""
        if action is None:
            return INVALID
        wrong = 1.0 - (self.sure or 0) / 100
        if action.stops:
            return 1.0 - wrong
        skill = 0.05 + 0.9 * self.strength / 6 * (1.15 - 0.1 * self.difficulty)
        alone = skill * (1 - math.exp(-action.tokens / (180 * self.difficulty)))
        chance = 1 - wrong * (1 - alone) ** action.experts
        return chance - 0.05 * self.price * action.spends / 1000

    @property
    def question(self) -> str:
        """The question that the CEO is asked."""
        sure = "none" if self.sure is None else f"right with {self.sure} %"
        return (
            f"Difficulty {self.difficulty} of 6. Strength {self.strength} of 6. Price "
            f"{self.price} of 4. Solution: {sure}."
        )

    @property
    def split(self) -> str:
        """A sixth is for testing, by a hash that no Python version changes."""
        digest = hashlib.blake2b(repr(asdict(self)).encode(), digest_size=8).digest()
        return SPLITS[digest[0] % 6 == 0]

    @property
    def task(self) -> Task:
        """The same as a task; its answer is the best decision's reward."""
        id = f"ceo-{self.difficulty}-{self.strength}-{self.price}-{self.sure or 0}"
        return Task(id, self.question, str(self.reward(best(self))), {"situation": asdict(self)})

    @classmethod
    def of(cls, task: Task) -> "Situation":
        """The situation of a task."""
        return cls(**task.data["situation"])


@cache
def best(situation: Situation) -> Action:
    """The decision that brings most; of equals, the one that spends least."""
    return max(ACTIONS, key=lambda action: (situation.reward(action), -action.spends))


def situations(split: str) -> list[Situation]:
    """All of a split."""
    every = itertools.product(_LEVELS, _LEVELS, _PRICES, _SURE)
    return [each for numbers in every if (each := Situation(*numbers)).split == split]


def stream(seed: int) -> Iterator[Task]:
    """Tasks for training, endlessly; those that stand near each other differ."""
    known = situations("train")
    rng = random.Random(f"ceo {seed}")
    while True:
        rng.shuffle(known)
        yield from (situation.task for situation in known)


def read_action(text: str) -> Action | None:
    r"""A CEO's words as a decision; None where they are none, or its numbers not in the menu.

    Example:
        >>> read_action("### Decision: continue\n### Recruit Number: 3\n### Direction: none\n"
        ...             "### Maximum Tokens: 512")
        Action(experts=3, tokens=512, stops=False)
    """
    said: CeoDecision | None = read_decision(text)
    if said is None or said.experts not in EXPERTS or said.tokens not in TOKENS:
        return None
    return Action(said.experts, said.tokens, stops=not said.goes_on)

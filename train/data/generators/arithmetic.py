"""Word problems that need exact arithmetic, and some that need none, with an exact checker.

Every task follows from (seed, split, index) alone. The numbers of a template decide which split
they belong to, so no test problem can have been trained on, whatever the seeds; sums of two digits,
of which there are only 45, are in both.
"""

import hashlib
import random
from dataclasses import dataclass

from ....rollout.task import Task, equal_answers
from .endless import EndlessTasks
from .operations import OPERATIONS, Draw, Numbers
from .stories import PLACES, STORIES, Story, made_up

__all__ = ["LEVELS", "Arithmetic", "check"]

LEVELS = (1, 2, 3, 4, 5)
MADE_UP = 0.2
"""The share of problems about things that nobody has heard of: it is the story that counts."""


@dataclass(frozen=True, slots=True)
class Arithmetic(EndlessTasks):
    """A source of tasks.

    `split`: `train`, `test` (trained templates, unseen numbers) or `held_out` (templates that are
    never trained on). `levels`: how many digits the leading number may have; a problem that needs a
    tool has at least two. `needs_tool`: only problems of that kind, where given; else
    `without_tool` is the share of those that need none.

    A task's `data` holds `kind` (the operation), `template`, `level`, `needs_tool`, `split`,
    `numbers`, and `steps`: Python expressions that lead to the answer (`{r}`: the step before).

    Example:
        >>> task = next(iter(Arithmetic(seed=1, split="test")))
        >>> check(task, task.answer)
        True
    """

    levels: tuple[int, ...] = LEVELS
    needs_tool: bool | None = None
    without_tool: float = 0.25

    def __post_init__(self) -> None:
        """Refuse settings from which no task can be drawn."""
        EndlessTasks.__post_init__(self)
        if not self.levels or not all(1 <= level <= 9 for level in self.levels):
            raise ValueError(f"levels must be numbers of digits from 1 to 9, not {self.levels!r}")

    def __getitem__(self, index: int) -> Task:
        """Task number `index`, without drawing those before it."""
        rng = random.Random(f"arithmetic {self.seed} {self.split} {index}")
        needs_tool = self.needs_tool
        if needs_tool is None:
            needs_tool = rng.random() >= self.without_tool
        stories = [
            story
            for story in STORIES
            if story.held_out == (self.split == "held_out")
            and OPERATIONS[story.operation].needs_tool == needs_tool
        ]
        story = rng.choice(stories)
        while True:  # one draw in ten belongs to the other split
            level = rng.choice(self.levels)
            numbers = OPERATIONS[story.operation].numbers(
                Draw(rng, max(level, 2) if needs_tool else level)
            )
            free = story.held_out or OPERATIONS[story.operation].known
            if free or _is_test(numbers) == (self.split == "test"):
                break
        return self._task(story, numbers, rng, f"arithmetic-{self.split}-{self.seed}-{index}")

    def _task(self, story: Story, numbers: Numbers, rng: random.Random, id: str) -> Task:
        operation = OPERATIONS[story.operation]
        places: dict[str, str] = {name: str(number) for name, number in numbers.items()}
        for names, entries in PLACES.items():
            places.update(zip(names.split(), rng.choice(entries), strict=True))
        if rng.random() < MADE_UP:
            for kind in ("item", "container"):
                word = made_up(rng)
                places |= {kind: word, f"{kind}s": f"{word}s"}
        data = {
            "kind": story.operation,
            "template": story.name,
            "level": max(len(str(number)) for number in numbers.values()),
            "needs_tool": operation.needs_tool,
            "split": self.split,
            "numbers": numbers,
            "steps": [
                step.format(**numbers, r="{r}")  # the result is filled in when it is known
                for step in operation.steps
            ],
        }
        question = rng.choice(story.wordings).format(**places)
        return Task(id, question, str(operation.answer(numbers)), data)


def _is_test(numbers: Numbers) -> bool:
    """One in ten of each template's problems, by a hash that no Python version changes.

    The hash leaves the template and the order out: the same numbers are unseen in every story.
    """
    key = ",".join(str(number) for number in sorted(numbers.values()))
    return hashlib.blake2b(key.encode(), digest_size=8).digest()[0] % 10 == 0


def check(task: Task, answer: str | None) -> bool:
    """Check whether `answer` is exactly the task's answer."""
    return answer is not None and task.answer is not None and equal_answers(answer, task.answer)

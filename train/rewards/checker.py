"""Checks of answers, each in the way that its task asks for."""

from typing import Self

from ...rollout.task import Task, equal_answers
from ...rollout.trajectory import Episode
from ...tools.errors import DataError
from .base import Unscored
from .math_answers import MathVerify
from .search import best_f1, exact_match
from .sql import SqlJudge, gold_query

__all__ = ["CHECKERS", "Checker", "golds"]

CHECKERS = {
    "exact": "the same number, or the same text (case and blanks aside)",
    "math": "the same value of the same kind: number, set, interval, vector, relation, word ...",
    "em": "the same words after SQuAD's normalisation, for any gold answer; not for numbers",
    "sql": "a query whose result is that of the gold query",
}
"""The names that `task.data["checker"]` may hold, and when an answer is right under each."""


class Checker:
    """Settles answers. A task's `data["checker"]` names the way; one that names none takes
    `default`.

    It keeps the processes of math-verify: close it, or use `with`. Thread-safe.

    Example:
        >>> with Checker() as checker:
        ...     checker.right(Task("a", "Who?", "The Beatles", {"checker": "em"}), "beatles")
        True
    """

    def __init__(
        self,
        *,
        default: str = "exact",
        math: MathVerify | None = None,
        sql: SqlJudge | None = None,
    ) -> None:
        self.default = default
        self.math = MathVerify() if math is None else math
        self.sql = SqlJudge() if sql is None else sql

    def right(self, task: Task, answer: str | None) -> bool:
        """True if `answer` is an answer of the task. None, no answer, is wrong.

        Raises Unscored if the task has no gold answer or that one can't be checked, DataError if
        the task names a checker that does not exist.
        """
        wanted = golds(task, self.default)
        if answer is None:
            return False
        return any(self.equal(task, answer, gold) for gold in wanted)

    def equal(self, task: Task, a: str, b: str) -> bool:
        """True if two answers to a task are the same; if it matters, `b` is the gold one."""
        name = self.name(task)
        if name == "math":
            return self.math.equal(b, a)
        if name == "sql":
            return self.sql.compare(task, a, b).equal
        if name == "em":
            return exact_match(a, [b])
        return equal_answers(a, b)

    def name(self, task: Task) -> str:
        """The way in which a task asks to be checked. Raises DataError where it does not exist."""
        return _name(task, self.default)

    def correct(self, episode: Episode, task: Task) -> float:
        """1 for a right answer, else 0: a part of a reward."""
        return float(self.right(task, episode.answer))

    def sign(self, episode: Episode, task: Task) -> float:
        """1 for a right answer, else -1 (ReTool, arXiv 2504.11536, section 2.3)."""
        return 1.0 if self.right(task, episode.answer) else -1.0

    def sign_with_calls(self, episode: Episode, task: Task) -> float:
        """Verl's ReTool: as `sign`, but wrong answers get up to 0.4 back for turns with calls.

        A wrong answer after k turns with calls gets min(-0.6, -1 + 0.1 k). verl counts messages: k
        is its (num_turns - 2) / 2.
        """
        if self.right(task, episode.answer):
            return 1.0
        turns = sum(bool(turn.calls) for turn in episode.trajectory.turns)
        return min(-0.6, -1.0 + 0.1 * turns)

    def exact_match(self, episode: Episode, task: Task) -> float:
        """1 where the answer's words are a gold answer's (SQuAD), whatever the task's checker."""
        wanted = golds(task, self.default)
        return float(episode.answer is not None and exact_match(episode.answer, wanted))

    def f1(self, episode: Episode, task: Task) -> float:
        """The F1 of the answer's words, from 0 to 1."""
        wanted = golds(task, self.default)
        return 0.0 if episode.answer is None else best_f1(episode.answer, wanted)

    def close(self) -> None:
        """End the processes of math-verify."""
        self.math.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def golds(task: Task, default: str = "exact") -> list[str]:
    """The answers that are right: the gold query, or `answer` and all of `data["answers"]`.

    Raises Unscored where there is none.
    """
    if _name(task, default) == "sql":
        return [gold_query(task)]
    known = [] if task.answer is None else [task.answer]
    known += [each for each in task.data.get("answers", ()) if each not in known]
    if not known:
        raise Unscored(f"nobody knows the answer of the task {task.id!r}")
    return known


def _name(task: Task, default: str) -> str:
    name = task.data.get("checker", default)
    if name not in CHECKERS:
        raise DataError(
            f"the task {task.id!r} names the checker {name!r}: choose one of {', '.join(CHECKERS)}"
        )
    return str(name)

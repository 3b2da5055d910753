"""Checks of answers, each in the way that its task asks for."""

from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeAlias

from ...rollout.row_values import answer_texts
from ...rollout.task import Task, equal_answers
from ...rollout.trajectory import Episode
from ...tools.errors import DataError, UsageError
from ...tools.importing import find
from .base import Unscored, bound, user_function
from .choice import same_choice
from .code import CodeJudge
from .coverage import covered
from .math_answers import MathVerify
from .search import best_f1, exact_match
from .sql import SqlJudge, gold_query

__all__ = ["CHECKERS", "Checker", "SameAnswer", "find_checker"]

SameAnswer: TypeAlias = Callable[[Task, str, str], bool]
"""`f(task, a, b)`: True if two answers are the same; if it matters, `b` is the gold one."""
_Check: TypeAlias = Callable[["Checker", Task, str, str], bool]
_Test: TypeAlias = Callable[["Checker", Task, str], bool]


def _exact(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """The same number, or the same text (case and blanks aside)."""
    return equal_answers(a, b)


def _math(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """The same value of the same kind: number, set, interval, vector, relation, word, ..."""
    return checker.math.equal(b, a)


def _em(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """The same words after SQuAD's normalisation, for any gold answer; not for numbers."""
    return exact_match(a, [b])


def _sql(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """A query whose result is that of the gold query."""
    return checker.sql.compare(task, a, b).equal


def _choice(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """The same one of `data["options"]`, by its letter or its text."""
    return same_choice(task, a, b)


def _tests(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """Code that passes `data["tests"]` (`_TESTED`); two attempts are the same by their text."""
    return a == b


def _coverage(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """A text that uses all of `data["concepts"]` (`_TESTED`); two texts if they are alike."""
    return a == b


def _set_match(checker: "Checker", task: Task, a: str, b: str) -> bool:
    """A query that has the gold query's components, by Spider's rules; it is not run."""
    return checker.sql.match(task, a, b)


CHECKERS: dict[str, _Check] = {
    "exact": _exact,
    "math": _math,
    "em": _em,
    "sql": _sql,
    "set_match": _set_match,
    "choice": _choice,
    "tests": _tests,
    "coverage": _coverage,
}
"""The checkers that a task's `data["checker"]` may name; installed packages may add others."""

_TESTED: dict[_Check, _Test] = {
    _tests: lambda checker, task, answer: checker.code.passes(task, answer),
    _coverage: lambda checker, task, answer: covered(task, answer) == 1.0,
}
"""Checkers of tasks without a gold answer, and how they test an answer."""


def find_checker(
    given: str | SameAnswer, *, trusted: bool = True, folder: Path | None = None
) -> _Check:
    """The checker of that name, by the grammar of `tools/importing.py`, or that function's.

    `math`; of your own `my_checks:same` or `my_checks.py:near@tolerance=0.01`, a `SameAnswer`.
    Raises UsageError for any other.
    """
    if not isinstance(given, str):
        return _from_function(getattr(given, "__name__", "checker"), given)
    found = find("checker", given, CHECKERS, trusted=trusted, folder=folder)
    check = bound("checker", found)
    return check if found.own else _from_function(given, check)


def _from_function(name: str, same: SameAnswer) -> _Check:
    same = user_function("checker", name, same, "(task, a, b)")
    return lambda checker, task, a, b: bool(same(task, a, b))


class Checker:
    """Settles answers. A task's `data["checker"]` names the way; one that names none takes
    `default`, a name or a function `f(task, a, b)`.

    It keeps the processes of math-verify and of the sandbox: close it, or use `with`. Thread-safe.
    Raises UsageError for a default that does not exist.

    Example:
        >>> with Checker() as checker:
        ...     checker.right(Task("a", "Who?", "The Beatles", {"checker": "em"}), "beatles")
        True
    """

    def __init__(
        self,
        *,
        default: str | SameAnswer = "exact",
        math: MathVerify | None = None,
        sql: SqlJudge | None = None,
        code: CodeJudge | None = None,
    ) -> None:
        self.name = default if isinstance(default, str) else getattr(default, "__name__", "?")
        """The name of the default, for records."""
        self._default = find_checker(default)
        self._named: dict[str, _Check] = {}
        self.math = MathVerify() if math is None else math
        self.sql = SqlJudge() if sql is None else sql
        self.code: CodeJudge = CodeJudge() if code is None else code

    def right(self, task: Task, answer: str | None) -> bool:
        """True if `answer` is an answer of the task. None, no answer, is wrong.

        Raises Unscored if the task has no gold answer or that one can't be checked, DataError if
        the task names a checker that does not exist.
        """
        golds = self.golds(task)
        if answer is None:
            return False
        if golds is None:
            return _TESTED[self._check(task)](self, task, answer)
        return any(self.equal(task, answer, gold) for gold in golds)

    def equal(self, task: Task, a: str, b: str) -> bool:
        """True if two answers to a task are the same; if it matters, `b` is the gold one."""
        return self._check(task)(self, task, a, b)

    def by_query(self, task: Task) -> bool:
        """True if the answers to a task are queries. Raises DataError as `right` does."""
        return self._check(task) in (_sql, _set_match)

    def golds(self, task: Task) -> list[str] | None:
        """The answers that are right: the gold query, or `answer` and all of `data["answers"]`;
        None for the checkers `tests` and `coverage`, which test an answer without a gold one.

        Raises Unscored if there is none, DataError as `right` does.
        """
        if self.by_query(task):
            return [gold_query(task)]
        if self._check(task) in _TESTED:
            return None
        try:
            known = answer_texts([task.answer, *answer_texts(task.data.get("answers"))])
        except ValueError as error:
            raise Unscored(f"the answer of the task {task.id!r} can't be used: {error}") from error
        if not known:
            raise Unscored(f"nobody knows the answer of the task {task.id!r}")
        return known

    def _check(self, task: Task) -> _Check:
        name = task.data.get("checker")
        if name is None:
            return self._default
        if name not in self._named:
            try:
                # A file of tasks may be anybody's: it loads no code.
                self._named[name] = find_checker(str(name), trusted=False)
            except UsageError as error:
                raise DataError(f"the task {task.id!r} names its checker: {error}") from error
        return self._named[name]

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
        wanted = self.golds(task) or []
        return float(episode.answer is not None and exact_match(episode.answer, wanted))

    def f1(self, episode: Episode, task: Task) -> float:
        """The F1 of the answer's words, from 0 to 1."""
        wanted = self.golds(task) or []
        return 0.0 if episode.answer is None else best_f1(episode.answer, wanted)

    def coverage(self, episode: Episode, task: Task) -> float:
        """The share of a task's concepts that the answer covers (CommonGen), from 0 to 1."""
        return 0.0 if episode.answer is None else covered(task, episode.answer)

    def close(self) -> None:
        """End the processes of math-verify and of the sandbox."""
        self.math.close()
        self.code.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

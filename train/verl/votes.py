"""Which attempts at a task gave the same answer: what verl's majority votes go by."""

import threading
from collections import OrderedDict

from ...rollout.task import Task
from ...tools.errors import InterlaceError
from ..rewards import Checker, Unscored

__all__ = ["Votes"]

_GROUPS = 4096
"""Groups whose answers are remembered: more than are under way at once."""


class Votes:
    """Names equal answers alike, by the checker that also says right from wrong. Thread-safe.

    verl counts equal texts. Here all answers of a group that the checker takes for the same have
    the text of the first of them, and an attempt without an answer has its own text, which no
    other shares.

    Example:
        >>> votes = Votes(Checker())
        >>> task = Task("a", "How many?", "4")
        >>> [votes.name("group", task, answer, sample=n) for n, answer in enumerate(["4", "4.0"])]
        ['4', '4']
    """

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._groups: OrderedDict[str, list[str]] = OrderedDict()
        self._lock = threading.Lock()

    def name(self, group: str, task: Task, answer: str | None, *, sample: int) -> str:
        """The text that stands for this answer among those of its group."""
        if answer is None:
            return f"(no answer, attempt {sample})"
        with self._lock:
            known = self._groups.setdefault(group, [])
            while len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
            for each in known:
                if each == answer or self._equal(task, answer, each):
                    return each
            known.append(answer)
            return answer

    def _equal(self, task: Task, a: str, b: str) -> bool:
        try:
            return self._checker.equal(task, a, b)
        except (InterlaceError, Unscored):  # it can't be compared: then only with itself
            return False

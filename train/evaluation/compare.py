"""Two runs on the same tasks: paired differences, with intervals and tests."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ...tools.errors import DataError
from .intervals import FEW_TASKS, Estimate, bounded_mean, free_mean, mcnemar, sign_flip
from .results import Evaluation, task_mean

__all__ = ["Comparison", "compare"]

_MEANS = ("tokens", "response_tokens", "calls", "turns", "seconds")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second run minus the first, over the tasks that both were judged on.

    `accuracy` is the mean of the tasks' differences in the share of right attempts, `p` how likely
    one as large would be if the runs were alike, by `test`. With one attempt at each task on both
    sides `table` counts the tasks that both got right, only the first, only the second, neither.
    `means` are the differences of other fields of the attempts.
    """

    tasks: int
    left_out: int
    """Tasks that only one of the runs was judged on."""
    first: float
    second: float
    accuracy: Estimate
    p: float
    test: str
    table: tuple[int, int, int, int] | None
    means: dict[str, Estimate]
    remarks: list[str] = field(default_factory=list)
    """Reasons for doubt: how the runs were made otherwise, tasks that ask something else."""

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        means = {name: each.to_json() for name, each in self.means.items()}
        return {**asdict(self), "accuracy": self.accuracy.to_json(), "means": means}


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """The paired comparison of two runs. Raises DataError where they share no task.

    Accuracy is tested by McNemar's exact test where each task was attempted once in both runs, else
    by flipping the signs of the tasks' differences. Its interval is Wilson's over tasks; the others
    are bootstraps over tasks, or Student's if the tasks are few.
    """
    a, b = first.by_task, second.by_task
    named = [task for task in a if task in b]
    # A record of an earlier version does not say what was asked.
    shared = [task for task in named if len({a[task][0].question, b[task][0].question} - {""}) < 2]
    if not shared:
        raise DataError("the two runs have no task in common: there is nothing to compare")
    remarks = _differences(first, second)
    if len(shared) < len(named):
        strange = [task for task in named if task not in shared]
        remarks.append(
            f"{len(strange)} tasks have one id and two questions, and are left out: "
            + ", ".join(strange[:5])
        )

    def differences(name: str) -> list[float]:
        pairs = ((task_mean(a[task], name), task_mean(b[task], name)) for task in shared)
        return [y - x for x, y in pairs if x is not None and y is not None]

    by_task = differences("correct")
    table = None
    if all(len(a[task]) == len(b[task]) == 1 for task in shared):
        pairs = [(a[task][0].correct, b[task][0].correct) for task in shared]
        cells = ((True, True), (True, False), (False, True), (False, False))
        both, only_first, only_second, neither = (pairs.count(cell) for cell in cells)
        table = (both, only_first, only_second, neither)
        p, test = mcnemar(only_first, only_second), "McNemar, exact"
    else:
        p, test = sign_flip(by_task), "permutation of signs over tasks"
    if len(shared) < FEW_TASKS:
        remarks.append(f"only {len(shared)} tasks: they say little")
    return Comparison(
        tasks=len(shared),
        left_out=len(a) + len(b) - 2 * len(shared),
        first=sum(task_mean(a[task], "correct") or 0 for task in shared) / len(shared),
        second=sum(task_mean(b[task], "correct") or 0 for task in shared) / len(shared),
        accuracy=bounded_mean(by_task, lowest=-1),
        p=p,
        test=test,
        table=table,
        means={name: free_mean(differences(name)) for name in _MEANS},
        remarks=remarks,
    )


def _differences(first: Evaluation, second: Evaluation) -> list[str]:
    """How two runs were made otherwise, beside the model and its tools, which are meant to differ.

    Seeds count where the policy samples; a setting that one run does not record is not compared.
    """
    was, now = (
        {**run.run.get("sampling", {}), **run.run.get("limits", {}), **run.run}
        for run in (first, second)
    )
    names = ["n", "checker", "temperature", "top_p", "top_k", *first.run.get("limits", {})]
    if was.get("temperature"):
        names.append("seed")
    stopped = []
    for which, run in (("first", first), ("second", second)):
        made, planned = len(run.attempts) + sum(run.unjudged.values()), run.run.get("planned", 0)
        if made < planned:
            stopped.append(f"the {which} run was stopped: it has {made} of {planned} attempts")
    found = [name for name in names if name in was and name in now and was[name] != now[name]]
    return stopped + [f"the runs differ in {name}: {was[name]} and {now[name]}" for name in found]

"""Evaluation as a function: attempts at tasks, judged and measured."""

import functools
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...rollout.many.run_folder import RunFolder, RunObserver
from ...rollout.many.strategies import Strategy
from ...rollout.rollable import Rollable
from ...rollout.rows import Located, with_integers
from ...rollout.task import Task
from ...rollout.task_files import to_tasks
from ...tools.errors import DataError
from ..data.collect import collect
from ..data.sources import find_tasks
from ..rewards import Checker
from ..rewards.checker import SameAnswer
from .attempts import told_apart
from .results import Evaluation, measure, save_evaluation

__all__ = ["evaluate", "evaluate_async"]

P = ParamSpec("P")
V = TypeVar("V")


async def evaluate_async(
    subject: Rollable,
    tasks: Iterable[Task | dict[str, Any]] | str,
    *,
    out: str | Path | None = None,
    samples: int = 1,
    seed: int | None = None,
    strategy: str | Strategy | None = None,
    checker: Checker | str | SameAnswer = "exact",
    task_tools: bool | str | None = None,
    concurrency: int = 16,
    retries: int = 1,
    resume: bool = False,
    observer: RunObserver | None = None,
) -> Evaluation:
    """Measure an agent, a team or a policy on tasks with answers.

    `tasks` are tasks, rows with a `question` and an `answer`, or the name of a source: a file,
    `gsm8k:FILE`, `arithmetic:test:200`. Each is attempted `samples` times, with seeds derived from
    `seed` (None: drawn, and recorded). Several samples of a greedy policy are all alike: give it a
    temperature. `strategy`, such as "vote@8", makes each attempt several. `checker` judges the
    tasks that name none: exact, math, em, sql, a function `f(task, a, b)` or a `Checker`. With
    `task_tools` a task is asked of the database or corpus that it brings, in place of the policy's
    tools (None: if the policy has none); a name such as `sql@rows=3` sets how databases are asked.

    With `out`, that folder holds `episodes.jsonl` (every token), `run.json` (the settings) and
    `results.json` (figures, and each attempt in numbers), and `resume` completes a run that was
    interrupted: finished attempts stay, those that were cut off or that infrastructure failed are
    made again. An interruption (Ctrl-C, a cancel) logs what was in flight.

    Raises UsageError if the folder holds another run, or one and `resume` is not asked for,
    DataError for tasks that can't be read, and what loading the model and starting the tools
    raises. Nothing that a model or a tool does raises.
    """
    if isinstance(tasks, str):
        tasks = find_tasks(tasks)
    else:
        rows = enumerate(tasks, 1)
        located = (Located(f"tasks, row {number}", number, row) for number, row in rows)
        tasks = to_tasks(with_integers(located))
    if not tasks:
        raise DataError("there are no tasks to evaluate on")
    with ExitStack() as stack:
        if not isinstance(checker, Checker):
            checker = stack.enter_context(Checker(default=checker))
        for task in tasks:
            checker.by_query(task)  # raises DataError if there is no such checker
        run = RunFolder(None if out is None else Path(out), resume=resume)
        policy = await collect(
            subject,
            tasks,
            run,
            samples=samples,
            seed=seed,
            strategy=strategy,
            classes=told_apart(checker),
            task_tools=task_tools,
            concurrency=concurrency,
            retries=retries,
            notes={"checker": checker.name},
            observer=observer,
        )
        about = {**run.settings, "checker": checker.name}
        if run.changed_answers:
            about["changed_answers"] = run.changed_answers
        evaluation = measure(run.episodes(), checker, tokenizer=policy.engine.tokenizer, run=about)
    if out is not None:
        save_evaluation(evaluation, Path(out) / "results.json")
    return evaluation


def _from_sync_code(
    work: Callable[Concatenate[Rollable, P], Coroutine[Any, Any, V]],
) -> Callable[Concatenate[Rollable, P], V]:
    @functools.wraps(work)
    def run(subject: Rollable, /, *arguments: P.args, **options: P.kwargs) -> V:
        return subject.wait(work(subject, *arguments, **options))

    run.__name__ = run.__qualname__ = work.__name__.removesuffix("_async")
    return run


evaluate = _from_sync_code(evaluate_async)
"""`evaluate_async` for sync code. Ctrl-C keeps what was in flight and raises KeyboardInterrupt.

Example:
    with Agent("nano") as agent:
        print(evaluate(agent, "arithmetic:test:50", out="runs/nano").accuracy)
"""

"""Episodes of tasks, gathered in a run folder: what rollouts, evaluations and cold starts share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ...rollout.many.run_folder import RunFolder, RunObserver
from ...rollout.many.runner import Runner
from ...rollout.many.strategies import Strategy, find_strategy
from ...rollout.many.votes import Classes, by_text
from ...rollout.models.fingerprint import fingerprint_files, fingerprint_model
from ...rollout.policy import Policy
from ...rollout.rollable import Rollable
from ...rollout.task import Task
from ...rollout.trajectory import Episode
from ...tools import SearchTool, SqlTool, Tool
from ...tools.errors import DataError, UsageError
from ...tools.search.index import SearchIndex
from .task_sets import fingerprint
from .task_tools import TaskTools, bring_tools, check_tools

__all__ = ["collect", "fingerprint_tools"]


async def collect(
    subject: Rollable,
    tasks: Sequence[Task],
    run: RunFolder,
    *,
    samples: int = 1,
    seed: int | None = None,
    strategy: str | Strategy | None = None,
    classes: Classes = by_text,
    task_tools: bool | str | None = None,
    concurrency: int = 16,
    retries: int = 1,
    refuse_changed_answers: bool = False,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    observer: RunObserver | None = None,
    judge: Callable[[Episode], None] | None = None,
) -> Policy:
    """Fill a run folder with `samples` episodes of each task, and return the policy.

    A `seed` of None is that of the run that is resumed, else drawn. A `strategy` comes before the
    subject's own; `classes` tells answers apart in its votes. With `task_tools` a task is asked of
    the database or corpus that it brings, in place of the policy's tools (None: if the policy has
    none); a name such as `sql@rows=3` sets how databases are asked. Attempts that infrastructure
    failed are made again, `retries` times. `settings` are recorded and compared with those of the
    policy, `notes` recorded only. `judge` is called with each episode before it is logged;
    `refuse_changed_answers` is for logs that hold its verdict.

    Cancelled, it keeps what was in flight. Raises UsageError if the folder holds another run,
    DataError if it can't be written or a task's database is missing, and what loading the model and
    starting the tools raises.
    """
    given = {
        "n": samples,
        "seed": run.resolve_seed(seed),
        "strategy": strategy if strategy is None or isinstance(strategy, str) else _name(strategy),
        **(settings or {}),
    }
    early = subject.early_settings
    weights = _weights(early)
    run.refuse_other({**early, **weights, **given})
    if observer is not None:
        observer.loading()
    plan = await subject.rollout_plan()
    strategy = strategy or plan.strategy
    if strategy is not None and given["strategy"] is None:
        given["strategy"] = strategy if isinstance(strategy, str) else _name(strategy)
    policy = plan.policy
    if task_tools is None:
        task_tools = not policy.tools and bring_tools(tasks)
    if task_tools:
        check_tools(tasks)
    known = policy.settings
    if known["model"] != early.get("model"):
        weights = _weights(known)
    files = fingerprint_tools(policy.tools.values(), tasks if task_tools else ())
    made = {
        "team": None,
        **known,
        **weights,
        **plan.settings,
        **given,
        "files": files,
        "task_tools": task_tools,
    }
    if task_tools:
        del made["tools"]  # each task has its own
    noted = {"tasks_fingerprint": fingerprint(tasks), "task_count": len(tasks)}
    with run.begin(made, tasks, notes={**noted, **(notes or {})}):
        if refuse_changed_answers and run.changed_answers:
            raise UsageError(
                f"the answer of the task {run.changed_answers[0]!r} is another one than {run.path} "
                "holds: put the file of tasks back, or name another --out"
            )
        async with AsyncExitStack() as stack:
            own = None
            if task_tools:
                sql = task_tools if isinstance(task_tools, str) else "sql"
                own = await stack.enter_async_context(TaskTools(sql=sql))
            runner = Runner(
                policy,
                tools_for=own,
                concurrency=concurrency,
                retries=retries,
                strategy=(
                    find_strategy(strategy, classes=classes)
                    if isinstance(strategy, str)
                    else strategy
                ),
                attempt=plan.attempt,
            )
            await run.fill(runner, tasks, observer=observer, judge=judge)
    return policy


def _name(strategy: Strategy) -> str:
    return getattr(strategy, "__name__", type(strategy).__name__)


def _weights(settings: Mapping[str, Any]) -> dict[str, str]:
    """The digest of the model's files, if they are on this machine."""
    found = fingerprint_model(str(settings.get("model", "")))
    return {} if found is None else {"weights": found}


def fingerprint_tools(tools: Iterable[Tool], tasks: Iterable[Task]) -> dict[str, str]:
    """A digest of each database and corpus that is asked, by its file's name. Raises DataError."""
    places: dict[str, Path] = {}
    for tool in tools:
        if isinstance(tool, SqlTool) and tool.path is not None:
            places[tool.name] = Path(tool.path)
        if isinstance(tool, SearchTool) and isinstance(tool.retriever, SearchIndex):
            places[tool.name] = tool.retriever.source
    for task in tasks:
        if isinstance(place := task.data.get("database"), str):
            places[str(task.data.get("db_id", Path(place).name))] = Path(place)
    found = {}
    for name, place in places.items():
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        try:
            found[name] = fingerprint_files([file for file in inside if file.is_file()])
        except OSError as error:
            raise DataError(f"can't read {place}: {error.strerror}") from error
    return found

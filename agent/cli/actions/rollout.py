"""`interlace rollout`: a log of attempts, completed and summed up."""

import importlib.util
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ....rollout.episode_log import export_parquet
from ....rollout.many.run_folder import UNFINISHED, RunFolder
from ....rollout.many.strategies import find_strategy
from ....rollout.task import Task
from ....rollout.trajectory import Episode, StopReason
from ....tools.errors import MissingExtra, UsageError
from ....train.data.collect import collect
from ....train.data.sources import find_tasks
from ....train.evaluation.attempts import settle, standing, told_apart
from ....train.rewards import Checker, Unscored
from ..answering import make_task_agent
from ..commands.rollout import RolloutOptions
from ..exits import Exit, eprint, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions, TeamOptions
from ..render.evaluation_tables import percent, reasons
from ..render.progress import RunProgress
from ..teams import make_team

__all__ = ["rollout"]


def rollout(
    source: str,
    job: RolloutOptions,
    model: ModelOptions,
    limits: LimitOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Roll the tasks out and return the exit code."""
    if job.parquet is not None and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("--parquet", "parquet")
    if job.strategy is not None:
        find_strategy(job.strategy)
        if team.team:
            raise UsageError("--team can't be combined with --strategy")
    run = RunFolder(job.out, resume=job.resume, single_file=True)
    tasks = find_tasks(source, databases=job.databases, tell=None if output.quiet else eprint)
    agent, task_tools = make_task_agent(model, limits, tasks, temperature=1.0)
    with Checker() as checker, RunProgress(agent, quiet=output.quiet, out=job.out) as progress:
        judge = _Judge(checker, tasks)

        async def work() -> None:
            async with agent:
                await collect(
                    make_team(agent, team) if team.team else agent,
                    tasks,
                    run,
                    samples=job.n,
                    seed=model.seed,
                    strategy=job.strategy,
                    classes=told_apart(checker),
                    task_tools=task_tools,
                    concurrency=job.concurrency,
                    retries=job.retries,
                    refuse_changed_answers=True,
                    observer=progress,
                    judge=judge,
                )

        run_to_end(work())
    if job.parquet is not None:
        export_parquet(run.episodes(), job.parquet)
    total = len(tasks) * job.n
    if output.json:
        print_json(_summary(run, progress, total))
    if progress.error is not None:
        count = sum(each.stop is StopReason.INFRASTRUCTURE for each in run.logged.values())
        progress.screen.say(
            f"infrastructure failed {count} episodes ({progress.error}); --resume runs them again",
            "error",
        )
    for why, number in reasons(judge.unjudged):
        progress.screen.say(f"{number} episodes are not judged: {why}", "notice")
    if not output.quiet:
        progress.screen.say(_summary_line(run, progress), "words")
    return Exit.UNAVAILABLE if progress.error is not None else Exit.DONE


@dataclass
class _Judge:
    """Sets `correct` as the task's checker has it, if the answer is known."""

    checker: Checker
    tasks: list[Task]
    unjudged: Counter[str] = field(default_factory=Counter)
    """The number of finished episodes without a verdict, by the reason."""

    def __post_init__(self) -> None:
        for task in self.tasks:
            self.checker.by_query(task)  # raises if there is no such checker

    def __call__(self, episode: Episode) -> None:
        if not self._can_judge(standing(episode)):
            return
        try:
            why = settle(episode, self.checker)
        except MissingExtra as error:  # the episodes are worth keeping all the same
            why = str(error)
        if why is not None and episode.stop not in UNFINISHED:
            self.unjudged[why] += 1

    def _can_judge(self, task: Task) -> bool:
        """True if the answer is known, or the checker tests answers without one."""
        if task.answer is not None or {"answers", "gold"} & task.data.keys():
            return True
        try:
            return self.checker.golds(task) is None
        except Unscored:
            return False


def _stops(run: RunFolder) -> dict[str, int]:
    stops = Counter(str(each.stop or "cancelled") for each in run.logged.values())
    return dict(stops.most_common())


def _correct(run: RunFolder) -> float | None:
    judged = [each.correct for each in run.logged.values() if each.correct is not None]
    return sum(judged) / len(judged) if judged else None


def _summary(run: RunFolder, progress: RunProgress, total: int) -> dict[str, Any]:
    return {
        "out": str(run.path),
        "episodes": len(run.logged),
        "expected": total,
        "new": run.new,
        "stops": _stops(run),
        "correct": _correct(run),
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 3),
        "metrics": progress.figures,
        "error": progress.error,
    }


def _summary_line(run: RunFolder, progress: RunProgress) -> str:
    stops = ", ".join(f"{count} {stop}" for stop, count in _stops(run).items())
    parts = [f"{len(run.logged)} episodes in {run.path} ({run.new} new): {stops}"]
    if (correct := _correct(run)) is not None:
        parts.append(f"{percent(correct)} correct")
    if progress.tokens:
        parts.append(f"{progress.tokens} tokens")
        parts.append(f"{progress.tokens / progress.seconds:.0f} tokens/s")
    parts.append(f"{progress.seconds:.1f} s")
    return " · ".join(parts)

"""`interlace eval`: evaluations and comparisons, printed and drawn."""

import dataclasses
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....rollout.many.strategies import find_strategy
from ....rollout.task import Task
from ....tools.errors import MissingExtra, UsageError
from ....train.data.sources import find_tasks
from ....train.evaluation import Evaluation, compare, evaluate_async, load_evaluation
from ....train.evaluation.plots import check_picture, plot_evaluations
from ....train.rewards import Checker
from ..answering import make_task_agent
from ..commands.eval import EvalOptions
from ..exits import Exit, eprint, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions, TeamOptions
from ..render.evaluation_tables import print_comparison, print_evaluation, print_modes
from ..render.progress import RunProgress
from ..render.terminal import make_console
from ..teams import make_team
from .comparison_modes import in_order, read_modes, strategy_of

__all__ = ["evaluate"]

PAIR = {"no_tools": False, "tools": True}
"""The two runs of --pair, and whether they have tools."""


def evaluate(
    tasks: str | None,
    job: EvalOptions,
    model: ModelOptions,
    limits: LimitOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Evaluate, or compare two runs, and return the exit code."""
    _check(tasks, job, model, team)
    assert tasks is not None
    modes = read_modes(job.compare)
    with Checker(default=job.checker) as checker:
        if job.compare is not None and modes is None:
            _compare_runs((job.compare, tasks), checker, job.plots, output)
            return Exit.DONE
        work = _Evaluation(tasks, job, model, limits, output, checker)
        if modes is not None:
            measured = work.run_modes(modes, team)
        elif job.pair:
            measured = work.run_pair()
        else:
            measured = {"": work.measure(model, job.out, job.strategy, team)}
            work.report(measured)
    if any(evaluation.unjudged for evaluation in measured.values()):
        return Exit.UNAVAILABLE
    lowest = min(evaluation.accuracy.value for evaluation in measured.values())
    return Exit.THRESHOLD if job.at_least is not None and lowest < job.at_least else Exit.DONE


def _check(tasks: str | None, job: EvalOptions, model: ModelOptions, team: TeamOptions) -> None:
    """Raise for options that don't fit together, before the work begins."""
    if tasks is None:
        raise UsageError("name the tasks to evaluate on, or two runs with --compare")
    if read_modes(job.compare) is not None and (job.pair or job.strategy or team.team):
        raise UsageError("--compare names the modes: leave out --pair, --strategy, --team")
    if team.team and (job.pair or job.strategy):
        raise UsageError("--team can't be combined with --pair or --strategy")
    if job.pair and (job.n > 1 or model.temperature or model.tool == ["none"]):
        raise UsageError(
            "--pair is greedy, one attempt at each task with tools and one without: leave out "
            "--n, --temperature and --tool none"
        )
    if job.strategy is not None:
        find_strategy(job.strategy)
        if job.pair:
            raise UsageError("--pair compares single attempts: leave out --strategy")
    if job.resume and job.out is None:
        raise UsageError("--resume needs the --out that is to be completed")
    if job.plots is not None:
        if importlib.util.find_spec("matplotlib") is None:
            raise MissingExtra("--plots", "plot")
        check_picture(job.plots)


def _compare_runs(
    paths: tuple[str, str], checker: Checker, plots: Path | None, output: OutputOptions
) -> None:
    runs = {path: load_evaluation(path, checker) for path in paths}
    first, second = (runs[path] for path in paths)
    comparison = compare(first, second)
    if plots is not None:
        plot_evaluations(runs, plots)
    if output.json:
        print_json({"comparison": comparison.to_json(), "error": None})
    else:
        print_comparison(make_console(sys.stdout), comparison, *paths)


class _Evaluation:
    """One run of the command."""

    def __init__(
        self,
        source: str,
        job: EvalOptions,
        model: ModelOptions,
        limits: LimitOptions,
        output: OutputOptions,
        checker: Checker,
    ) -> None:
        self.source = source
        self.job = job
        self.model = model
        self.limits = limits
        self.output = output
        self.checker = checker
        self.console = make_console(sys.stdout)
        self.tasks: list[Task] = find_tasks(
            source, limit=job.limit, databases=job.databases, tell=None if output.quiet else eprint
        )

    def measure(
        self, model: ModelOptions, out: Path | None, strategy: str | None, team: TeamOptions
    ) -> Evaluation:
        """Roll the tasks out in one way, and measure."""
        greedy = self.job.n == 1 and strategy is None
        agent, task_tools = make_task_agent(
            model, self.limits, self.tasks, temperature=0.0 if greedy else 1.0
        )
        with RunProgress(agent, quiet=self.output.quiet, out=out) as progress:

            async def work() -> Evaluation:
                async with agent:
                    return await evaluate_async(
                        make_team(agent, team) if team.team else agent,
                        self.tasks,
                        out=out,
                        samples=self.job.n,
                        seed=model.seed,
                        strategy=strategy,
                        checker=self.checker,
                        task_tools=task_tools,
                        concurrency=self.job.concurrency,
                        retries=self.job.retries,
                        resume=self.job.resume,
                        observer=progress,
                    )

            evaluation = run_to_end(work())
        changed = evaluation.run.get("changed_answers", [])
        if changed and not self.output.quiet:
            eprint(
                f"judged by their new answers: {', '.join(changed[:5])}"
                + "..." * (len(changed) > 5)
            )
        return evaluation

    def run_pair(self) -> dict[str, Evaluation]:
        """Ask each task with tools and without."""
        measured = {
            name: self.measure(
                self.model if tools else dataclasses.replace(self.model, tool=["none"]),
                None if self.job.out is None else self.job.out / name,
                None,
                TeamOptions(),
            )
            for name, tools in PAIR.items()
        }
        self.report(measured, against="no_tools")
        return measured

    def run_modes(self, modes: list[str], team: TeamOptions) -> dict[str, Evaluation]:
        """Ask each task in several modes, and compare each with the last."""
        found: dict[str, Evaluation] = {}
        tokens: dict[str, float] = {}
        for mode in in_order(modes):
            out = None if self.job.out is None else self.job.out / mode.replace("@", "-")
            teams = dataclasses.replace(team, team=mode == "team")
            found[mode] = self.measure(self.model, out, strategy_of(mode, tokens), teams)
            tokens[mode] = found[mode].mean("tokens").value if found[mode].attempts else 0.0
        measured = {strategy_of(mode, tokens) or mode: found[mode] for mode in modes}
        self.report(measured, against=[*measured][-1], side_by_side=True)
        return measured

    def report(
        self, measured: Mapping[str, Evaluation], *, against: str = "", side_by_side: bool = False
    ) -> None:
        """Print the evaluations and their comparisons, as tables or JSON, and draw them."""
        judged = [name for name, evaluation in measured.items() if evaluation.attempts]
        others = [name for name in judged if name != against] if against in judged else []
        pairs = [(name, against) if side_by_side else (against, name) for name in others]
        compared = {
            first if side_by_side else second: compare(measured[first], measured[second])
            for first, second in pairs
        }
        if self.output.json:
            report: dict[str, Any] = {"error": None}
            for name, evaluation in measured.items():
                report |= {name: evaluation.summary()} if name else evaluation.summary()
            if compared:
                plain = {name: comparison.to_json() for name, comparison in compared.items()}
                report["comparison"] = plain if side_by_side else plain["tools"]
            print_json(report)
        else:
            if side_by_side:
                print_modes(self.console, measured)
            for name, evaluation in () if side_by_side else measured.items():
                title = " · ".join(filter(None, (self.source, self.model.model, name)))
                print_evaluation(self.console, evaluation, title)
            for (first, second), comparison in zip(pairs, compared.values(), strict=True):
                names = [name.replace("_", " ") for name in (first, second)]
                print_comparison(self.console, comparison, *names)
        if self.job.plots is not None:
            plots = {name or "run": each for name, each in measured.items()}
            plot_evaluations(plots, self.job.plots)

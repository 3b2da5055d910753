"""`interlace eval`: how good a model is on tasks with answers, and how it uses its tools."""

import asyncio
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from ....rollout.formats import Format
from ....rollout.many import strategies
from ....rollout.many.runner import Runner
from ....rollout.many.strategies import find_strategy
from ....rollout.task import Task
from ....rollout.tokenizer import Tokenizer
from ....tools.errors import MissingExtra, UsageError
from ....train.data.sources import find_tasks
from ....train.data.task_sets import fingerprint
from ....train.data.task_tools import TaskTools, bring_tools, check_tools
from ....train.evaluation.attempts import told_apart
from ....train.evaluation.compare import compare
from ....train.evaluation.evaluate import Evaluation, load_evaluation, measure, save_evaluation
from ....train.evaluation.plots import plot_evaluations
from ....train.rewards import CHECKERS, Checker
from ..answering import load, make_agent, warnings
from ..commands.eval import EvalOptions
from ..exits import Exit, eprint, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions, TeamOptions
from ..render.evaluation_tables import print_comparison, print_evaluation
from ..render.live_view import Screen
from ..render.progress import Progress
from ..render.terminal import make_console
from ..run_folder import Record, drawn_seed
from ..teams import make_team
from .comparison_modes import in_order, print_arms, read_arms, strategy_of

__all__ = ["evaluate", "roll_out", "settings_of"]

ARMS = {"tools": True, "no_tools": False}
"""The two arms of --pair, and whether they have tools."""


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
    arms = read_arms(job.compare)
    with Checker(default=job.checker) as checker:
        if job.compare is not None and arms is None:
            _compare((Path(job.compare), Path(tasks)), job, checker, output)
            return Exit.DONE
        evaluating = _Evaluate(tasks, job, model, limits, output, checker)
        evaluating.team = team
        measured = evaluating.run() if arms is None else evaluating.run_arms(arms)
    lowest = min(evaluation.accuracy.value for evaluation in measured.values())
    if any(evaluation.unjudged for evaluation in measured.values()):
        return Exit.UNAVAILABLE
    if job.at_least is not None and lowest < job.at_least:
        return Exit.THRESHOLD
    return Exit.DONE


def _check(tasks: str | None, job: EvalOptions, model: ModelOptions, team: TeamOptions) -> None:
    """Find what makes no sense before the work begins."""
    if tasks is None:
        raise UsageError("name the tasks to evaluate on, or two runs with --compare")
    if read_arms(job.compare) is not None and (job.pair or job.strategy or team.team):
        raise UsageError("--compare names the ways to answer: leave out --pair, --strategy, --team")
    if team.team and (job.pair or job.strategy):
        raise UsageError("--team goes without --pair and --strategy")
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
    if job.checker not in CHECKERS:
        raise UsageError(f"there is no checker {job.checker!r}: one of {', '.join(CHECKERS)}")
    if job.plots is not None and importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra("--plots", "plot")


def _compare(
    paths: tuple[Path, Path], job: EvalOptions, checker: Checker, output: OutputOptions
) -> None:

    first, second = (load_evaluation(path, checker) for path in paths)
    names = [str(path) for path in paths]
    comparison = compare(first, second)
    if job.plots is not None:
        plot_evaluations(dict(zip(names, (first, second), strict=True)), job.plots)
    if output.json:
        print_json({"comparison": comparison.to_json(), "error": None})
    else:
        print_comparison(make_console(sys.stdout), comparison, *names)


class _Evaluate:
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
        self.screen = Screen(make_console(sys.stderr))
        self.tasks = find_tasks(
            source, limit=job.limit, databases=job.databases, tell=None if output.quiet else eprint
        )
        self.team = TeamOptions()
        self.temperature = 0.0 if job.n == 1 and job.strategy is None else 1.0

    def run(self) -> dict[str, Evaluation]:
        """Roll out, measure, write and print; the evaluations by arm."""
        arms = ARMS if self.job.pair else {"": True}
        measured = {
            name: self._measure(name, with_tools, self.job.strategy, self.team)
            for name, with_tools in arms.items()
        }
        report = self._report(measured)
        if self.output.json:
            print_json(report)
        return measured

    def run_arms(self, arms: Sequence[str]) -> dict[str, Evaluation]:
        """The same for ways to answer, and each compared with the last of them."""
        found: dict[str, Evaluation] = {}
        tokens: dict[str, float] = {}
        for arm in in_order(arms):
            team = dataclasses.replace(self.team, team=arm == "team")
            strategy = strategy_of(arm, tokens)
            if strategy is not None:
                self.temperature = 1.0
            found[arm] = self._measure(arm.replace("@", "-"), True, strategy, team)
            tokens[arm] = found[arm].mean("tokens").value
        measured = {strategy_of(arm, tokens) or arm: found[arm] for arm in arms}
        *others, last = measured
        against = {name: compare(measured[name], measured[last]) for name in others}
        if self.output.json:
            report: dict[str, Any] = {name: each.summary() for name, each in measured.items()}
            report["comparison"] = {name: each.to_json() for name, each in against.items()}
            print_json(report | {"error": None})
        else:
            console = make_console(sys.stdout)
            print_arms(console, measured)
            for name, comparison in against.items():
                print_comparison(console, comparison, name, last)
        if self.job.plots is not None:
            plot_evaluations(measured, self.job.plots)
        return measured

    def _measure(
        self, arm: str, with_tools: bool, strategy: str | None, team: TeamOptions
    ) -> Evaluation:

        folder = None if self.job.out is None else self.job.out / arm
        model = self.model if with_tools else dataclasses.replace(self.model, tool=["none"])
        seed = drawn_seed(model.seed, folder)
        settings = settings_of(self.source, self.tasks, model, self.limits, seed) | {
            "n": self.job.n,
            "limit": self.job.limit,
        }
        deciding = None
        if strategy is not None:
            settings["strategy"] = strategy
            deciding = find_strategy(strategy, classes=told_apart(self.checker))
        if team.team:
            settings["team"] = dataclasses.asdict(team)
        record = Record(folder, settings, resume=self.job.resume)
        with record:
            tokenizer = run_to_end(
                roll_out(
                    record,
                    self.tasks,
                    model,
                    self.limits,
                    self.screen,
                    n=self.job.n,
                    concurrency=self.job.concurrency,
                    temperature=self.temperature,
                    quiet=self.output.quiet,
                    strategy=deciding,
                    team=team,
                )
            )
            evaluation = measure(
                record.last.values(), self.checker, tokenizer=tokenizer, run=settings
            )
        if folder is not None:
            save_evaluation(evaluation, folder / "results.json")
        return evaluation

    def _report(self, measured: dict[str, Evaluation]) -> dict[str, Any]:

        console = make_console(sys.stdout)
        report: dict[str, Any] = {"error": None}
        for arm, evaluation in measured.items():
            title = " · ".join(filter(None, (self.source, self.model.model, arm)))
            report |= {arm: evaluation.summary()} if arm else evaluation.summary()
            if not self.output.json:
                print_evaluation(console, evaluation, title)
        if self.job.pair:
            comparison = compare(measured["no_tools"], measured["tools"])
            report["comparison"] = comparison.to_json()
            if not self.output.json:
                print_comparison(console, comparison, "no tools", "tools")
        if self.job.plots is not None:
            plot_evaluations({arm or "run": each for arm, each in measured.items()}, self.job.plots)
        return report


def settings_of(
    source: str,
    tasks: Sequence[Task],
    model: ModelOptions,
    limits: LimitOptions,
    seed: int,
) -> dict[str, Any]:
    """All that episodes depend on, as plain data: the options but what runs the model, and where,
    and a hash of the tasks, so that a changed file is noticed.
    """
    left_out = ("device", "engine", "engine_option", "tokenizer")
    kept = {key: value for key, value in dataclasses.asdict(model).items() if key not in left_out}
    said = {"tasks": source, "tasks_fingerprint": fingerprint(tasks)}
    return {**said, **kept, **dataclasses.asdict(limits), "seed": seed}


async def roll_out(
    record: Record,
    tasks: Sequence[Task],
    model: ModelOptions,
    limits: LimitOptions,
    screen: Screen,
    *,
    n: int,
    concurrency: int,
    temperature: float,
    quiet: bool,
    format: Format | None = None,
    strategy: strategies.Strategy | None = None,
    team: TeamOptions | None = None,
) -> Tokenizer:
    """Fill the record with `n` attempts at each task; the tokenizer of the model.

    Tasks that bring a database or a corpus are asked of that, unless `model.tool` says otherwise.
    A `format` comes before the one that `model` names. With a `strategy` each attempt is several,
    with a `team` that of a CEO and its experts.
    """
    console = make_console(sys.stderr)
    if model.tool is None:
        check_tools(tasks)
    own = model.tool is None and bring_tools(tasks)
    if own:  # the format is that of a model that can be told of any tool
        model = dataclasses.replace(model, tool=["none"], format=model.format or "hermes")
    agent = make_agent(model, limits, temperature=temperature)
    agent.format = format or agent.format
    async with agent, AsyncExitStack() as stack:
        await load(agent, console, quiet=quiet)
        if not quiet:
            for warning in warnings(agent):
                screen.say(warning, "notice")
        policy = await agent.policy()
        tools_for = await stack.enter_async_context(TaskTools()) if own else None
        runner = Runner(
            policy,
            tools_for=tools_for,
            concurrency=concurrency,
            strategy=strategy,
            attempt=make_team(agent, team).attempt if team is not None and team.team else None,
        )
        total = len(tasks) * n
        with Progress(console, total, hidden=quiet, traffic=runner.traffic) as shown:
            try:
                await record.fill(runner, tasks, n, record.settings["seed"], shown)
            except asyncio.CancelledError:
                if record.folder is not None:
                    screen.say(
                        f"stopped: {len(record.done)} of {total} attempts are done, "
                        f"{record.folder} has them; the same command with --resume goes on",
                        "notice",
                    )
                raise
        return policy.engine.tokenizer

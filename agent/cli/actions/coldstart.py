"""`interlace coldstart`: traces made, checked, written and counted."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from itertools import islice

from ....rollout.episode_log import EpisodeLog
from ....rollout.formats import Format
from ....rollout.many.run_folder import RunFolder
from ....rollout.models.files import find_model
from ....rollout.task import Task
from ....rollout.tokenizer import Tokenizer
from ....rollout.trajectory import Episode
from ....tools.errors import DataError, UsageError
from ....tools.files import write_beside, write_error, write_whole
from ....train.coldstart.checks import Checked, check_traces
from ....train.coldstart.gsm8k import trace_of
from ....train.coldstart.m500 import read_m500
from ....train.coldstart.reject import select
from ....train.coldstart.rewrite import TEMPLATE, Rewriting, to_rewrite
from ....train.coldstart.traces import trace_format
from ....train.data.collect import collect
from ....train.data.sources import find_tasks
from ....train.data.task_sets import contamination, deduplicate
from ....train.rewards import Checker
from ..answering import make_agent, make_task_agent
from ..commands.coldstart import ColdStartOptions, TraceOrigin
from ..exits import Exit, eprint, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions
from ..render.progress import CountProgress, RunProgress
from ..render.terminal import make_console

__all__ = ["coldstart"]


def coldstart(
    source: str,
    job: ColdStartOptions,
    model: ModelOptions,
    limits: LimitOptions,
    output: OutputOptions,
) -> int:
    """Build the demonstrations and return the exit code."""
    if (job.writer or job.template) and job.origin is not TraceOrigin.REWRITE:
        raise UsageError("--writer and --template belong to --from rewrite")
    if job.origin in (TraceOrigin.GSM8K, TraceOrigin.TRACES, TraceOrigin.M500):
        if job.resume:
            raise UsageError(f"--from {job.origin} samples nothing: there is nothing to resume")
        if (job.out / "traces.jsonl").exists():
            raise UsageError(f"{job.out} holds traces already: name another --out")
    with Checker(default=job.checker) as checker:
        kept = _ColdStart(source, job, model, limits, output, checker).run()
    return Exit.DONE if kept else Exit.NO_ANSWER


class _ColdStart:
    """One run of the command."""

    def __init__(
        self,
        source: str,
        job: ColdStartOptions,
        model: ModelOptions,
        limits: LimitOptions,
        output: OutputOptions,
        checker: Checker,
    ) -> None:
        self.job = job
        self.model = model
        self.limits = limits
        self.output = output
        self.checker = checker
        self.m500: list[Episode] = []
        if job.origin is TraceOrigin.M500:
            tokenizer = Tokenizer.load(find_model(model.model))
            self.m500 = list(islice(read_m500(source, tokenizer, model=model.model), job.limit))
            if not self.m500:
                raise DataError(f"{source} is empty")
        given = [each.task for each in self.m500] or find_tasks(
            source,
            limit=job.limit,
            databases=job.databases,
            tell=None if output.quiet else eprint,
            split="train",
        )
        self.tasks, duplicates = deduplicate(given)
        self.left_out = {"duplicates": len(duplicates.dropped)}
        """The number of tasks that are not asked at all, by the reason."""
        if job.unlike is not None:
            shared = contamination(
                self.tasks, find_tasks(job.unlike, databases=job.databases)
            ).training_ids
            self.tasks = [task for task in self.tasks if task.id not in shared]
            self.left_out["shared_with_tests"] = len(shared)
        self.unusable = 0
        """Tasks that no trace could be made of."""

    def run(self) -> int:
        """Make, check and write the traces, print the report, and return how many were kept."""
        try:  # before the work, which may take long
            self.job.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.job.out, error) from error
        checked = self._checked()
        file = self.job.out / "traces.jsonl"
        with write_beside(file) as partial, EpisodeLog(partial) as log:
            for episode in checked.kept:
                log.append(episode)
        dropped = {str(why): count for why, count in checked.dropped.most_common()}
        report = {
            "out": str(file),
            "tasks": len(self.tasks),
            "tasks_left_out": self.left_out,
            "tasks_without_a_trace": self.unusable,
            "traces": checked.seen,
            "kept": len(checked.kept),
            "dropped": dropped,
            "error": None,
        }
        text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
        write_whole(self.job.out / "report.json", text)
        if self.output.json:
            print_json(report)
        if not self.output.quiet:
            parts = [
                f"{len(checked.kept)} traces in {file}, of {checked.seen} from "
                f"{len(self.tasks)} tasks",
                "dropped: "
                + (", ".join(f"{count} {why}" for why, count in dropped.items()) or "none"),
            ]
            if self.unusable:
                parts.append(f"{self.unusable} tasks gave none")
            for why, count in self.left_out.items():
                if count:
                    parts.append(f"{count} tasks left out: {why.replace('_', ' ')}")
            print("; ".join(parts), file=sys.stderr)
        return len(checked.kept)

    def _checked(self) -> Checked:
        """The traces, and the verdict on each."""
        if self.job.origin is TraceOrigin.M500:
            wanted = {task.id for task in self.tasks}
            return Checked([each for each in self.m500 if each.task.id in wanted])
        if self.job.origin is TraceOrigin.SAMPLE:
            run, tokenizer = self._roll_out(self.tasks, self.model)
            cap, needs_call = self.job.cap, self.job.needs_call
            return select(run.episodes(), self.checker, tokenizer, cap=cap, needs_call=needs_call)
        return self._written()

    def _written(self) -> Checked:
        """Traces that are texts, each run and checked."""
        format = trace_format(self.model.format or "retool")
        tools = make_agent(self.model, self.limits, temperature=0.0).tools
        format.check(tools)
        if len(tools) != 1:
            raise UsageError("traces call one tool: name it with --tool")
        tokenizer = Tokenizer.load(find_model(self.model.model))
        traces = list(
            self._rewritten() if self.job.origin is TraceOrigin.REWRITE else self._given()
        )
        console = make_console(sys.stderr)
        with CountProgress(console, hidden=self.output.quiet) as progress:
            progress.begin(len(traces))
            return run_to_end(
                check_traces(
                    traces,
                    format,
                    tools[0],
                    self.checker,
                    tokenizer,
                    model=self.model.model,
                    origin=str(self.job.origin),
                    cap=self.job.cap,
                    progress=progress.add,
                )
            )

    def _given(self) -> Iterator[tuple[Task, str]]:
        """Yield each task with the trace that it brings, or that its annotated solution gives."""
        for task in self.tasks:
            if self.job.origin is TraceOrigin.GSM8K:
                text = trace_of(task)
            else:
                text = task.data.get("demonstration")
            if text is None:
                self.unusable += 1
            else:
                yield task, text

    def _rewritten(self) -> Iterator[tuple[Task, str]]:
        """Yield each task with the writer's versions of its solution."""
        template = TEMPLATE
        if self.job.template is not None:
            try:
                template = self.job.template.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"can't read {self.job.template}: {error}") from error
        asked = to_rewrite(self.tasks, template)
        self.unusable = len(self.tasks) - len(asked)
        writer = self.job.writer or self.model.model
        model = dataclasses.replace(self.model, model=writer, tool=["none"], format=None)
        run, _ = self._roll_out(asked, model, format=Rewriting())
        written = {episode.id: episode for episode in run.episodes()}
        by_id = {task.id: task for task in self.tasks}
        for task in asked:
            for sample in range(self.job.n):
                if (episode := written.get(f"{task.id}/{sample}")) is not None:
                    yield by_id[task.id], episode.answer or ""

    def _roll_out(
        self, tasks: list[Task], model: ModelOptions, *, format: Format | None = None
    ) -> tuple[RunFolder, Tokenizer]:
        """Sample attempts into the folder; a `format` comes before the one of the options."""
        run = RunFolder(self.job.out, resume=self.job.resume, name="samples.jsonl")
        agent, task_tools = make_task_agent(model, self.limits, tasks, temperature=1.0)
        agent.format = format or agent.format
        origin: Mapping[str, str] = {"from": str(self.job.origin)}
        quiet, out = self.output.quiet, self.job.out
        with RunProgress(agent, quiet=quiet, out=out) as progress:

            async def work() -> Tokenizer:
                async with agent:
                    policy = await collect(
                        agent,
                        tasks,
                        run,
                        samples=self.job.n,
                        seed=model.seed,
                        task_tools=task_tools,
                        concurrency=self.job.concurrency,
                        settings=origin,
                        observer=progress,
                    )
                    return policy.engine.tokenizer

            return run, run_to_end(work())

"""`interlace coldstart`: demonstrations of tool use that are true, for fine-tuning."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ....rollout.episode_log import EpisodeLog
from ....rollout.models.files import find_model
from ....rollout.task import Task
from ....rollout.tokenizer import Tokenizer
from ....rollout.trajectory import Episode
from ....tools.errors import DataError, UsageError
from ....train.coldstart.checks import Checked, check_traces
from ....train.coldstart.gsm8k import trace_of
from ....train.coldstart.m500 import read_m500
from ....train.coldstart.reject import select
from ....train.coldstart.rewrite import TEMPLATE, Rewriting, to_rewrite
from ....train.coldstart.traces import trace_format
from ....train.data.sources import find_tasks
from ....train.data.task_sets import contamination, deduplicate
from ....train.rewards import CHECKERS, Checker
from ..answering import make_agent
from ..commands.coldstart import ColdStartOptions, TraceOrigin
from ..exits import Exit, eprint, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions
from ..render.live_view import Screen
from ..render.progress import Progress
from ..render.terminal import make_console
from ..run_folder import Record, drawn_seed
from .eval import roll_out, settings_of

__all__ = ["coldstart"]


def coldstart(
    source: str,
    job: ColdStartOptions,
    model: ModelOptions,
    limits: LimitOptions,
    output: OutputOptions,
) -> int:
    """Build the demonstrations and return the exit code."""
    _check(job)
    with Checker(default=job.checker) as checker:
        made = _ColdStart(source, job, model, limits, output, checker).run()
    return Exit.DONE if made else Exit.NO_ANSWER


def _check(job: ColdStartOptions) -> None:

    if job.checker not in CHECKERS:
        raise UsageError(f"there is no checker {job.checker!r}: one of {', '.join(CHECKERS)}")
    if (job.writer or job.template) and job.origin is not TraceOrigin.REWRITE:
        raise UsageError("--writer and --template belong to --from rewrite")
    if job.origin in (TraceOrigin.GSM8K, TraceOrigin.TRACES, TraceOrigin.M500):
        if job.resume:
            raise UsageError(f"--from {job.origin} samples nothing: there is nothing to resume")
        if (job.out / "traces.jsonl").exists():
            raise UsageError(f"{job.out} holds traces already: name another --out")


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

        self.source = source
        self.job = job
        self.model = model
        self.limits = limits
        self.output = output
        self.checker = checker
        self.screen = Screen(make_console(sys.stderr))
        self.said = self._read_m500() if job.origin is TraceOrigin.M500 else []
        """Episodes that are taken as they are."""
        given = [each.task for each in self.said] or find_tasks(
            source, limit=job.limit, databases=job.databases, tell=None if output.quiet else eprint
        )
        self.tasks, duplicates = deduplicate(given)
        self.left_out = {"duplicates": len(duplicates.dropped)}
        """Tasks that are not asked at all, by the reason."""
        if job.unlike is not None:
            shared = contamination(self.tasks, find_tasks(job.unlike)).training_ids
            self.tasks = [task for task in self.tasks if task.id not in shared]
            self.left_out["shared_with_tests"] = len(shared)
        self.unusable = 0
        """Tasks that no trace could be made of."""

    def run(self) -> int:
        """Make, check, write and tell; the number of traces kept."""
        checked = self._checked()
        _write(checked.kept, self.job.out / "traces.jsonl")
        report = {
            "out": str(self.job.out / "traces.jsonl"),
            "tasks": len(self.tasks),
            "tasks_left_out": self.left_out,
            "tasks_without_a_trace": self.unusable,
            "traces": checked.seen,
            "kept": len(checked.kept),
            "dropped": {str(why): count for why, count in checked.dropped.most_common()},
            "error": None,
        }
        _write_json(report, self.job.out / "report.json")
        if self.output.json:
            print_json(report)
        if not self.output.quiet:
            dropped = ", ".join(f"{count} {why}" for why, count in checked.dropped.most_common())
            self.screen.say(
                f"{len(checked.kept)} traces in {report['out']}, of {checked.seen} from "
                f"{len(self.tasks)} tasks; dropped: {dropped or 'none'}"
                + (f"; {self.unusable} tasks gave none" if self.unusable else "")
                + "".join(
                    f"; {count} tasks left out: {why.replace('_', ' ')}"
                    for why, count in self.left_out.items()
                    if count
                ),
                "words",
            )
        return len(checked.kept)

    def _read_m500(self) -> list[Episode]:

        name = self.model.model
        tokenizer = Tokenizer.load(find_model(name))
        found = list(islice(read_m500(self.source, tokenizer, model=name), self.job.limit))
        if not found:
            raise DataError(f"{self.source} is empty")
        return found

    def _checked(self) -> Checked:
        """The traces, and what became of each."""
        if self.job.origin is TraceOrigin.M500:
            wanted = {task.id for task in self.tasks}
            return Checked([each for each in self.said if each.task.id in wanted])
        return self._sampled() if self.job.origin is TraceOrigin.SAMPLE else self._written()

    def _sampled(self) -> Checked:
        """The model's own attempts, the right ones."""
        with self._record(self.model) as record:
            tokenizer = self._roll_out(record, self.tasks, self.model)
            return select(
                record.last.values(),
                self.checker,
                tokenizer,
                cap=self.job.cap,
                needs_call=self.job.needs_call,
            )

    def _written(self) -> Checked:
        """Traces that somebody wrote, each checked."""
        format = trace_format(self.model.format or "retool")
        tools = make_agent(self.model, self.limits, temperature=0.0).tools
        format.check(tools)
        if len(tools) != 1:
            raise UsageError("traces call one tool: name it with --tool")
        tokenizer = Tokenizer.load(find_model(self.model.model))
        traces = list(self._traces())
        with Progress(make_console(sys.stderr), len(traces), hidden=self.output.quiet) as shown:
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
                    progress=lambda became: shown.add(became, 0),
                )
            )

    def _traces(self) -> Iterator[tuple[Task, str]]:
        if self.job.origin is TraceOrigin.REWRITE:
            yield from self._rewritten()
            return

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
        """Yield each task with the writer's version of its solution."""
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
        by_id = {task.id: task for task in self.tasks}
        with self._record(model, template=template) as record:
            self._roll_out(record, asked, model, rewriting=True)
            for task in asked:
                for sample in range(self.job.n):
                    episode = record.last.get(f"{task.id}/{sample}")
                    if episode is not None:
                        yield by_id[task.id], episode.answer or ""

    def _record(self, model: ModelOptions, **more: Any) -> Record:

        seed = drawn_seed(model.seed, self.job.out)
        settings = settings_of(self.source, self.tasks, model, self.limits, seed) | {
            "from": str(self.job.origin),
            "n": self.job.n,
            "limit": self.job.limit,
            "unlike": self.job.unlike,
            **more,
        }
        return Record(self.job.out, settings, resume=self.job.resume, name="samples.jsonl")

    def _roll_out(
        self, record: Record, tasks: list[Task], model: ModelOptions, *, rewriting: bool = False
    ) -> Tokenizer:

        return run_to_end(
            roll_out(
                record,
                tasks,
                model,
                self.limits,
                self.screen,
                n=self.job.n,
                concurrency=self.job.concurrency,
                temperature=1.0,
                quiet=self.output.quiet,
                format=Rewriting() if rewriting else None,
            )
        )


def _write(episodes: Iterable[Episode], path: Path) -> None:
    """A log that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    with EpisodeLog(partial) as log:
        for episode in episodes:
            log.append(episode)
    os.replace(partial, path)


def _write_json(report: dict[str, Any], path: Path) -> None:

    try:
        path.write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror}") from error

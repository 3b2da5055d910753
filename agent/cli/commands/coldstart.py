"""`interlace coldstart`: demonstrations of tool use that are true, for fine-tuning."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....tools.files import write_beside, write_whole
from ..exits import Exit, guarded, print_json, run_to_end, tell
from ..options import Databases, LimitOptions, ModelOptions, OutputOptions, command, make_agent
from .eval import roll_out, settings_of

if TYPE_CHECKING:
    from ....rollout.task import Task
    from ....rollout.tokenizer import Tokenizer
    from ....rollout.trajectory import Episode
    from ....train.coldstart.checks import Checked
    from ....train.rewards import Checker
    from ..run_folder import Record

__all__ = ["coldstart"]


class Origin(StrEnum):
    """A source of traces."""

    SAMPLE = "sample"
    GSM8K = "gsm8k"
    REWRITE = "rewrite"
    TRACES = "traces"
    M500 = "m500"


@dataclass(frozen=True, kw_only=True)
class ColdStartOptions:
    """The source of the traces, the rules for keeping them, and the output folder."""

    out: Annotated[
        Path, typer.Option("--out", "-o", help="A folder for traces.jsonl and the report.")
    ]
    origin: Annotated[
        Origin,
        typer.Option(
            "--from",
            help="sample: the model's own right attempts; gsm8k: marked solutions, no model needed;"
            " rewrite: solutions, rewritten by a model; traces: traces that the tasks bring; m500: "
            "what the members of a team said, unchecked.",
        ),
    ] = Origin.SAMPLE
    n: Annotated[int, typer.Option(min=1, help="Attempts at each task (sample, rewrite).")] = 4
    cap: Annotated[int, typer.Option(min=1, help="Traces kept of each task.")] = 2
    needs_call: Annotated[
        bool, typer.Option("--needs-call", help="Keep only attempts with a call (sample).")
    ] = False
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first tasks.")] = None
    databases: Databases = None
    unlike: Annotated[
        str | None,
        typer.Option(
            metavar="TASKS",
            help="A test set: tasks that share 13 words in a row with it are left out.",
        ),
    ] = None
    writer: Annotated[
        str | None, typer.Option(help="The model that rewrites, where it is not --model.")
    ] = None
    template: Annotated[
        Path | None,
        typer.Option(help="What it is asked: text with {question}, {solution}, {answer}."),
    ] = None
    checker: Annotated[
        str,
        typer.Option(
            help="exact, math, em, sql or mine.py:function, for tasks that don't name theirs."
        ),
    ] = "exact"
    concurrency: Annotated[int, typer.Option(min=1, help="Attempts at the same time.")] = 8
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the attempts in --out.")] = (
        False
    )


@command
def coldstart(
    source: Annotated[
        str,
        typer.Argument(
            metavar="TASKS",
            help="A file, a generator (arithmetic:train:500) or gsm8k:FILE; of M500, its JSONL.",
        ),
    ],
    job: ColdStartOptions,
    model: ModelOptions,
    limits: LimitOptions,
    output: OutputOptions,
) -> None:
    """Make demonstrations for `interlace sft`: only what is right, and says what tools return.

    Ledgers are written for --model's tokenizer: they fine-tune that model. What each check dropped
    is counted in report.json.
    """
    with guarded(json=output.json, debug=output.debug):
        from ....train.rewards import Checker

        _check(job)
        with Checker(default=job.checker) as checker:
            made = _ColdStart(source, job, model, limits, output, checker).run()
        raise typer.Exit(Exit.DONE if made else Exit.NO_ANSWER)


def _check(job: ColdStartOptions) -> None:
    from ....tools.errors import UsageError
    from ....train.rewards import find_checker

    find_checker(job.checker)
    if (job.writer or job.template) and job.origin is not Origin.REWRITE:
        raise UsageError("--writer and --template belong to --from rewrite")
    if job.origin in (Origin.GSM8K, Origin.TRACES, Origin.M500):
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
        checker: "Checker",
    ) -> None:
        from ....train.data.sources import find_tasks
        from ....train.data.task_sets import contamination, deduplicate
        from ..render.live_view import Screen
        from ..render.terminal import make_console

        self.source = source
        self.job = job
        self.model = model
        self.limits = limits
        self.output = output
        self.checker = checker
        self.screen = Screen(make_console(sys.stderr))
        self.said = self._read_m500() if job.origin is Origin.M500 else []
        """Episodes that are taken as they are."""
        given = [each.task for each in self.said] or find_tasks(
            source, limit=job.limit, databases=job.databases, tell=None if output.quiet else tell
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
        text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
        write_whole(self.job.out / "report.json", text)
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

    def _read_m500(self) -> list["Episode"]:
        from ....rollout.models.files import find_model
        from ....rollout.tokenizer import Tokenizer
        from ....tools.errors import DataError
        from ....train.coldstart.m500 import read_m500

        name = self.model.model
        tokenizer = Tokenizer.load(find_model(name))
        found = list(islice(read_m500(self.source, tokenizer, model=name), self.job.limit))
        if not found:
            raise DataError(f"{self.source} is empty")
        return found

    def _checked(self) -> "Checked":
        """The traces, and what became of each."""
        from ....train.coldstart.checks import Checked

        if self.job.origin is Origin.M500:
            wanted = {task.id for task in self.tasks}
            return Checked([each for each in self.said if each.task.id in wanted])
        return self._sampled() if self.job.origin is Origin.SAMPLE else self._written()

    def _sampled(self) -> "Checked":
        """The model's own attempts, the right ones."""
        from ....train.coldstart.reject import select

        with self._record(self.model) as record:
            tokenizer = self._roll_out(record, self.tasks, self.model)
            return select(
                record.last.values(),
                self.checker,
                tokenizer,
                cap=self.job.cap,
                needs_call=self.job.needs_call,
            )

    def _written(self) -> "Checked":
        """Traces that somebody wrote, each checked."""
        from ....rollout.models.files import find_model
        from ....rollout.tokenizer import Tokenizer
        from ....tools.errors import UsageError
        from ....train.coldstart.checks import check_traces
        from ....train.coldstart.traces import trace_format
        from ..render.progress import Progress
        from ..render.terminal import make_console

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

    def _traces(self) -> "Iterator[tuple[Task, str]]":
        if self.job.origin is Origin.REWRITE:
            yield from self._rewritten()
            return
        from ....train.coldstart.gsm8k import trace_of

        for task in self.tasks:
            if self.job.origin is Origin.GSM8K:
                text = trace_of(task)
            else:
                text = task.data.get("demonstration")
            if text is None:
                self.unusable += 1
            else:
                yield task, text

    def _rewritten(self) -> "Iterator[tuple[Task, str]]":
        """Yield each task with the writer's version of its solution."""
        from ....tools.errors import DataError
        from ....train.coldstart.rewrite import TEMPLATE, to_rewrite

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

    def _record(self, model: ModelOptions, **more: Any) -> "Record":
        from ..run_folder import Record, drawn_seed

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
        self, record: "Record", tasks: list["Task"], model: ModelOptions, *, rewriting: bool = False
    ) -> "Tokenizer":
        from ....train.coldstart.rewrite import Rewriting

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


def _write(episodes: "Iterable[Episode]", path: Path) -> None:
    """A log that appears whole or not at all."""
    from ....rollout.episode_log import EpisodeLog

    with write_beside(path) as partial, EpisodeLog(partial) as log:
        for episode in episodes:
            log.append(episode)

"""The whole comparison: cold starts, runs side by side, the page."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from interlace.rollout.engines import TransformersEngine
from interlace.train.evaluation.attempts import read_attempts
from interlace.train.evaluation.results import Evaluation
from interlace.train.local.record import read_metrics
from interlace.train.rewards import Checker

from ..workers import workers
from .arms import ARMS
from .cold_starts import Start, make_starts
from .report import Results, write_page
from .runs import Run, run_folder, test_tasks, train
from .sampling import Examiner
from .settings import Settings

__all__ = ["make"]


def make(settings: Settings, folder: Path) -> Path:
    """All that is missing in `folder`; the path of the page.

    What is finished there is kept, so that a run that was killed continues. Raises DataError where
    the folder holds a run with other settings, ModelError where a cold start fails.
    """
    settings.write(folder)
    with _screen() as screen:
        starts = _starts(settings, folder, screen)
        evaluations = {name: _evaluate(settings, folder, name, screen) for name in ARMS}
        _runs(settings, folder, screen)
    return write_page(Results(settings, starts, evaluations, _finished(settings, folder)), folder)


@contextmanager
def _screen() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as screen:
        yield screen


def _starts(settings: Settings, folder: Path, screen: Progress) -> dict[str, Start]:
    import torch

    torch.set_num_threads(1)  # more are slower where cores are shared
    bar = screen.add_task("cold starts", total=settings.sft_steps, remark="")
    heard = ""

    def progress(stage: str, done: int, remark: str) -> None:
        nonlocal heard
        screen.update(bar, description=stage, completed=done, remark=remark)
        if not screen.console.is_terminal and (stage != heard or done % 100 == 0):
            screen.console.print(f"{stage}: {done} {remark}")  # into a log
        heard = stage

    starts = make_starts(settings, folder, progress)
    screen.update(bar, description="cold starts", total=1, completed=1, remark="")
    return starts


def _evaluate(settings: Settings, folder: Path, name: str, screen: Progress) -> Evaluation:
    """A start on the test stories, several attempts at each: accuracy, pass@k."""
    screen.console.print(f"measuring the start {ARMS[name].label}")

    engine = TransformersEngine.load(folder / name / "start", device="cpu")
    try:
        with Examiner(engine, ARMS[name], test_tasks(settings)) as examiner:
            made = examiner.attempts(settings.attempts, 0)
    finally:
        asyncio.run(engine.aclose())
    with Checker() as checker:
        found, unjudged = read_attempts(made, checker, engine.tokenizer)
    return Evaluation(found, dict(unjudged))


def _runs(settings: Settings, folder: Path, screen: Progress) -> None:
    """All runs that are not finished, `workers` at a time."""
    missing = [
        (variant, seed)
        for variant, seed in settings.plan
        if Run.read(run_folder(folder, variant, seed)) is None
    ]
    total = len(settings.plan) * settings.steps
    bar = screen.add_task("runs", total=total, remark="")
    with workers(settings.workers) as pool:
        waiting: set[Future[Run]] = {
            pool.submit(train, settings, folder, variant, seed) for variant, seed in missing
        }
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=2.0, return_when=FIRST_COMPLETED)
                steps = sum(map(_steps, (folder / "runs").glob("*")))
                screen.update(bar, completed=steps)
                for future in done:
                    run = future.result()
                    remark = f"{run.variant} {run.seed}: {run.points[-1].accuracy:.1%}"
                    screen.update(bar, remark=remark)
                    if not screen.console.is_terminal:
                        screen.console.print(f"{time.strftime('%H:%M:%S')} {remark}")
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    screen.update(bar, completed=total)


def _steps(folder: Path) -> int:
    """How many steps a run has made."""
    if not (folder / "metrics.jsonl").exists():
        return 0
    return len(read_metrics(folder))


def _finished(settings: Settings, folder: Path) -> dict[str, list[Run]]:
    """All runs by variant, in the order of the seeds."""
    runs: dict[str, list[Run]] = {}
    for variant, seed in settings.plan:
        run = Run.read(run_folder(folder, variant, seed))
        assert run is not None
        runs.setdefault(variant, []).append(run)
    return runs

"""The progress display of a training run: bars and a table, or a line per step."""

from collections import deque
from collections.abc import Callable
from typing import IO, Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ....rollout.trajectory import Episode
from ....train.config import TrainConfig
from ....train.monitor import Monitor
from .evaluation_tables import percent
from .terminal import make_console

__all__ = ["COLUMNS", "TrainingScreen"]

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "reward": ("reward/total", "{:.3f}".format),
    "right": ("reward/correct", percent),
    "held out": ("held_out/accuracy", percent),
    "calls": ("reward/calls", "{:.2f}".format),
    "tokens": ("response_tokens", "{:.0f}".format),
    "entropy": ("entropy", "{:.3f}".format),
    "gradient": ("grad_norm", "{:.3f}".format),
    "unscored": ("unscored", "{:.0f}".format),
    "seconds": ("seconds", "{:.1f}".format),
}
"""The table's columns: which metric, and how it is written."""
_ROWS = 12


class TrainingScreen:
    """On a terminal a live table of the last steps with bars beneath; elsewhere a line a step."""

    def __init__(self, config: TrainConfig, stream: IO[str], *, hidden: bool) -> None:
        self.last: dict[str, float] = {}
        """The metrics of the last step."""
        self._hidden = hidden
        self._config = config
        self._monitor = Monitor()
        self._console = make_console(stream)
        self._rows: deque[list[str]] = deque(maxlen=_ROWS)
        self._bars = Progress(
            TextColumn("{task.description:9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._steps = self._bars.add_task("steps", total=config.steps)
        self._episodes = self._bars.add_task("episodes", total=self._in_a_step)
        live = self._console.is_terminal and not hidden
        self._live = Live(console=self._console, refresh_per_second=4) if live else None

    @property
    def _in_a_step(self) -> int:
        return self._config.tasks_per_step * self._config.group_size

    def say(self, sentence: str) -> None:
        """One line."""
        if not self._hidden:
            self._console.print(sentence, soft_wrap=True, markup=False)

    def episode(self, step: int, episode: Episode) -> None:
        """One more episode of a step is done."""
        self._bars.advance(self._episodes)
        if self._live is not None:
            self._live.update(self._picture())

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """A step is done."""
        self.last = {"step": step, **metrics}
        cells = [
            write(metrics[name]) if name in metrics else "" for name, write in COLUMNS.values()
        ]
        self._rows.append([str(step), *cells])
        self._bars.update(self._steps, completed=step)
        self._bars.reset(self._episodes, total=self._in_a_step)
        if self._live is not None:
            self._live.update(self._picture())
        elif not self._hidden:
            shown = [f"{c} {cell}" for c, cell in zip(COLUMNS, cells, strict=True) if cell]
            self._console.print(f"step {step}: {' · '.join(shown)}", soft_wrap=True, markup=False)
        for sentence in self._monitor.look(metrics):
            self.say(f"warning: {sentence}")

    def _picture(self) -> Group:
        table = Table(
            "step", *COLUMNS, box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0)
        )  # all of it fits 80 columns
        for column in table.columns:
            column.justify = "right"
        for row in self._rows:
            table.add_row(*row)
        return Group(table, self._bars)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._picture())
            self._live.stop()

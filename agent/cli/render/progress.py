"""The progress of a run: a bar, how its episodes ended, and what happens right now."""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ....rollout.admission import RunMetrics
from ....rollout.many.run_folder import UNFINISHED, LoggedEpisode
from ....rollout.trajectory import Episode, StopReason
from ...agent import Agent
from ..answering import warnings
from ..exits import Terminated
from .live_view import LiveView
from .terminal import make_console

__all__ = ["CountProgress", "RunProgress", "live_line", "make_bar"]

_LEVELS = "▁▂▃▄▅▆▇█"


def live_line(figures: dict[str, Any]) -> str:
    r"""One line of a runner's figures.

    Example:
        >>> line = live_line({"sampling": 12, "calling": 4, "queued": 1, "engine_idle": 0.004,
        ...                   "calls": 50, "call_seconds": 6.0, "overshoot": 0, "retried": 0,
        ...                   "prefilled_again_share": 0.031, "turns": {1: 2, 3: 8}})
        >>> print(line.replace(" · ", "\n"))
        engine 12
        tools 4 (1 queued), 0.12 s a call
        idle 0.4 %
        prefilled again 3.1 %
        turns 1▃▁█3
    """
    tools = f"tools {figures['calling']}"
    if figures["queued"]:
        tools += f" ({figures['queued']} queued)"
    if figures["calls"]:
        tools += f", {figures['call_seconds'] / figures['calls']:.2f} s a call"
    said = [
        f"engine {figures['sampling']}",
        tools,
        f"idle {100 * figures['engine_idle']:.1f} %",
        f"prefilled again {100 * figures['prefilled_again_share']:.1f} %",
    ]
    if figures["overshoot"]:
        said.append(f"overshoot {figures['overshoot']}")
    if figures["retried"]:
        said.append(f"tried again {figures['retried']}")
    if turns := figures["turns"]:
        most, first, last = max(turns.values()), min(turns), max(turns)
        heights = [turns.get(n, 0) * (len(_LEVELS) - 1) / most for n in range(first, last + 1)]
        said.append(f"turns {first}{''.join(_LEVELS[round(h + 0.49)] for h in heights)}{last}")
    return " · ".join(said)


class _Bar(Bar):
    """A bar with the line of the engine's and the tools' figures below it."""

    metrics: RunMetrics | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.metrics is not None:
            yield Text(live_line(self.metrics.figures()), style="dim")


def make_bar(console: Console, *, hidden: bool) -> _Bar:
    """A progress bar that is erased at the end; on a terminal only."""
    return _Bar(
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )


class CountProgress:
    """A progress bar that counts how things ended."""

    def __init__(self, console: Console, *, total: int = 0, hidden: bool = False) -> None:
        self.bar = make_bar(console, hidden=hidden)
        self._task = self.bar.add_task("", total=total)
        self._ends: Counter[str] = Counter()
        self.tokens = 0
        """Tokens sampled by this process."""
        self._started = time.perf_counter()
        self._ended: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the work began, until it ended."""
        return (self._ended or time.perf_counter()) - self._started

    def begin(self, total: int, metrics: RunMetrics | None = None) -> None:
        """Start the clock and the bar."""
        self.bar.metrics = metrics
        self.bar.update(self._task, total=total)
        self._started = time.perf_counter()
        self.bar.start()

    def add(self, end: str, tokens: int = 0) -> None:
        """Count one more."""
        self._ends[end] += 1
        self.tokens += tokens
        text = ", ".join(f"{count} {name}" for name, count in self._ends.most_common())
        if self.tokens:
            text += f" · {self.tokens / self.seconds:.0f} tokens/s"
        self.bar.update(self._task, advance=1, description=text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = time.perf_counter()
        self.bar.stop()


class RunProgress(CountProgress):
    """Observes a run for a terminal: a spinner while the model is loaded, then the warnings about
    the agent, then a bar; how to resume the run, if it is stopped.
    """

    def __init__(self, agent: Agent, *, quiet: bool, out: Path | None) -> None:
        self._console = make_console(sys.stderr)
        super().__init__(self._console, hidden=quiet)
        self.screen = LiveView(self._console)
        self._agent = agent
        self._quiet = quiet
        self._out = out
        self._total = self._done = 0
        self.error: str | None = None
        """Why infrastructure failed an episode: of the first one."""
        self.metrics: RunMetrics | None = None
        """The counts of the run, once it has started."""
        self._loading = self._console.status(f"loading {agent.model}", spinner="dots")

    @property
    def figures(self) -> dict[str, Any]:
        """The figures of the engine and the tools so far."""
        return {} if self.metrics is None else self.metrics.figures()

    def loading(self) -> None:
        """Show the spinner."""
        if not self._quiet and self._console.is_terminal:
            self._loading.start()

    def started(self, total: int, done: Sequence[LoggedEpisode], metrics: RunMetrics) -> None:
        """Print the warnings and start the bar."""
        self._loading.stop()
        if not self._quiet:
            for warning in warnings(self._agent):
                self.screen.say(warning, "notice")
        self._total, self._done, self.metrics = total, len(done), metrics
        self.begin(total, metrics)
        for episode in done:
            self.add(str(episode.stop))

    def finished(self, episode: Episode) -> None:
        """Count an episode."""
        self._done += episode.stop not in UNFINISHED
        if episode.stop is StopReason.INFRASTRUCTURE and self.error is None:
            self.error = episode.error or "unknown"
        tokens = sum(each.sampled_tokens for each in episode.trajectories)
        self.add(str(episode.stop or "cancelled"), tokens)

    def __exit__(self, *error: object) -> None:
        self._loading.stop()
        super().__exit__()
        if self._total and self._out is not None and isinstance(error[1], _STOPPED):
            self.screen.say(
                f"stopped: {self._done} of {self._total} attempts are done, {self._out} has them; "
                "the same command with --resume continues",
                "notice",
            )


_STOPPED = (KeyboardInterrupt, Terminated)

"""How far a run of many is: a bar, how the episodes ended, and what goes on right now."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from ....rollout.admission import Traffic

__all__ = ["Progress", "live_line"]

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
    """A bar with the line of what goes on below it."""

    traffic: Traffic | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.traffic is not None:
            yield Text(live_line(self.traffic.figures()), style="dim")


class Progress:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(
        self,
        console: Console,
        total: int,
        *,
        hidden: bool = False,
        traffic: Traffic | None = None,
    ) -> None:
        self._bar = _Bar(
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
        )
        self._bar.traffic = traffic
        self._task = self._bar.add_task("", total=total)
        self._stops: Counter[str] = Counter()
        self._tokens = 0
        self._started = time.perf_counter()

    def add(self, stop: str, tokens: int) -> None:
        """Count one episode."""
        self._stops[stop] += 1
        self._tokens += tokens
        said = ", ".join(f"{count} {name}" for name, count in self._stops.most_common())
        if self._tokens:
            said += f" · {self._tokens / (time.perf_counter() - self._started):.0f} tokens/s"
        self._bar.update(self._task, advance=1, description=said)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

"""How far a run of many is: a bar, how the episodes ended, tokens a second."""

import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress"]


class Progress:
    """A progress bar on a terminal; nothing elsewhere."""

    def __init__(self, console: "Console", total: int, *, hidden: bool = False) -> None:
        self._bar = Bar(
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)
        self._stops: Counter[str] = Counter()
        self._tokens = 0
        self._started = time.perf_counter()

    def add(self, stop: str, tokens: int) -> None:
        """Count one episode."""
        self._stops[stop] += 1
        self._tokens += tokens
        speed = self._tokens / (time.perf_counter() - self._started)
        stops = ", ".join(f"{count} {name}" for name, count in self._stops.most_common())
        self._bar.update(self._task, advance=1, description=f"{stops} · {speed:.0f} tokens/s")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._bar.stop()

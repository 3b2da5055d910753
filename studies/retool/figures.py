"""The pictures of the page. matplotlib is loaded here alone, and draws without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlace.tools.errors import MissingExtra

from .curves import AXES, curve
from .runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_accuracy", "draw_behaviour", "draw_mask"]

LABELS = {
    "tools": "with an interpreter",
    "text": "in text",
    "unmasked": "with an interpreter, loss on its output too",
}
COLOURS = {"tools": "tab:blue", "text": "tab:orange", "unmasked": "tab:red"}
NAMES = {"step": "steps", "tokens": "sampled tokens", "seconds": "seconds of training"}


def draw_accuracy(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """Accuracy of the two arms against steps, tokens and seconds."""
    figure, panels = _figure(3)
    for axes, axis in zip(panels, AXES, strict=True):
        for variant in ("tools", "text"):
            _draw(axes, runs, variant, axis, "accuracy", each=True)
        axes.set(xlabel=NAMES[axis])
        axes.set_ylim(bottom=0)
        if axis == "tokens":
            axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1000:g}k")
    panels[0].set_ylabel("held-out accuracy")
    panels[0].legend(fontsize=8, loc="upper left")
    _save(figure, path)


def draw_behaviour(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """How often stories are worked out, and how long responses are."""
    figure, panels = _figure(2)
    for axes, measure, name in (
        (panels[0], "worked", "attempts worked out, not guessed"),
        (panels[1], "response_tokens", "sampled tokens per attempt"),
    ):
        for variant in ("tools", "text"):
            _draw(axes, runs, variant, "step", measure)
        axes.set(xlabel="steps", ylabel=name)
    panels[0].set_ylim(0, 1.02)
    panels[0].legend(fontsize=8, loc="lower right")
    _save(figure, path)


def draw_mask(runs: Mapping[str, Sequence[Run]], path: Path) -> None:
    """The intervention: the same runs with the mask and without."""
    figure, panels = _figure(2)
    same = {name: part[: len(runs["unmasked"])] for name, part in runs.items()}
    for axes, measure, name in (
        (panels[0], "clean", "attempts worked out by clean calls"),
        (panels[1], "accuracy", "held-out accuracy"),
    ):
        for variant in ("tools", "unmasked"):
            _draw(axes, same, variant, "step", measure)
        axes.set(xlabel="steps", ylabel=name)
        axes.set_ylim(bottom=0)
    panels[1].legend(fontsize=8, loc="lower right")
    _save(figure, path)


def _figure(panels: int) -> "tuple[Any, Sequence[Axes]]":
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("plots", "plot") from error
    figure = Figure(figsize=(3.6 * panels, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels)


def _draw(
    axes: "Axes",
    runs: Mapping[str, Sequence[Run]],
    variant: str,
    axis: str,
    measure: str,
    each: bool = False,
) -> None:
    """The mean over seeds with its interval; thin lines: `each` seed."""
    found = curve(runs[variant], axis, measure)
    colour = COLOURS[variant]
    if each:
        for run in runs[variant]:
            xs = [getattr(point, axis) for point in run.points]
            ys = [getattr(point, measure) for point in run.points]
            axes.plot(xs, ys, color=colour, alpha=0.25, linewidth=0.7)
    means = [estimate.value for estimate in found.values]
    axes.plot(found.at, means, color=colour, linewidth=2, label=LABELS[variant])
    lows = [estimate.low for estimate in found.values]
    highs = [estimate.high for estimate in found.values]
    axes.fill_between(found.at, lows, highs, color=colour, alpha=0.2, linewidth=0)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, format="png")

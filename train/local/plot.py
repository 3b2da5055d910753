"""A picture of a run. matplotlib is loaded here alone, and draws without a display."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tools.errors import MissingExtra
from ...tools.files import write_beside
from .record import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["need_matplotlib", "plot_run"]

_GAP = "between engine and trainer"
_PANELS: dict[str, dict[str, str]] = {
    "reward and accuracy": {
        "reward/total": "reward",
        "reward/correct": "right, as sampled",
        "held_out/accuracy": "right, held out, greedy",
    },
    "calls and errors": {
        "reward/calls": "calls",
        "reward/tool_errors": "share of calls that fail",
        "reward/void_turns": "void turns",
    },
    "policy": {"entropy": "entropy (nats)", "grad_norm": "gradient norm"},
    "tokens of a response": {"response_tokens": "sampled"},
    _GAP: {"engine_gap": "mean difference of log-probabilities"},
    "seconds of a step": {
        "seconds/rollout": "rollout",
        "seconds/reward": "reward",
        "seconds/advantage": "advantage",
        "seconds/update": "update",
    },
}


def need_matplotlib() -> None:
    """Raises MissingExtra if there is none: better before a run than after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a plot", "plot") from error


def plot_run(folder: Path) -> Path:
    """Draw the metrics of the run in `folder`; where the picture lies.

    Raises MissingExtra without matplotlib, DataError where there is nothing to read or no place to
    write.
    """
    need_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = read_metrics(folder)
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, curves) in zip(figure.subplots(2, 3).flat, _PANELS.items(), strict=True):
        _draw(axes, metrics, curves)
        axes.set(xlabel="step", title=title, yscale="log" if title == _GAP else "linear")
        axes.xaxis.get_major_locator().set_params(integer=True)
    path = folder / "run.png"
    with write_beside(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return path


def _draw(axes: "Axes", metrics: Sequence[dict[str, Any]], curves: dict[str, str]) -> None:
    styles = ("-", "--", ":", "-.")  # curves that lie on each other are all seen
    for style, (name, label) in zip(styles, curves.items(), strict=False):
        points = [(m["step"], m[name]) for m in metrics if m.get(name) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "." if len(points) == 1 else style, label=label)
    if axes.lines:
        axes.legend(fontsize=7)

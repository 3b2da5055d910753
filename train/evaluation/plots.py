"""Pictures of evaluations. matplotlib is loaded here alone, and draws without a display."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ...tools.errors import MissingExtra, UsageError
from ...tools.files import write_beside
from .intervals import Estimate
from .results import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_picture", "plot_evaluations"]

_FORMATS = ("png", "svg", "pdf")
_LONGEST = 32
"""Characters of a run's name in a legend."""


def plot_evaluations(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """One picture (PNG, SVG or PDF, by the file's ending) of one or several runs by name, each in
    its colour: pass@k and maj@k over k (with one attempt at each task, accuracy), how long right
    and wrong responses are, and how many calls they make. Bands and bars are intervals.

    Raises UsageError for another ending, MissingExtra without matplotlib, DataError where the file
    can't be written.
    """
    check_picture(path)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("plots", "plot") from error
    labels = [_label(name) for name in evaluations]
    for place, label in enumerate(labels):
        if not label or label in labels[:place]:
            made = (f"run {number}" for number in count(place + 1))
            labels[place] = next(each for each in made if each not in labels)
    evaluations = dict(zip(labels, evaluations.values(), strict=True))
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, lengths, calls = figure.subplots(1, 3)
    if all(each.n == 1 for each in evaluations.values()):
        _draw_accuracies(accuracy, evaluations)
    else:
        _draw_curves(accuracy, evaluations)
    _draw_lengths(lengths, evaluations)
    _draw_calls(calls, evaluations)
    for axes in (lengths, calls):
        axes.set(ylabel="attempts", ylim=(0, None))
        axes.legend(fontsize=7)
    with write_beside(path) as partial:
        figure.savefig(partial, dpi=150, format=_format(path))


def check_picture(path: str | Path) -> None:
    """Raise UsageError for the name of a picture that can't be drawn."""
    if _format(path) not in _FORMATS:
        raise UsageError(f"{path} can't be drawn: its ending should be {', '.join(_FORMATS)}")


def _format(path: str | Path) -> str:
    return Path(path).suffix[1:].lower() or "png"


def _label(name: str) -> str:
    """A run's name as a label, cut in the middle; empty if the font lacks one of its characters."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    name = "".join(character if character.isprintable() else " " for character in name)
    if not all(font.get_char_index(ord(character)) for character in name):
        return ""
    name = name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 2 :]}"
    # A pair of dollars would make a formula, a leading underscore would hide the name.
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _colours(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, str, Evaluation]]:
    """Each run with its colour: the same in all panels."""
    return [(f"C{i}", name, each) for i, (name, each) in enumerate(evaluations.items())]


def _draw_accuracies(axes: "Axes", evaluations: Mapping[str, Evaluation]) -> None:
    for place, (colour, _, evaluation) in enumerate(_colours(evaluations)):
        found = evaluation.accuracy
        ends = [[found.value - found.low], [found.high - found.value]]
        axes.bar(place, found.value, 0.6, color=colour, alpha=0.6)
        axes.errorbar(place, found.value, ends, color="black", capsize=4)
    axes.set_xticks(range(len(evaluations)), list(evaluations))
    axes.set(ylim=(0, 1.02), xlim=(-1, len(evaluations)), ylabel="accuracy")


def _draw_curves(axes: "Axes", evaluations: Mapping[str, Evaluation]) -> None:
    for colour, name, evaluation in _colours(evaluations):
        _draw_curve(axes, evaluation.pass_at, f"{name}: pass@k", "o-", colour)
        _draw_curve(axes, evaluation.majority_at, f"{name}: maj@k", "s--", colour)
    axes.set_xscale("log", base=2)
    ks = sorted({k for each in evaluations.values() for k in each.pass_at})
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set(xlabel="k", ylim=(0, 1.02), ylabel="share of tasks")
    axes.legend(fontsize=7)


def _draw_curve(
    axes: "Axes", curve: Mapping[int, Estimate], label: str, style: str, colour: str
) -> None:
    ks = list(curve)
    axes.plot(ks, [curve[k].value for k in ks], style, label=label, color=colour, markersize=4)
    lows, highs = [curve[k].low for k in ks], [curve[k].high for k in ks]
    axes.fill_between(ks, lows, highs, alpha=0.12, color=colour)


def _draw_lengths(axes: "Axes", evaluations: Mapping[str, Evaluation]) -> None:
    longest = max((a.response_tokens for e in evaluations.values() for a in e.attempts), default=1)
    edges = [longest * i / 16 for i in range(17)]
    for colour, name, evaluation in _colours(evaluations):
        for right, line in _SIDES:
            group = [each.response_tokens for each in evaluation.attempts if each.correct == right]
            label = f"{name}: {'right' if right else 'wrong'} ({len(group)})"
            axes.hist(group, edges, histtype="step", label=label, color=colour, linestyle=line)
    axes.set(xlabel="tokens of a response")


def _draw_calls(axes: "Axes", evaluations: Mapping[str, Evaluation]) -> None:
    from matplotlib.ticker import MaxNLocator

    for colour, name, evaluation in _colours(evaluations):
        most = max((each.calls for each in evaluation.attempts), default=0)
        for right, line in _SIDES:
            group = [each.calls for each in evaluation.attempts if each.correct == right]
            label = f"{name}: {'right' if right else 'wrong'}"
            counts = [group.count(k) for k in range(most + 1)]
            style = f"o{line}"
            axes.plot(range(most + 1), counts, style, label=label, color=colour, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="calls of a response")


_SIDES = ((True, "-"), (False, "--"))
"""Right responses are drawn whole, wrong ones dashed."""

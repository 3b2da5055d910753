"""Evaluations and comparisons as tables."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ....train.evaluation.compare import Comparison
from ....train.evaluation.intervals import Estimate
from ....train.evaluation.results import Evaluation
from .terminal import printable

__all__ = ["print_comparison", "print_evaluation", "print_modes"]

_MEANS = {
    "tokens": "tokens sampled",
    "response_tokens": "tokens of a response",
    "turns": "turns",
    "calls": "calls",
    "seconds": "seconds",
}
_BEHAVIOUR = {
    "code_ratio": ("responses with a call", True),
    "code_lines": ("lines of code a response", False),
    "codes": ("calls run, all together", False),
    "correct_codes": ("of them without an error", False),
    "last_code_passes_when_right": ("last call passes, right responses", True),
    "last_code_passes_when_wrong": ("last call passes, wrong responses", True),
    "first_code_at": ("first call begins at, of a response", True),
    "responses_with_errors": ("responses with a failed call", False),
    "self_correction_ratio": ("of them put right by a later call", True),
    "right_after_self_correction": ("of these answered right", True),
}


def print_evaluation(console: Console, evaluation: Evaluation, title: str) -> None:
    """Two tables: figures with intervals, and how tools were used; then what was not judged."""
    if evaluation.attempts:
        _print_figures(console, evaluation, title)
    left_out = sum(evaluation.unjudged.values())
    tasks = f"{len(evaluation.by_task)} tasks, {len(evaluation.attempts)} attempts judged"
    console.out(f"{tasks}, {left_out} not", style="dim")
    for why, count in evaluation.unjudged.items():
        console.out(f"  {count} not judged: {printable(why)}", style="yellow")


def _print_figures(console: Console, evaluation: Evaluation, title: str) -> None:
    table = _table(title, "", "value", "95 % interval", "by")
    name = "accuracy" if evaluation.n == 1 else f"accuracy (avg@{evaluation.n})"
    _row(table, name, evaluation.accuracy, percent=True)
    if evaluation.n > 1:
        for k, estimate in evaluation.pass_at.items():
            few = evaluation.tasks_at[k] < len(evaluation.by_task)
            on = f" on {evaluation.tasks_at[k]} tasks" if few else ""
            _row(table, f"pass@{k}{on}", estimate, percent=True)
        for k, estimate in evaluation.majority_at.items():
            if k > 1:
                _row(table, f"maj@{k}", estimate, percent=True)
    for field, label in _MEANS.items():
        _row(table, label, evaluation.mean(field), percent=False)
    rate = evaluation.tool_error_rate
    table.add_row("calls that fail", "-" if rate is None else f"{rate:.1%}", "", "")
    console.print(table)
    use = _table("how tools were used", "", "value")
    behaviour = evaluation.behaviour()
    for key, (label, percent) in _BEHAVIOUR.items():
        use.add_row(label, _plain(behaviour[key], percent))
    console.print(use)


def print_comparison(console: Console, comparison: Comparison, first: str, second: str) -> None:
    """A table of differences, second less first, and the test."""
    table = _table(f"{second} less {first}", "", "difference", "95 % interval", "by")
    _row(table, "accuracy", comparison.accuracy, percent=True, signed=True)
    for field, label in _MEANS.items():
        _row(table, label, comparison.means[field], percent=False, signed=True)
    console.print(table)
    line = f"accuracy {comparison.first:.1%} and {comparison.second:.1%}"
    line += f" on {comparison.tasks} tasks; p = {comparison.p:.3g} ({comparison.test})"
    if comparison.table is not None:
        both, only_first, only_second, neither = comparison.table
        line += f"; right: both {both}, only the first {only_first}"
        line += f", only the second {only_second}, neither {neither}"
    console.out(line)
    for remark in comparison.remarks:
        console.out(printable(remark), style="yellow")
    if comparison.left_out:
        console.out(f"{comparison.left_out} tasks are in one run only", style="yellow")


def print_modes(console: Console, modes: Mapping[str, Evaluation]) -> None:
    """A row for each mode: accuracy with its interval, and what an answer costs."""
    table = Table(title="side by side", title_justify="left", box=None, header_style="bold")
    table.add_column("")
    for name in ("accuracy", "95 % interval", "tokens", "turns", "calls", "seconds"):
        table.add_column(name, justify="right")
    for mode, evaluation in modes.items():
        right = evaluation.accuracy
        means = (evaluation.mean(name).value for name in ("tokens", "turns", "calls", "seconds"))
        table.add_row(
            mode,
            f"{right.value:.1%}",
            f"{right.low:.1%} to {right.high:.1%}",
            *(f"{mean:.1f}" for mean in means),
        )
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left", box=None, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in (1, 2) else "left")
    return table


def _row(
    table: Table, name: str, estimate: Estimate, *, percent: bool, signed: bool = False
) -> None:
    kind = ("+" if signed else "") + (".1%" if percent else ".2f")
    ends = f"{format(estimate.low, kind)} to {format(estimate.high, kind)}"
    table.add_row(name, format(estimate.value, kind), ends, estimate.method)


def _plain(value: Any, percent: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1%}" if percent else f"{value:.1f}"

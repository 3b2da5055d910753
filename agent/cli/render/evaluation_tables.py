"""Evaluations and comparisons as tables."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ....train.evaluation.compare import Comparison
from ....train.evaluation.intervals import FEW_TASKS, Estimate
from ....train.evaluation.results import Evaluation
from .terminal import printable

__all__ = ["percent", "print_comparison", "print_evaluation", "print_modes", "reasons"]

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
    if 0 < len(evaluation.by_task) < FEW_TASKS:
        console.out(f"fewer than {FEW_TASKS} tasks say little", style="yellow")
    left_out = sum(evaluation.unjudged.values())
    tasks = f"{len(evaluation.by_task)} tasks, {len(evaluation.attempts)} attempts judged"
    console.out(f"{tasks}, {left_out} not", style="dim")
    for why, count in reasons(evaluation.unjudged):
        console.out(f"  {count} not judged: {printable(why)}", style="yellow")


def reasons(unjudged: Mapping[str, int], most: int = 5) -> list[tuple[str, int]]:
    """The most frequent reasons why attempts were not judged; the others in one line.

    Example:
        >>> reasons({"no answer to a": 1, "no answer to b": 1, "gone": 3}, most=1)
        [('gone', 3), ('2 other reasons', 2)]
    """
    listed = sorted(unjudged.items(), key=lambda item: -item[1])
    if len(others := listed[most:]) > 1:
        rest = (f"{len(others)} other reasons", sum(count for _, count in others))
        return [*listed[:most], rest]
    return listed


def _print_figures(console: Console, evaluation: Evaluation, title: str) -> None:
    table = _table(title, "", "value", "95 % interval", "by")
    name = "accuracy" if evaluation.n == 1 else f"accuracy (avg@{evaluation.n})"
    _row(table, name, evaluation.accuracy, shares=True)
    if evaluation.n > 1:
        for k, estimate in evaluation.pass_at.items():
            few = evaluation.tasks_at[k] < len(evaluation.by_task)
            on = f" on {evaluation.tasks_at[k]} tasks" if few else ""
            _row(table, f"pass@{k}{on}", estimate, shares=True)
        for k, estimate in evaluation.majority_at.items():
            if k > 1:
                _row(table, f"maj@{k}", estimate, shares=True)
    for field, label in _MEANS.items():
        _row(table, label, evaluation.mean(field), shares=False)
    rate = evaluation.tool_error_rate
    table.add_row("calls that fail", "-" if rate is None else percent(rate), "", "")
    console.print(table)
    use = _table("how tools were used", "", "value")
    behaviour = evaluation.behaviour()
    for key, (label, share) in _BEHAVIOUR.items():
        use.add_row(label, _plain(behaviour[key], share))
    console.print(use)


def print_comparison(console: Console, comparison: Comparison, first: str, second: str) -> None:
    """A table of differences, second less first, and the test."""
    table = _table(f"{second} less {first}", "", "difference", "95 % interval", "by")
    _row(table, "accuracy", comparison.accuracy, shares=True, signed=True)
    for field, label in _MEANS.items():
        _row(table, label, comparison.means[field], shares=False, signed=True)
    console.print(table)
    line = f"accuracy {percent(comparison.first)} and {percent(comparison.second)}"
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
        if not evaluation.attempts:
            table.add_row(mode, *"-" * 6)
            continue
        right = evaluation.accuracy
        means = (evaluation.mean(name).value for name in ("tokens", "turns", "calls", "seconds"))
        table.add_row(
            mode,
            percent(right.value),
            _ends(right, percent),
            *(_number(mean, digits=1) for mean in means),
        )
    console.print(table)
    for mode, evaluation in modes.items():
        for why, count in reasons(evaluation.unjudged):
            console.out(f"  {mode}: {count} not judged: {printable(why)}", style="yellow")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left", box=None, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in (1, 2) else "left")
    return table


def _row(
    table: Table, name: str, estimate: Estimate, *, shares: bool, signed: bool = False
) -> None:
    sign = "+" if signed else ""
    write = partial(percent, sign=sign) if shares else partial(_number, sign=sign)
    table.add_row(name, write(estimate.value), _ends(estimate, write), estimate.method)


def _ends(estimate: Estimate, write: Callable[[float], str]) -> str:
    known = estimate.low == estimate.low  # not NaN
    return f"{write(estimate.low)} to {write(estimate.high)}" if known else "-"


def _number(value: float, sign: str = "", digits: int = 2) -> str:
    return "-" if value != value else format(value, f"{sign}.{digits}f")


def percent(share: float, sign: str = "") -> str:
    """A share in percent, with one decimal, or as many as tell it from 0 % and 100 %.

    Example:
        >>> percent(1.0), percent(2999 / 3000), percent(1 / 8)
        ('100.0%', '99.97%', '12.5%')
    """
    text = format(share, f"{sign}.1%")
    for digits in range(2, 7):
        if share in (0, 1, -1) or abs(float(text[:-1])) not in (0, 100):
            break
        text = format(share, f"{sign}.{digits}%")
    return text


def _plain(value: Any, share: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return percent(value) if share else f"{value:.1f}"

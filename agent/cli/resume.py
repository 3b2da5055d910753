"""Checks that an existing log or run folder matches the command that wants to resume it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...rollout.task import Task
from ...rollout.trajectory import Episode
from ...tools.errors import UsageError

__all__ = ["check_folder", "refuse_other", "refuse_other_task"]

_OPTIONS = {
    "model": "--model",
    "format": "--format",
    "seed": "--seed",
    "n": "--n",
    "temperature": "--temperature",
    "top_p": "--top-p",
    "top_k": "--top-k",
    "turns": "--max-turns",
    "calls": "--max-calls",
    "response_tokens": "--max-tokens",
    "tool_output_tokens": "--max-tool-tokens",
    "seconds": "--timeout",
    "call_seconds": "--call-timeout",
}
"""The settings of an episode by the options they come from."""


def check_folder(folder: Path, *, resume: bool) -> None:
    """Raise UsageError where a training run would begin in the folder of another."""
    begun = (folder / "metrics.jsonl").is_file() or (folder / "checkpoint").exists()
    if begun and not resume:
        raise UsageError(
            f"{folder} holds a run already: --resume goes on with it, another --out leaves it alone"
        )


def refuse_other(log: Path, episode: Episode, asked: Mapping[str, Any]) -> None:
    """Raise UsageError, naming the first difference, where `episode` was made otherwise.

    `asked` is what `Policy.settings` holds, with the run's `n` and `seed`; what is missing there or
    in an older record, or None in `asked`, is not compared. More attempts than before only add to
    the log; fewer would leave some in it that nobody asked for.
    """
    then = dict(episode.settings)
    if episode.trajectories:
        then |= {"model": episode.trajectory.model, "format": episode.trajectory.format}
    was, now = _flat(then), _flat(asked)
    for name, option in _OPTIONS.items():
        if name not in was or now.get(name) is None or was[name] == now[name]:
            continue
        if name == "n" and was[name] < now[name]:
            continue
        _refuse(log, f"{option} {was[name]}, not {now[name]}")
    if "tools" in was and "tools" in now:
        _compare_tools(log, was["tools"], now["tools"])


def refuse_other_task(log: Path, episode: Episode, task: Task | None) -> None:
    """Raise UsageError where an episode of the log answers another question than the task of its
    name now asks. A log may hold tasks that are no longer asked for.
    """
    was = episode.task
    if task is not None and (was.question, was.answer) != (task.question, task.answer):
        raise UsageError(
            f"the task {task.id!r} is another one than {log} holds: put the file of tasks back, or "
            "name another --out"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings.get("sampling", {}), **settings.get("limits", {}), **settings}


def _compare_tools(log: Path, was: Mapping[str, str], now: Mapping[str, str]) -> None:
    if was.keys() != now.keys():
        _refuse(log, f"{_as_options(was)}, not {_as_options(now)}")
    for name in was:
        if was[name] != now[name]:
            _refuse(log, f"a tool {name} of which the model was told something else")


def _as_options(tools: Mapping[str, str]) -> str:
    return " ".join(f"--tool {name}" for name in tools or ["none"])


def _refuse(log: Path, what: str) -> None:

    raise UsageError(
        f"{log} was written with {what}: resume it with the same, or name another --out"
    )

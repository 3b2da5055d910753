"""`interlace doctor --train`: a training run, looked at before it runs."""

import json as json_module
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.text import Text

from ....tools.errors import UsageError
from ....tools.files import write_whole
from ....train.preflight.examine import Examination, examine
from ....train.preflight.finding import Finding
from ....train.preflight.trial_run import try_out
from ..exits import Exit, eprint, print_json
from ..render.terminal import make_console, printable
from .doctor_sandbox import python_sandbox

__all__ = ["examine_training"]

_MARKS = {True: ("ok", "green"), None: ("?", "yellow"), False: ("NO", "bold red")}


def examine_training(
    config: str, gpu: str | None, report: Path | None, *, tried: bool | None, json: bool
) -> int:
    """Look at a configuration and say what was found; the exit code of the first that is wrong.

    `tried`: whether to run a little of it too; None: where a card was found that it fits, and its
    model is on this machine. Raises UsageError for a size that is none, DataError for a report that
    can't be written.
    """
    card, name = _card(gpu)
    examination = examine(config, card)
    findings = list(examination.findings)
    shown = f"{name}, {card:g} GB" if card else "none found"
    findings.insert(1, Finding("card", True if card else None, shown))
    if examination.python:
        findings.append(_sandbox())
    findings += _tried(examination, findings, tried, found=bool(card) and gpu is None)
    told = _as_json(config, examination, findings)
    if report is not None:
        write_whole(report, json_module.dumps(told, indent=1) + "\n")
    if json:
        print_json(told)
    else:
        text = _render(examination, findings)
        make_console(sys.stdout).print(text, soft_wrap=True, end="")
    return next((finding.exit_code for finding in findings if finding.ok is False), 0)


def _card(gpu: str | None) -> tuple[float | None, str]:
    """The memory of a card, GB of 10^9 bytes: as given, or of the first one found."""
    if gpu is not None:
        size = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GB|GiB|G)?", gpu.strip(), re.IGNORECASE)
        if size is None or not float(size[1]):
            raise UsageError(f"--gpu {gpu}: write its memory, such as 24GB")
        # A card that is sold as 24 GB has 24 GiB, and less than that to give.
        return float(size[1]), "as given"
    try:
        import torch
    except ImportError:
        return None, ""
    if not torch.cuda.is_available():
        return None, ""
    found = torch.cuda.get_device_properties(0)
    return round(found.total_memory / 1e9, 1), str(found.name)


def _sandbox() -> Finding:
    found = python_sandbox()
    if found.tier is None:
        text = f"no walls can be had: {' '.join(found.why.split())}"
        return Finding("Python sandbox", False, text, Exit.UNAVAILABLE)
    return Finding("Python sandbox", True, f"tier {found.tier}")


def _tried(
    examination: Examination, findings: list[Finding], asked: bool | None, *, found: bool
) -> Iterator[Finding]:
    """Yield the findings of a small trial run, if `asked` for; by default if a card was `found`."""
    wrong = [finding.what for finding in findings if finding.ok is False]
    here = any(finding.what == "tokenizer" for finding in findings)  # read where the model is
    if asked is False or (asked is None and not found):
        return
    if wrong:
        yield Finding("tried", None, f"not tried: first mend {', '.join(wrong)}")
    elif examination.trial is None:
        yield Finding("tried", None, "not tried: it is for more cards than one")
    elif asked is None and not here:
        yield Finding("tried", None, "not tried: --try fetches the model first")
    else:
        eprint("trying it in small: one rollout, one update (a minute or two)")
        yield from try_out(examination.trial)


def _as_json(config: str, examination: Examination, findings: list[Finding]) -> dict[str, Any]:
    estimate = examination.estimate
    phases = {} if estimate is None else estimate.phases
    return {
        "interlace": version("interlace"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "config": Path(config).name,
        "engine": examination.engine,
        "findings": [asdict(finding) for finding in findings],
        "memory": {name: [asdict(part) for part in parts] for name, parts in phases.items()},
    }


def _render(examination: Examination, findings: list[Finding]) -> Text:
    text = Text()
    for finding in findings:
        mark, style = _MARKS[finding.ok]
        text.append(f"{mark:<4}", style)
        text.append(f"{finding.what:<16}{printable(finding.text)}\n")
    if examination.estimate is not None:
        text.append("\nMemory of one card, GB (an estimate)\n", "bold")
        for phase, parts in examination.estimate.phases.items():
            text.append(f"  {phase:<34}{examination.estimate.total(phase):7.1f}\n", "bold")
            for part in parts:
                text.append(f"    {part.name:<32}{part.gigabytes:7.1f}  {part.setting}\n")
    return text

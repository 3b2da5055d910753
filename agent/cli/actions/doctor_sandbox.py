"""The state of this machine: a verdict, the walls around Python, each tried, and a report."""

import asyncio
import os
import platform
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.text import Text

from ....rollout.models.files import local_model
from ....tools import PythonTool
from ....tools.errors import ToolUnavailable
from ....tools.python.sandbox.probe import probe
from ..exits import Exit, print_json
from ..options import folder_file, own_file
from ..render.terminal import make_console, printable

__all__ = ["SandboxReport", "examine_sandbox", "python_sandbox"]


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """The state of the Python sandbox here."""

    tier: str | None
    """`full` or `confined`: the strongest that stood when it was tried; None: neither."""
    why: str
    """Why it is not `full`, tier by tier."""
    walls: dict[str, str] = field(default_factory=dict)
    """Each wall, and "ok" or why it can't be raised."""


def python_sandbox() -> SandboxReport:
    """Try each wall by itself, then each tier whole, the stronger first, around a real session."""
    reasons: list[str] = []
    for tier in ("full", "confined"):
        reason = asyncio.run(_try(tier))
        if reason is None:
            return SandboxReport(tier, "\n".join(reasons), probe())
        reasons.append(reason)
    return SandboxReport(None, "\n".join(reasons), probe())


async def _try(tier: str) -> str | None:
    """Run a cell behind the walls of a tier; why that can't be."""
    try:
        async with PythonTool(isolation=tier) as tool, tool.session() as session:
            result = await session.call({"code": "6 * 7"}, 30)
            return None if result.text == "42" else result.text
    except ToolUnavailable as error:
        return str(error)


def render_sandbox(found: SandboxReport) -> Text:
    """The report for people."""
    text = Text()
    text.append(f"{'Python sandbox':<26}{found.tier or 'none can be had'}\n", "bold")
    for wall, answer in found.walls.items():
        text.append(f"  {wall:<24}")
        text.append(printable(answer) + "\n", "green" if answer == "ok" else "yellow")
    if found.why:
        text.append(f"note: {printable(found.why)}\n", "yellow")
    return text


_VERDICTS = {
    "full": "ready: the model's Python code runs behind all walls",
    "confined": "ready: the model's Python code is confined, but not by all walls (see the note)",
    None: "not ready: no isolation can be had here; --no-isolation runs the model's code as you",
}
_EXTRAS = (
    *("torch", "transformers", "peft", "math-verify", "tantivy", "duckdb", "psycopg", "pyarrow"),
    *("langgraph", "matplotlib", "datasets", "vllm", "verl"),
)
"""What the extras install, of each the part that says that it is there."""


def _environment() -> dict[str, str]:
    """The facts about this machine for a report about a bug; nothing that names its user."""
    installed = {}
    for name in ("interlace", *_EXTRAS):
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    ours = installed.pop("interlace", "not installed")
    libraries = ", ".join(f"{name} {number}" for name, number in installed.items())
    files = [file for file in (own_file(), folder_file()) if file.is_file()]
    clone = Path(__file__).resolve().parents[3] / "pyproject.toml"
    return {
        "interlace": f"{ours}, {'a clone' if clone.is_file() else 'a copy'}",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, "
        f"{os.cpu_count()} CPUs",
        "libraries": libraries or "none of the extras",
        "settings": ", ".join(file.name for file in files) or "no files",
        "smollm2": "here" if local_model("smollm2") else "not fetched",
    }


def examine_sandbox(*, json: bool) -> int:
    """Print a verdict, which walls stand on this machine, and a block to copy into a report about a
    bug; `Exit.UNAVAILABLE` if neither tier can be had.
    """
    sandbox, environment = python_sandbox(), _environment()
    verdict = _VERDICTS[sandbox.tier]
    if json:
        about = {"verdict": verdict, "environment": environment}
        print_json(about | {"python": asdict(sandbox)})
        return Exit.DONE if sandbox.tier else Exit.UNAVAILABLE
    text = Text(verdict + "\n\n", "bold green" if sandbox.tier else "bold red")
    text.append_text(render_sandbox(sandbox))
    text.append("\nTo copy into a report about a bug:\n\n", "dim")
    failed = ", ".join(wall for wall, answer in sandbox.walls.items() if answer != "ok")
    isolation = (sandbox.tier or "none") + (f", without {failed}" if failed else "")
    block = environment | {"isolation": isolation}
    text.append("".join(f"    {name:<11}{printable(value)}\n" for name, value in block.items()))
    make_console(sys.stdout).print(text, soft_wrap=True, end="")
    return Exit.DONE if sandbox.tier else Exit.UNAVAILABLE

"""The sandbox here: the walls around a model's Python code, each really tried."""

import asyncio
import sys
from dataclasses import asdict, dataclass, field

from rich.text import Text

from ....tools import PythonTool
from ....tools.errors import ToolUnavailable
from ....tools.python.sandbox.probe import probe
from ..exits import Exit, print_json
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


def examine_sandbox(*, json: bool) -> int:
    """Print which walls stand on this machine; `Exit.UNAVAILABLE` if neither tier can be had."""
    sandbox = python_sandbox()
    if json:
        print_json({"python": asdict(sandbox)})
    else:
        make_console(sys.stdout).print(render_sandbox(sandbox), soft_wrap=True, end="")
    return Exit.DONE if sandbox.tier else Exit.UNAVAILABLE

"""The sandbox here: the walls around a model's Python code, each really tried."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Sandbox", "python_sandbox", "render_sandbox"]


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The state of the Python sandbox here."""

    tier: str | None
    """`full` or `confined`: the strongest that stood when it was tried; None: neither."""
    why: str
    """Why it is not `full`, tier by tier."""
    walls: dict[str, str] = field(default_factory=dict)
    """Each wall, and "ok" or why it can't be raised."""


def python_sandbox() -> Sandbox:
    """Try each wall by itself, then each tier whole, the stronger first, around a real session."""
    from ....tools.python.sandbox.probe import probe

    reasons: list[str] = []
    for tier in ("full", "confined"):
        reason = asyncio.run(_try(tier))
        if reason is None:
            return Sandbox(tier, "\n".join(reasons), probe())
        reasons.append(reason)
    return Sandbox(None, "\n".join(reasons), probe())


async def _try(tier: str) -> str | None:
    """Run a cell behind the walls of a tier; why that can't be."""
    from ....tools import PythonTool
    from ....tools.errors import ToolUnavailable

    try:
        async with PythonTool(isolation=tier) as tool, tool.session() as session:
            result = await session.call({"code": "6 * 7"}, 30)
            return None if result.text == "42" else result.text
    except ToolUnavailable as error:
        return str(error)


def render_sandbox(found: Sandbox) -> "Text":
    """The report for people."""
    from rich.text import Text

    from ..render.terminal import printable

    text = Text()
    text.append(f"{'Python sandbox':<26}{found.tier or 'none can be had'}\n", "bold")
    for wall, answer in found.walls.items():
        text.append(f"  {wall:<24}")
        text.append(printable(answer) + "\n", "green" if answer == "ok" else "yellow")
    if found.why:
        text.append(f"note: {printable(found.why)}\n", "yellow")
    return text

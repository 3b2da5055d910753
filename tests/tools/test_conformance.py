"""The same cells give the same observation on both backends, text for text.

The cells are in conformance.txt. They run one after the other in one session of each backend, so
that state, errors and recoveries follow each other as in a real trajectory.
"""

import asyncio
import re
from pathlib import Path

import pytest

from interlace.tools import PythonTool, ToolResult

CELLS = [
    cell.partition("\n")[2].rstrip("\n")
    for cell in re.split(
        r"^# %%", (Path(__file__).parent / "conformance.txt").read_text(), flags=re.M
    )
    if cell
]
STUCK = re.compile(r"while True: pass|sleep\(30\)|\"30\"|range\(10\*\*13\)")
"""Cells that pass their time limit on purpose, and get a short one."""


async def run(a_tool: PythonTool) -> list[ToolResult]:
    async with a_tool, a_tool.session() as session:
        results = []
        for code in CELLS:
            results.append(await session.call({"code": code}, 1 if STUCK.search(code) else 120))
        return results


@pytest.fixture(scope="module")
def results() -> dict[str, list[ToolResult]]:
    async def main() -> list[list[ToolResult]]:
        return list(await asyncio.gather(run(PythonTool("sandbox")), run(PythonTool("jupyter"))))

    return dict(zip(("sandbox", "jupyter"), asyncio.run(main()), strict=True))


def plain(text: str) -> str:
    """The text without what differs from run to run: addresses, folders, durations, depth."""
    text = re.sub(r"0x[0-9a-f]+", "0x...", text)
    text = re.sub(r"/[^\s'\"]*/work\b", "/work", text)
    text = re.sub(r"\d+ more times", "... more times", text)
    return re.sub(r"\b\d[\d.e+-]* [mμµn]?s\b", "... s", text)


@pytest.mark.parametrize("number", range(len(CELLS)), ids=lambda n: CELLS[n][:40] or "empty")
def test_both_backends_say_the_same(number: int, results: dict[str, list[ToolResult]]) -> None:
    ours, theirs = results["sandbox"][number], results["jupyter"][number]
    assert plain(ours.text) == plain(theirs.text), CELLS[number]
    assert (ours.error, ours.state_lost) == (theirs.error, theirs.state_lost)
    assert [(a.mime, a.name) for a in ours.artifacts] == [
        (a.mime, a.name) for a in theirs.artifacts
    ]
    assert len(ours.text) < 110_000

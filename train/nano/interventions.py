"""Is it the tool that does it? The tool's results are changed, and the answers watched.

    python -m interlace.train.nano.interventions [--model FOLDER] [--problems N] [--write]

Five conditions, on problems that need the tool and on problems that need none, in both formats. If
the policy worked the answers out by itself, changing the results would change nothing.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...rollout.engines.base import Engine
from ...rollout.task import Task
from ...tools import ErrorKind, Tool, ToolResult
from ...tools.python import PythonTool
from ..coldstart import alter
from ..generators import Arithmetic
from .data import FORMAT_NAMES
from .evaluate import Change, Changed, Score, Shared, roll_out

__all__ = ["CONDITIONS", "Row", "interventions", "main", "table"]

ERROR = "RuntimeError: the interpreter has stopped"
"""An error that no demonstration shows."""


def _wrong(code: str, result: ToolResult) -> ToolResult:
    rng = random.Random(f"wrong {code}")
    text = {"odd": "even", "even": "odd"}.get(result.text) or alter(result.text, rng)
    return ToolResult(text, result.error)


def _of_another_problem(code: str, result: ToolResult) -> ToolResult:
    task = Arithmetic(random.Random(f"other {code}").randrange(10**9), "test", needs_tool=True)[0]
    return ToolResult(str(task.answer), result.error)


def _error(code: str, result: ToolResult) -> ToolResult:
    return ToolResult(ERROR, ErrorKind.EXCEPTION)


CONDITIONS: dict[str, Change | None] = {
    "true results": lambda code, result: result,
    "wrong results": _wrong,
    "results of another problem": _of_another_problem,
    "an error": _error,
    "no tool offered": None,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    format: str
    needs_tool: bool
    condition: str
    score: Score


async def interventions(
    engine: Engine, tool: Tool, *, problems: int = 200, seed: int = 7
) -> list[Row]:
    """Every condition on the same test problems, `problems` of each kind."""
    rows = []
    for format in FORMAT_NAMES:
        for needs_tool in (True, False):
            source = Arithmetic(seed, "test", needs_tool=needs_tool)
            tasks: Sequence[Task] = list(islice(source, problems))
            for condition, change in CONDITIONS.items():
                tools = [] if change is None else [Changed(tool, change)]
                episodes = await roll_out(engine, format, tools, tasks)
                rows.append(Row(format, needs_tool, condition, Score.of(episodes)))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| format | problems | condition | accuracy | answer follows the shown result "
        "| calls per problem |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        score = row.score
        # An error shows no result that an answer could follow.
        shown = "-" if row.condition == "an error" or not score.shown else ""
        follows = shown or f"{score.follows / score.shown:.1%} of {score.shown}"
        kind = "need a tool" if row.needs_tool else "need none"
        lines.append(
            f"| {row.format} | {kind} | {row.condition} | {score.accuracy:.1%} | {follows} "
            f"| {score.calls / score.problems:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the table goes to stdout, or with --write into the model card."""
    from ...rollout.engines import nano
    from ...rollout.models import load_engine
    from .card import write_section

    parser = argparse.ArgumentParser(prog="python -m interlace.train.nano.interventions")
    parser.add_argument("--model", type=Path, default=nano.path(), help="the checkpoint's folder")
    parser.add_argument("--problems", type=int, default=200, help="problems of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write it into the model card")
    given = parser.parse_args(arguments)

    async def run() -> list[Row]:
        engine = load_engine(str(given.model), device="cpu")
        async with Shared(PythonTool()) as tool:
            rows = await interventions(engine, tool, problems=given.problems, seed=given.seed)
        await engine.aclose()
        return rows

    text = table(asyncio.run(run()))
    if given.write:
        write_section(given.model / "README.md", "interventions", text)
    else:
        sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

"""Is it the tool that does it? The tool's results are changed, and the answers watched.

    python -m studies.nano.interventions [--model FOLDER] [--problems N] [--write]

Five conditions, on problems that need the tool and on problems that need none, in every family and
format. If the policy knew the answers by itself, changing the results would change nothing.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pydantic import JsonValue

from interlace.rollout.engines.base import Engine
from interlace.rollout.task import Task, equal_answers
from interlace.rollout.trajectory import Episode
from interlace.tools import ErrorKind, Tool, ToolResult
from interlace.train.data.task_tools import TaskTools

from .families import FAMILIES, Family, is_right
from .score import Changed, Score, roll_out
from .solve_arithmetic import alter

__all__ = ["CONDITIONS", "Row", "interventions", "main", "table", "wrong"]

ERROR = "RuntimeError: the tool has stopped"
"""An error that no demonstration shows."""
CONDITIONS = (
    "true results",
    "wrong results",
    "results of another problem",
    "an error",
    "no tool offered",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `follows`: whether it can be said what the shown results imply."""

    family: str
    format: str
    needs_tool: bool
    condition: str
    score: Score
    follows: bool


async def interventions(
    engine: Engine,
    world: TaskTools,
    *,
    problems: int = 200,
    seed: int = 7,
    conditions: Sequence[str] = CONDITIONS,
) -> list[Row]:
    """Every condition on the same test problems, `problems` of each kind."""
    rows = []
    for family in FAMILIES.values():
        for format in family.formats:
            for needs_tool in (True, False):
                tasks = _tasks(family, format, needs_tool, seed, problems)
                for condition in conditions if tasks else ():
                    tools = _Tools(family, world, seed, condition)
                    episodes = await roll_out(engine, format, tasks, tools)
                    right = [await is_right(world, e.task, format, e.answer) for e in episodes]
                    follows = [await tools.follows(e, format) for e in episodes]
                    told = [each is not None for each in follows]
                    score = Score.of(episodes, right, [bool(each) for each in follows])
                    rows.append(Row(family.name, format, needs_tool, condition, score, all(told)))
    return rows


def _tasks(family: Family, format: str, needs_tool: bool, seed: int, number: int) -> list[Task]:
    """The first tasks of a kind; none where the family has none of that kind."""
    source = islice(family.source(seed, "test"), 20 * number)
    found = (task for task in source if family.needs_tool(task, format) is needs_tool)
    tasks = list(islice(found, number))
    return tasks if len(tasks) == number else []


class _Tools:
    """The tools offered under one condition, and a check of answers against their results."""

    def __init__(self, family: Family, world: TaskTools, seed: int, condition: str) -> None:
        self.family = family
        self.world = world
        self.condition = condition
        self._others = family.source(seed + 1, "test")

    def __call__(self, task: Task) -> Sequence[Tool]:
        """The tools for one task, as the runner asks for them."""
        tool = self.world.tool(task)
        if self.condition == "no tool offered":
            return []
        if self.condition == "an error":
            return [Changed(tool, lambda _, result: ToolResult(ERROR, ErrorKind.EXCEPTION))]
        if self.condition == "results of another problem":
            return [self._of_another(task, tool)]
        if self.condition == "wrong results":
            if self.family.twin is None:
                return [Changed(tool, wrong)]
            return [Changed(self.world.tool(self.family.twin(task)), told=tool)]
        return [tool]

    async def follows(self, episode: Episode, format: str) -> bool | None:
        """True if the answer is what the shown results imply; None if that can't be said."""
        if self.condition in ("an error", "no tool offered"):
            return None
        task, calls = episode.task, episode.trajectory.calls
        if self.family.twin is not None and self.condition != "results of another problem":
            implied = self.family.twin(task) if self.condition == "wrong results" else task
            return await is_right(self.world, implied, format, episode.answer)
        if self.family.name == "lookup" or format == "reex_sql":
            return None
        if not calls or episode.answer is None:
            return False
        lines = calls[-1].output.splitlines()
        shown = lines[1] if self.family.name == "database" and len(lines) > 1 else lines[0]
        return equal_answers(episode.answer, shown)

    def _of_another(self, task: Task, tool: Tool) -> Tool:
        rng = random.Random(f"other {task.id}")
        while True:
            other = self._others[rng.randrange(10**6)]
            if other.data["needs_tool"]:
                break
        if self.family.twin is None:
            answer = str(other.answer)
            return Changed(tool, lambda _, result: ToolResult(answer, result.error))
        return Changed(self.world.tool(other), queries=other.data["steps"], told=tool)


def wrong(arguments: Mapping[str, JsonValue], result: ToolResult) -> ToolResult:
    """A result in which every number is another one, the same for the same call."""
    rng = random.Random(f"wrong {arguments.get('code')}")
    text = {"odd": "even", "even": "odd"}.get(result.text) or alter(result.text, rng)
    return ToolResult(text, result.error)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| family | format | problems | condition | accuracy | answer follows the shown result "
        "| calls per problem |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        score = row.score
        says = row.follows and score.shown
        follows = f"{score.follows / score.shown:.1%} of {score.shown}" if says else "-"
        kind = "need a tool" if row.needs_tool else "need none"
        lines.append(
            f"| {row.family} | {row.format} | {kind} | {row.condition} | {score.accuracy:.1%} "
            f"| {follows} | {score.calls / score.problems:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the table goes to stdout, or with --write into the model card."""
    from .measure import measure_and_show

    measure_and_show("interventions", interventions, table, arguments, problems=200, seed=7)


if __name__ == "__main__":
    main()

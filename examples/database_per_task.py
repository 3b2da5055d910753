"""Tasks that come with their own database: the runner is told how to make a task's tools.

The prompt shows each task's own tables; the bundled model looks up how they spell what the question
asks for, and answers with a query.
"""

import asyncio
from itertools import islice

from interlace import Task
from interlace.rollout.engines import Sampling
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.models.load import load_engine
from interlace.rollout.policy import Policy
from interlace.tools.sql import SqlTool
from interlace.train.data.generators.database import Databases, open_database


def tools_for(task: Task) -> list[SqlTool]:
    """The tools for one task."""
    return [SqlTool(open_database(task))]


async def main() -> None:
    """Roll out a few generated tasks, each over a database of its own."""
    engine = load_engine("nano")
    policy = Policy(engine, FORMATS["reex_sql"], sampling=Sampling(temperature=0))
    tasks = list(islice(Databases(seed=1, split="test"), 3))
    async for episode in Runner(policy, tools_for=tools_for).run(tasks):
        print(f"{episode.task.question}\n  {episode.answer}")
    await engine.aclose()


asyncio.run(main())

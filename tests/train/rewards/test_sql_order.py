"""ReEx-SQL's reward on generated episodes: a wrong query never beats a right one, dumps earn
nothing for exploration, and a look-up that the task needs earns something.
"""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace

import pytest
from support.attempts import TOKENIZER

from interlace.rollout.engines.base import Request
from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools import Tool
from interlace.train.data.generators.database import Databases, script
from interlace.train.data.task_tools import TaskTools
from interlace.train.rewards import REWARDS, Checker

THINK = "<think>Let me see.</think>\n"


@dataclass
class World:
    """A generated task, its tool and the results of queries by plain sqlite3."""

    task: Task
    tool: Tool
    table: str
    columns: list[str]
    results: dict[str, object]

    def result(self, query: str) -> object:
        if query not in self.results:
            with closing(sqlite3.connect(":memory:")) as db:
                db.executescript(script(self.task.data["database"]))
                try:
                    self.results[query] = db.execute(query).fetchall()
                except sqlite3.Error:
                    self.results[query] = None
        return self.results[query]


def make_world(task: Task, tools: TaskTools) -> World:
    tool = tools.tool(task)
    table = task.data["gold"].split(" from ")[1].split()[0]
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(script(task.data["database"]))
        columns = [row[1] for row in db.execute(f"pragma table_info({table})")]
    return World(task, tool, table, columns, {})


def finals(world: World, rng: random.Random) -> str | None:
    gold: str = world.task.data["gold"]
    select, _, where = gold.partition(" from ")
    other = rng.choice([name for name in ("count(*)", "sum(id)", "max(id)") if name not in select])
    return rng.choice(
        [
            gold,
            gold,
            gold.upper() if "'" not in gold else f"{gold};",
            f"select * from ({gold})",
            f"{gold} limit 1",
            f"select {other} from {where}",
            gold.replace("where ", "where not "),
            gold.replace(" = '", " = 'X"),
            gold.replace("'", '"'),  # SQLite reads such a name as text, whose case counts
            gold.replace("'", '"').swapcase(),
            gold.split(" where ")[0],
            f"select {world.task.answer}",
            "select 0",
            f"select * from {world.table}",
            "select nothing at all",
            None,
        ]
    )


def dumps(world: World) -> list[str]:
    return [
        f"select * from {world.table}",
        f"select * from {world.table} limit 3",
        f"select * from {world.table} where id > 0 order by id desc",
        f"select {', '.join(world.columns)} from {world.table}",
        f"select distinct * from {world.table}",
    ]


def look_ups(world: World, final: str | None) -> list[str]:
    return [
        *dumps(world),
        *world.task.data["steps"][:-1],
        *[f"select distinct {column} from {world.table} limit 2" for column in world.columns],
        f"select count(*) from {world.table}",
        *[f"select '{fact[1]}' from {world.table}" for fact in world.task.data["facts"]],
        "select nothing from nowhere",
        final or "select 1",
        world.task.data["gold"],
    ]


def generate(world: World, rng: random.Random) -> tuple[list[str], str | None]:
    """The replies of an episode, and its final query."""
    final = finals(world, rng)
    kind = rng.random()
    pool = dumps(world) if kind < 0.25 else look_ups(world, final)
    if kind > 0.75:
        pool = world.task.data["steps"][:-1] or pool
    looks = [rng.choice(pool) for _ in range(rng.randrange(4) if 0.25 <= kind <= 0.75 else 1)]
    think = THINK if rng.random() < 0.8 else ""
    replies = [f"{think}<intermediate_sql>{look}</intermediate_sql>" for look in looks]
    last = "I can't tell." if final is None else f"<final_sql>{final}</final_sql>"
    replies.append((think if rng.random() < 0.9 else "<result>\n1\n</result>") + last)
    return replies, final


def needs(world: World, look: str) -> bool:
    """True if the look-up finds what the prompt does not tell."""
    steps = dict(zip(world.task.data["steps"][:-1], world.task.data["facts"], strict=True))
    if look not in steps:
        return False
    if "_code" in look:
        return True  # which code means what is never told
    return "distinct" in look and steps[look][1] not in world.tool.description


def check_order(episodes: int, seed: int) -> Counter[str]:
    rng = random.Random(f"order {seed}")
    source = Databases(seed=seed, levels=(2, 3, 4, 5, 6))
    made: dict[str, tuple[World, list[str], str | None]] = {}

    def says(request: Request) -> str:
        _, replies, _ = made[str(request.context).split("/")[0]]
        text = TOKENIZER.decode(request.ids.tolist())
        return replies[text.split("<|im_start|>assistant")[-1].count("</intermediate_sql>")]

    async def roll() -> list[Episode]:
        engine = ScriptedEngine(TOKENIZER, says, chunk=64)
        policy = Policy(engine, FORMATS["reex_sql"], [], limits=Limits(max_tokens=20_000))
        async with TaskTools() as tools:
            worlds = [
                await asyncio.to_thread(make_world, source[i], tools)
                for i in range(max(episodes // 50, 10))
            ]
            tasks = []
            for i in range(episodes):
                world = worlds[i % len(worlds)]
                task = replace(world.task, id=f"e{i}", data=world.task.data | {"checker": "sql"})
                made[task.id] = (world, *generate(world, rng))
                tasks.append(task)
            runner = Runner(policy, tools_for=lambda task: [made[task.id][0].tool], concurrency=8)
            return [episode async for episode in runner.run(tasks)]

    seen: Counter[str] = Counter()
    right: list[tuple[float, str]] = []
    wrong: list[tuple[float, str]] = []
    done = asyncio.run(roll())
    with Checker() as checker:
        scores = REWARDS["reex_sql"](checker, TOKENIZER).score_all(done)
    assert len(done) == episodes
    for episode, score in zip(done, scores, strict=True):
        assert score.problem is None and score.total is not None, score.problem
        world, _, final = made[episode.task.id]
        gold = world.result(world.task.data["gold"])
        is_right = final is not None and world.result(final) == gold
        assert score.rewards["execution"] == is_right, final
        (right if is_right else wrong).append((score.total, episode.task.id))
        looks = [(call.arguments or {})["query"] for call in episode.trajectory.calls]
        if looks and set(looks) <= set(dumps(world)):
            seen["dumps"] += 1
            assert score.rewards["exploration"] == 0.0, looks
        if any(needs(world, look) for look in looks if look != final):
            seen["informative"] += 1
            assert score.rewards["exploration"] > 0.0, looks
    seen["right"], seen["wrong"] = len(right), len(wrong)
    assert max(wrong)[0] < min(right)[0], (max(wrong), min(right))
    seen["best wrong, in thousandths"] = round(1000 * max(wrong)[0])
    seen["worst right, in thousandths"] = round(1000 * min(right)[0])
    return seen


def test_no_wrong_query_beats_a_right_one_and_only_news_is_exploration() -> None:
    seen = check_order(100, seed=1)
    assert min(seen[kind] for kind in ("right", "wrong", "dumps", "informative")) > 10, seen


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_the_same_on_ten_thousand_episodes(seed: int) -> None:
    seen = check_order(2_000, seed)
    assert min(seen[kind] for kind in ("right", "wrong", "dumps", "informative")) > 200, seen

"""Lessons for a team: episodes whose words a rule says, and whose Python calls are really run.

    python team_lessons.py LOG [COUNT]

The bundled model can solve word problems and play no other role of a team. A copy of it that is
fine-tuned on this log (`interlace sft LOG`) plays all of them, in so far as it learns the form: a
rule gives every problem the same team, and nobody is wrong in these lessons. The CEO has the
longest words to learn, so every second lesson is its alone.
"""

import asyncio
import re
import sys
from itertools import islice

from interlace import Agent, Limits, Task, Team
from interlace.rollout.engines import Request, ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog
from interlace.rollout.models.files import find_model
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Trajectory
from interlace.train.data.generators.arithmetic import Arithmetic

RESULT = re.compile(r"<interpreter>\n(.*)\n</interpreter>\n?$")
TOKENIZER = Tokenizer.load(find_model("nano"))


def say(asked: str, task: Task) -> str:
    """What is to be said next in this place: the rule that is learnt."""
    if "You are the CEO" in asked:
        return (
            "### Decision: continue\n### Recruit Number: 2\n### Direction: none\n"
            "### Maximum Tokens: 128"
        )
    if "You choose the experts" in asked:
        return "1. Bookkeeper\n2. Auditor"
    if "reviewer of solutions" in asked:
        return "Correctness: 1\nAdvice: none\nRecruiting Suggestion: none"
    critic = "Do you agree" in asked
    shown = RESULT.search(asked.rpartition("assistant\n")[2])
    if shown is None:
        begin = "I do the sum again." if critic else "I calculate."
        return f"{begin}\n<code>\n```python\nprint({task.data['steps'][0]})\n```\n</code>"
    if critic:
        return f"I get {shown[1]} as well. [Agree]"
    return f"The result is {shown[1]}.\n<answer>\\boxed{{{shown[1]}}}</answer>"


async def write_lessons(log: str, count: int) -> None:
    """Have a team of the rule solve so many problems, one after the other."""
    kind = (task for task in Arithmetic(1, "train") if task.data["template"] == "containers")
    tasks = {task.question: task for task in islice(kind, count)}

    def script(request: Request) -> str:
        asked = TOKENIZER.decode(request.ids)
        return say(asked, next(task for question, task in tasks.items() if question in asked))

    engine = ScriptedEngine(TOKENIZER, script)
    engine.name = "nano"  # whose tokenizer it is: a log is read with that of its model
    agent = Agent(engine, format="retool", limits=Limits(max_tokens=512))
    with EpisodeLog(log) as file:
        async with Team.ceo(agent, max_experts=2, rounds=1) as team:
            for place, task in enumerate(tasks.values()):
                (episode,) = [each async for each in team.rollout([task], n=1, seed=0)]
                if place % 2:
                    episode.trajectories = [each for each in episode.trajectories if is_ceo(each)]
                file.append(episode)
    print(f"{len(tasks)} lessons in {log}")


def is_ceo(trajectory: Trajectory) -> bool:
    """Whether the CEO speaks in it."""
    return trajectory.speaker.role == "ceo"


if __name__ == "__main__":
    asyncio.run(write_lessons(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 72))

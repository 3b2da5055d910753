"""Lessons for a team: episodes whose words a rule says, and whose Python calls are really run.

    python team_lessons.py LOG [COUNT]

The bundled model can solve word problems and play no other role of a team. A copy of it that is
fine-tuned on this log (`interlace sft LOG`) plays all of them. Its CEO is shown to give a problem
of two steps a larger team than a problem of one, and its critics to do the sum again. It has the
longest words to learn, so every second lesson is its alone. Nobody is wrong in these lessons: the
evaluator learns to say yes, and no more.
"""

import asyncio
import re
import sys
from itertools import islice

from interlace import Agent, Limits, Task, Team
from interlace.rollout.engines import Request, ScriptedEngine
from interlace.rollout.model_files import find_model
from interlace.rollout.roles import TEAM
from interlace.rollout.store import EpisodeLog
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Trajectory
from interlace.train.generators.arithmetic import Arithmetic

KINDS = ("containers", "loose")
"""The problems of the lessons: one kind of one step, and one of two."""
EXPERTS = ("Bookkeeper", "Auditor", "Engineer")
"""The first one solves, the others are its critics."""
RESULT = re.compile(r"<interpreter>\n(.*)\n</interpreter>\n?$")
TOKENIZER = Tokenizer.load(find_model("nano"))


def say(asked: str, task: Task) -> str:
    """What is to be said next in this place: the rule that is learnt."""
    steps: list[str] = task.data["steps"]
    if "You are the CEO" in asked:
        experts, tokens = (2, 128) if len(steps) == 1 else (3, 256)
        return (
            f"### Decision: continue\n### Recruit Number: {experts}\n### Direction: none\n"
            f"### Maximum Tokens: {tokens}"
        )
    if "You choose the experts" in asked:
        count = 2 if "exactly 2" in asked else 3
        return "\n".join(f"{place}. {name}" for place, name in enumerate(EXPERTS[:count], 1))
    if "reviewer of solutions" in asked:
        return "Correctness: 1\nAdvice: none\nRecruiting Suggestion: none"
    return work_out(asked.rpartition("assistant\n")[2], steps, critic="Do you agree" in asked)


def work_out(written: str, steps: list[str], *, critic: bool) -> str:
    """The next call of a solver or a critic behind what it has written, or its last words."""
    done, shown = written.count("</interpreter>"), RESULT.search(written)
    result = shown[1] if shown else ""
    if done < len(steps):
        code = f"print({steps[done].replace('{r}', result)})"
        begin = "I do the sum again." if critic else "I calculate."
        return f"{begin}\n<code>\n```python\n{code}\n```\n</code>"
    if critic:
        return f"I get {result} as well. [Agree]"
    return f"The result is {result}.\n<answer>\\boxed{{{result}}}</answer>"


async def write_lessons(log: str, count: int) -> None:
    """Have a team of the rule solve so many problems, one after the other."""
    kinds = (task for task in Arithmetic(1, "train") if task.data.get("template") in KINDS)
    tasks = {task.question: task for task in islice(kinds, count)}

    def script(request: Request) -> str:
        asked = TOKENIZER.decode(request.ids)
        return say(asked, next(task for question, task in tasks.items() if question in asked))

    engine = ScriptedEngine(TOKENIZER, script)
    engine.name = "nano"  # whose tokenizer it is: a log is read with that of its model
    agent = Agent(engine, format="retool", limits=Limits(response_tokens=512))
    with EpisodeLog(log) as file:
        async with Team.ceo(agent, max_experts=3, rounds=1) as team:
            for place, task in enumerate(tasks.values()):
                (episode,) = [each async for each in team.rollout([task], n=1, seed=0)]
                if place % 2:
                    episode.trajectories = [each for each in episode.trajectories if is_ceo(each)]
                file.append(episode)
    print(f"{len(tasks)} lessons in {log}")


def is_ceo(trajectory: Trajectory) -> bool:
    """Whether the CEO speaks in it."""
    return bool(trajectory.details[TEAM]["role"] == "ceo")


if __name__ == "__main__":
    asyncio.run(write_lessons(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 72))

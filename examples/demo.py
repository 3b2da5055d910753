"""The whole idea on one screen, all of it real.

    make demo, or python examples/demo.py [--out FOLDER] [--small]

Six scenes. Each says what is to be seen, shows the command that one would type, and runs it in the
folder of the demo, where everything stays. It needs `.[train,search,team,plot]`.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK = ".interlace-demo"
"""A folder with this file in it is a demo's, and the next demo may empty it."""
QUESTION = "A crate holds 4387 bolts. How many bolts are in 296 crates?"
THINGS = ("cups", "plates", "lamps", "tiles", "jars", "bulbs")
LESSONS = os.path.relpath(Path(__file__).with_name("team_lessons.py"))


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    tasks: int = 8
    attempts: int = 8
    shown: int = 96
    """Demonstrations of the new kind of problem, and steps of fine-tuning on them."""
    taught: int = 18
    steps: int = 24
    """Of reinforcement learning, each with `tasks_per_step` times `group` attempts."""
    tasks_per_step: int = 4
    group: int = 8
    lessons: int = 72
    """Of the team, and steps of fine-tuning on them."""
    practised: int = 54


SMALL = Size(tasks=2, attempts=2, shown=16, taught=2, steps=2, group=2, lessons=4, practised=2)


class Failed(Exception):
    """A command of the demo ended with an error, which stands on the screen."""


class Screen:
    """Writes the story and runs its commands in a folder, as if they were typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        plain = not sys.stdout.isatty() or "NO_COLOR" in os.environ
        self._bold, self._end = ("", "") if plain else ("\x1b[1m", "\x1b[0m")
        here = str(Path(sys.executable).parent)
        self._environment = os.environ | {
            "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
            "PAGER": "cat",
            # On so small a model threads get into each other's way, on a busy machine most of all.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }

    def head(self, title: str, *story: str) -> None:
        """A scene's heading and what is to be seen."""
        print(f"\n{self._bold}{title}\n{'=' * len(title)}{self._end}")
        for paragraph in story:
            self.say(paragraph)

    def say(self, text: str) -> None:
        """A paragraph."""
        print("\n" + textwrap.fill(text, 78), flush=True)

    def run(self, command: str) -> None:
        """Show a command and run it. Raises Failed, and KeyboardInterrupt once it has ended."""
        print(f"\n{self._bold}$ {command}{self._end}", flush=True)
        running = subprocess.Popen(command, shell=True, cwd=self.folder, env=self._environment)
        stopped = False
        while True:
            try:
                code = running.wait()
                break
            except KeyboardInterrupt:  # the command has heard it, too, and ends in its own way
                stopped = True
        if stopped or code in (130, -signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise Failed(f"the command ended with exit code {code}")


def ask(screen: Screen, size: Size) -> None:
    """A question, and the same episode token by token."""
    screen.head(
        "1. A question, and real Python",
        "nano, the bundled model of 1.8 million weights, can't multiply such numbers. It writes "
        "code (│), a real Python behind walls runs it (→), the output goes into its context, and "
        "it thinks on.",
    )
    screen.run(f'interlace run "{QUESTION}"')
    screen.head(
        "2. Who wrote which token",
        "The same question, logged. Every token has its source. Only what the policy wrote is "
        "trained: it has weight 1 and a log-probability; the prompt and what Python printed have "
        "none.",
    )
    screen.run(f"echo '{QUESTION}' > question.txt")
    screen.run("interlace rollout question.txt --temperature 0 --out one.jsonl")
    screen.run("interlace show one.jsonl")
    screen.say(
        "Token by token, from the end of the code on. The columns: place, id, token, source, "
        "log-probability (as sampled, here greedily; then raw), weight in the loss, version of the "
        "weights that wrote it."
    )
    screen.run("interlace show one.jsonl --ids | tail -n 46")


def many(screen: Screen, size: Size) -> None:
    """Tasks and attempts, as a table."""
    screen.head(
        f"3. {size.tasks} tasks, {size.attempts} attempts at each",
        "Sampled at temperature 1, many at once; each attempt has a Python of its own. Right and "
        "wrong attempts at one task are what reinforcement learning compares.",
    )
    screen.run(
        f"python -m interlace.train.data.generators arithmetic --tasks {size.tasks} > tasks.jsonl"
    )
    screen.run(f"interlace rollout tasks.jsonl --n {size.attempts} --seed 0 --out many.jsonl")
    screen.say("A line a task: means of its attempts (correct: the share that is right).")
    screen.run("interlace show many.jsonl --stats")


def learn(screen: Screen, size: Size) -> None:
    """A half-trained copy learns a new kind of problem by trying."""
    screen.head(
        "4. Learning by trying",
        "A kind of problem that nano was never taught: it multiplies, and forgets what is broken. "
        f"A copy of it sees {size.shown} worked solutions whose calculations are really run, and "
        f"its fine-tuning on them is broken off after {size.taught} steps: half-trained.",
    )
    rows = problems(random.Random(0))
    for name, count in (("shown.jsonl", size.shown), ("tried.jsonl", 400)):
        lines = [json.dumps(next(rows)) + "\n" for _ in range(count)]
        (screen.folder / name).write_text("".join(lines), encoding="utf-8")
    screen.run("head -n 1 tried.jsonl")
    screen.run("interlace coldstart gsm8k:shown.jsonl --from gsm8k --out shown")
    screen.run(
        "interlace sft shown/traces.jsonl --learning-rate 1e-3 --batch-size 8 \\\n"
        f"    --held-out 0 --steps {size.taught} --out half"
    )
    screen.say(
        f"Now it tries other problems of this kind, {size.group} attempts at each; only the "
        "answer is checked. What was right becomes more likely, what was wrong less."
    )
    screen.run(
        "interlace train --model half/checkpoint --tasks gsm8k:tried.jsonl \\\n"
        f"    --steps {size.steps} --set tasks_per_step={size.tasks_per_step} "
        f"--set group_size={size.group} \\\n"
        "    --set learning_rate=2e-4 --set warmup=0 --set max_tokens=128 \\\n"
        "    --set dynamic_sampling=false --set plot=true --out learnt"
    )
    lines = (screen.folder / "learnt/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rewards = [json.loads(line)["reward/total"] for line in lines]
    screen.say("The reward (here the share of attempts that are right), mean of three steps:")
    print("\n" + "\n".join(bars(rewards)), flush=True)
    screen.say(f"The same and more as a picture: {screen.folder / 'learnt/run.png'}")


def problems(draw: random.Random) -> Iterator[dict[str, str]]:
    """Problems of a new kind with their solutions, in the shape of GSM8K."""
    while True:
        boxes, each = draw.randint(120, 980), draw.randint(12, 96)
        broken, things = draw.randint(11, 99), draw.choice(THINGS)
        held, left = boxes * each, boxes * each - broken
        yield {
            "question": f"A shop gets {boxes} boxes of {each} {things}. "
            f"{broken} {things} are broken. How many {things} are left?",
            "answer": f"There are {boxes} * {each} = <<{boxes}*{each}={held}>>{held} {things}. "
            f"Of these {held} - {broken} = <<{held}-{broken}={left}>>{left} are left."
            f"\n#### {left}",
        }


def bars(rewards: list[float], together: int = 3, width: int = 50) -> list[str]:
    """Means of a few steps each, as bars; rewards between 0 and 1."""
    drawn = []
    for start in range(0, len(rewards), together):
        part = rewards[start : start + together]
        mean = sum(part) / len(part)
        label = f"steps {start + 1:>2} to {start + len(part):>2}"
        drawn.append(f"  {label}  {'█' * round(width * mean):{width}}  {mean:4.0%}")
    return drawn


def look_up(screen: Screen, size: Size) -> None:
    """A database and a corpus."""
    screen.head(
        "5. A database, and texts",
        "The same loop with other tools. The database keeps heights in centimetres, the question "
        "says metres: nano looks up the unit before it asks.",
    )
    screen.run("python -m interlace.train.data.generators database trees.db > questions.jsonl")
    screen.run('interlace run --tool sql:trees.db "Count the trees that are taller than 2 m."')
    screen.say("Made-up people and places, which no model can know; one find says what to seek.")
    screen.run("python -m interlace.train.data.generators lookup texts.jsonl > lookups.jsonl")
    screen.run(
        "interlace run --tool search:texts.jsonl \\\n"
        '    "In which year was the town where the museum Hodita stands founded?"'
    )


def work_together(screen: Screen, size: Size) -> None:
    """A CEO's team."""
    lessons = os.path.relpath(LESSONS, screen.folder)
    screen.head(
        "6. A CEO and its experts",
        "A CEO sizes a team, a recruiter names its experts, one solves, critics check, an "
        "evaluator judges. nano can solve and play no other role. So a copy of it learns them "
        f"first, from {size.lessons} lessons whose words a rule says ({lessons}).",
        "Who plays what: every role is that one copy, and each of its words is sampled; the "
        "Python calls are real. In so short a time it learns the form of each role and not to "
        "decide: its CEO sizes every team alike, and its evaluator was only shown right solutions.",
    )
    screen.run(f"python {lessons} lessons.jsonl {size.lessons}")
    screen.run(
        "interlace sft lessons.jsonl --learning-rate 1e-3 --batch-size 6 \\\n"
        f"    --held-out 0 --steps {size.practised} --out members"
    )
    screen.run(
        "interlace run --model members/checkpoint --team --experts 2 --rounds 1 \\\n"
        f'    --max-tokens 512 "{QUESTION}"'
    )


SCENES = (ask, many, learn, look_up, work_together)


def make_room(folder: Path) -> bool:
    """Make the demo's folder, without what an earlier demo left there; False where it is in use
    for something else.
    """
    if folder.exists() and not (folder / MARK).exists():
        if not folder.is_dir() or any(folder.iterdir()):
            return False
    elif folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    return True


def main() -> int:
    """Play the scenes; the exit code."""
    parser = argparse.ArgumentParser(description="The whole idea in under five minutes.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="the demo's folder")
    parser.add_argument("--small", action="store_true", help="everything smaller: to see it runs")
    given = parser.parse_args()
    if not make_room(given.out):
        parser.error(f"{given.out} holds something else: name another folder with --out")
    screen = Screen(given.out)
    started = time.perf_counter()
    print(
        f"The commands are run in {given.out}. To type them there yourself:\n"
        f"  cd {given.out}; PATH={Path(sys.executable).parent.absolute()}:$PATH"
    )
    try:
        for scene in SCENES:
            scene(screen, SMALL if given.small else Size())
    except KeyboardInterrupt:
        print(f"\nStopped. What was made until here is in {given.out}.", file=sys.stderr)
        return 130
    except Failed as error:
        print(f"\ndemo: {error}; what it says stands above.", file=sys.stderr)
        return 1
    minutes, seconds = divmod(round(time.perf_counter() - started), 60)
    screen.say(
        f"That was all, in {minutes} min {seconds:02} s. Everything is in {given.out}; "
        "docs/tutorial.md continues from here, docs/ledger.md has the idea behind it."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The checkout beside an earlier revision of itself, in interleaved pairs.

    python benchmarks/against.py REVISION [--pairs 9] [--only loop]

Each pair runs one program on both, in fresh processes, in an order that alternates; the earlier
revision's code comes from a git worktree, and both use this environment. Printed are the median of
each and of the pairs' ratios (here / there, below 1 is faster here) with an interval for that
median from order statistics: of nine pairs, the second to the eighth (96 %).

- loop: microseconds of our own a turn: a scripted engine and a tool that answer at once
- engine: milliseconds a question of the nano model in this process, calls of Python included
- start, call, fork: milliseconds of the sandbox: a session to its first result, a call, a fork
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from math import comb
from pathlib import Path

ROOT = Path(__file__).parents[1]

LOOP = """
import time
from interlace.rollout.engines import ScriptedEngine, nano
from interlace.rollout.tokenizer import Tokenizer
from interlace import Agent, Limits

def answer(code: str) -> str:
    "Answer at once."
    return "1298552"

def script(_):
    script.turns += 1
    call = "Let me compute this part.\\n<code>\\n```python\\nprint(4387 * 296)\\n```\\n</code>"
    return call if script.turns % 101 else "<answer>\\\\boxed{1}</answer>"
script.turns = 0

answer.__name__ = "python"
engine = ScriptedEngine(Tokenizer.load(nano.path()), script, chunk=64, context_length=10**7)
try:
    limits = Limits(max_turns=102, max_calls=102, max_tokens=10**7)
except TypeError:  # an earlier revision
    limits = Limits(turns=102, calls=102, response_tokens=10**7)
agent = Agent(engine, tools=[answer], format="retool", limits=limits)
took = []
for _ in range(4):
    begin = time.perf_counter()
    assert len(agent.run_sync("How much?").trajectory.turns) == 101
    took.append(1e6 * (time.perf_counter() - begin) / 101)
print(json.dumps({"loop": min(took[1:])}))
"""

ENGINE = """
import time
from interlace import Agent
agent = Agent("nano")
ask = "A crate holds {} bolts. How many bolts are in {} crates?".format
agent.run_sync(ask(12, 7))
begin = time.perf_counter()
for number in range(8):
    agent.run_sync(ask(4387 + number, 296 - number))
print(json.dumps({"engine": 1e3 * (time.perf_counter() - begin) / 8}))
"""

SANDBOX = """
import asyncio, statistics, time
from interlace import PythonTool
STATE = "import numpy; state = numpy.random.rand(100_000_000 // 8); len(state)"

async def call(session, code):
    result = await session.call({"code": code}, 120)
    assert result.ok, result.text

async def main():
    start, trip, fork = [], [], []
    async with PythonTool() as tool:
        async with tool.session() as session:
            await call(session, "1")
        for _ in range(20):
            begin = time.perf_counter()
            async with tool.session() as session:
                await call(session, "import numpy, sympy; 1 + 1")
                start.append(1e3 * (time.perf_counter() - begin))
        async with tool.session() as session:
            for _ in range(200):
                begin = time.perf_counter()
                await call(session, "1 + 1")
                trip.append(1e3 * (time.perf_counter() - begin))
            await call(session, STATE)
            for _ in range(10):
                begin = time.perf_counter()
                copy = await session.fork()
                fork.append(1e3 * (time.perf_counter() - begin))
                await copy.close()
    print(json.dumps({"start": statistics.median(start), "call": statistics.median(trip),
                      "fork": statistics.median(fork)}))

asyncio.run(main())
"""

PROGRAMS = {"loop": LOOP, "engine": ENGINE, "sandbox": SANDBOX}


def run(program: str, tree: Path) -> dict[str, float]:
    """The figures that a program prints when `interlace` is that of `tree`."""
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    code = "import json\n" + program
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=tree
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def interval(values: list[float]) -> tuple[float, float, float]:
    """The closest pair of order statistics round the median that covers at least 95 %."""
    ordered, n = sorted(values), len(values)
    for k in range(n // 2, 0, -1):
        coverage = 1 - 2 * sum(comb(n, i) for i in range(k)) / 2**n
        if coverage >= 0.95:
            return ordered[k - 1], ordered[n - k], coverage
    return ordered[0], ordered[-1], 1 - 2 / 2**n


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--only", choices=sorted(PROGRAMS))
    args = parser.parse_args()
    wanted = [args.only] if args.only else sorted(PROGRAMS)
    here: dict[str, list[float]] = {}
    there: dict[str, list[float]] = {}
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        subprocess.run([*git, "add", "-q", "--detach", str(other), args.revision], check=True)
        try:
            for pair in range(args.pairs):
                for name in wanted:
                    sides = [(ROOT, here), (other, there)]
                    for tree, figures in sides if pair % 2 else reversed(sides):
                        for figure, value in run(PROGRAMS[name], tree).items():
                            figures.setdefault(figure, []).append(value)
                print(f"pair {pair + 1} of {args.pairs}", file=sys.stderr, flush=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)
    print(f"{'':<8} {'here':>9} {'there':>9} {'ratio':>7}  interval")
    for figure, values in here.items():
        ratios = [a / b for a, b in zip(values, there[figure], strict=True)]
        low, high, coverage = interval(ratios)
        print(
            f"{figure:<8} {statistics.median(values):9.4g} {statistics.median(there[figure]):9.4g} "
            f"{statistics.median(ratios):7.3f}  {low:.3f} to {high:.3f} ({coverage:.0%})"
        )


if __name__ == "__main__":
    main()

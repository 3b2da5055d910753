"""Interleaving on vLLM: a kept context, a request per turn, and no interruption at all.

    .venv-vllm/bin/python benchmarks/rollout.py            # after `make test-vllm`

The nano policy on vLLM, in this process. All three ways sample the same number of tokens for the
same number of sequences, in turns of a fixed length between which a tool answers, after 0 or 100
ms; the third samples each sequence in one go and calls nothing. `--slots` sequences are sampled
from at a time, twice as many are under way. A round runs the three one after the other, their order
changing; of rounds the medians of paired ratios are given, with 95 % intervals (bootstrap).

What holds on other machines too comes first: context tokens computed again, the share of time in
which the engine had nothing to do though somebody could go on, tokens sampled in vain, and our own
processor time for a turn (the loop's thread; the thread beside vLLM has vLLM's own work in it).
"""

import argparse
import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rollout_figures import interval, print_table, tell_round

from interlace.rollout.engines import Chunk, Engine, Request, VllmEngine, nano
from interlace.rollout.formats import Call, Format, Parsed
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import CallRecord, FinishReason, StopReason
from interlace.tools import Tool
from interlace.tools.function import FunctionTool

WAYS = ("kept", "per turn", "uninterrupted")


@dataclass(frozen=True)
class Load:
    """How much is sampled."""

    sequences: int
    slots: int
    sampled: int
    turns: int


@dataclass(frozen=True)
class Paced(Format):
    """A format in which every turn is a call, until the sequence ends.

    The stop string is looked for in every token, as in earnest, and never comes.
    """

    name: str = "paced"
    stop: tuple[str, ...] = ("</never>",)
    inline: bool = True
    control_tags: tuple[str, ...] = ()

    def check(self, tools: Sequence[Tool]) -> None:
        """Any tool will do."""

    def system(self, tools: Sequence[Tool]) -> str:
        """Nothing."""
        return ""

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """A call, or the end."""
        if finish is FinishReason.EOS:
            return Parsed(answer="done")
        return Parsed(calls=(Call("tool", {}),))

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The output between tags."""
        return f"\n<output>\n{''.join(call.output for call in calls)}\n</output>\n"


class PacedEngine:
    """The engine, with turns of a fixed length: each stops at it, and the last one ends."""

    def __init__(self, engine: VllmEngine, load: Load, *, kept: bool) -> None:
        self._engine = engine
        self._load = load
        self._kept = kept
        self._sampled: Counter[str | None] = Counter()
        self.name = engine.name
        self.tokenizer = engine.tokenizer
        self.context_length = engine.context_length

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one turn; where the model ends it, go on behind the end."""
        name, length = request.context, self._load.sampled // self._load.turns
        paced = request if self._kept else replace(request, context=None)
        left, ids = length, request.ids
        while left:
            said: list[int] = []
            asked = replace(paced, ids=ids, max_tokens=left)
            async for chunk in self._engine.generate(asked):
                said += chunk.ids
                left -= len(chunk.ids)
                if chunk.finish is None or left:
                    yield replace(chunk, finish=None)
                    continue
                self._sampled[name] += length
                last = self._sampled[name] == self._load.sampled
                yield replace(chunk, finish=FinishReason.EOS if last else FinishReason.STOP)
            ids = np.concatenate([ids, np.array(said, np.int32)])

    async def release(self, context: str) -> None:
        """The sequence is over."""
        await self._engine.release(context)

    async def aclose(self) -> None:
        """The engine stays open for the next run."""


def endless(model: Path, folder: Path) -> Path:
    """A copy of a model that (nearly) never ends by itself: the end of text, which it was not
    trained to say, is what ends it. Or it would be asked anew wherever it ends, in one way only.
    """
    made = folder / model.name
    shutil.copytree(model, made, ignore=shutil.ignore_patterns("__pycache__"))
    for name, end, other in (
        ("config.json", "eos_token_id", "pad_token_id"),
        ("generation_config.json", "eos_token_id", "pad_token_id"),
        ("tokenizer_config.json", "eos_token", "pad_token"),
    ):
        config = json.loads((made / name).read_text())
        config[end] = config[other]
        (made / name).write_text(json.dumps(config))
    return made


def answers_after(seconds: float) -> Tool:
    """A tool that takes so long."""

    async def tool() -> str:
        """Answer."""
        await asyncio.sleep(seconds)
        return "an answer of some tokens: 4387"

    return FunctionTool(tool)


async def run(
    engine: VllmEngine, load: Load, way: str, seconds: float, seed: int
) -> dict[str, Any]:
    """All sequences in one of the ways: its counters, and tokens a second."""
    if way == "uninterrupted":
        load = replace(load, turns=1)
    served: Engine = PacedEngine(engine, load, kept=way == "kept")
    limits = Limits(max_turns=100, max_calls=100, max_tokens=1500)  # none of them is reached
    policy = Policy(served, Paced(), [answers_after(seconds)], limits=limits)
    # A question of its own each, so that nobody finds another's beginning in the cache.
    tasks = [Task(str(n), f"{seed} {n} What is {n} * {seed}? " * 2) for n in range(load.sequences)]
    runner = Runner(policy, concurrency=2 * load.slots)
    before = engine.figures
    began, own = time.perf_counter(), time.thread_time()
    turns = tokens = 0
    async for episode in runner.run(tasks, seed=seed):
        assert episode.stop is StopReason.ANSWERED, episode.error
        assert episode.trajectory.sampled_tokens == load.sampled
        turns += len(episode.trajectory.turns)
        tokens += load.sampled
    took, own = time.perf_counter() - began, time.thread_time() - own
    figures, after = runner.metrics.figures(), engine.figures
    return {
        "prefilled_again_percent": 100 * figures["prefilled_again_share"],
        "engine_idle_percent": 100 * figures["engine_idle"],
        "overshoot": figures["overshoot"],
        "false_alarms": after["false_alarms"] - before["false_alarms"],
        "evicted": after["evicted"] - before["evicted"],
        "own_milliseconds_per_turn": 1000 * own / turns,
        "tokens_per_second": tokens / took,
    }


def summary(rows: dict[str, list[dict[str, float]]], way: str) -> dict[str, list[float]]:
    """Every counter of a way, and its throughput over that of the others, round by round."""
    found = {name: interval([row[name] for row in rows[way]]) for name in rows[way][0]}
    speed = {other: [row["tokens_per_second"] for row in rows[other]] for other in WAYS}
    for other in WAYS:
        if other != way:
            pairs = zip(speed[way], speed[other], strict=True)
            found[f"of {other}"] = interval([a / b for a, b in pairs])
    return found


def main() -> None:
    """Alternate the ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=192)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--sampled", type=int, default=128)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tool-ms", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--model", type=Path, default=nano.path())
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    given = parser.parse_args()
    load = Load(given.sequences, given.slots, given.sampled, given.turns)
    with tempfile.TemporaryDirectory() as folder:
        engine = VllmEngine.load(endless(given.model, Path(folder)), max_batch=load.slots)
    results: dict[str, Any] = {}
    for wait in given.tool_ms:
        rows: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(given.rounds + 1):
            tell_round(wait, number, given.rounds)
            ways = [*WAYS[number % 3 :], *WAYS[: number % 3]]
            for way in ways:
                row = asyncio.run(run(engine, load, way, wait / 1000, 1 + number))
                if number:  # the first round is to warm up
                    rows[way].append(row)
        results[f"tool {wait} ms"] = {way: summary(rows, way) for way in WAYS}
    asyncio.run(engine.aclose())
    if given.json:
        print(json.dumps(results))
        return
    print(f"{load}, {given.rounds} rounds: median [95 % interval]")
    print_table(results)


if __name__ == "__main__":
    main()

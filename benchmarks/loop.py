"""Our own cost of a turn, and whether it grows with the number of turns.

A scripted engine that answers at once and a tool that returns at once leave only the loop's own
work: the request, the parse, the record, the ledger. Prints microseconds per turn (median over
runs) for turns 1-20, 21-40, ... 181-200, and the ratio of the last block to the first.

    python benchmarks/loop.py
"""

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel

from interlace.rollout.engines import nano
from interlace.rollout.engines.scripted import ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.tokenizer import Tokenizer
from interlace.tools import ToolResult, ToolSession

TURN = "Let me compute this part.\n<code>\n```python\nprint(4387 * 296)\n```\n</code>"


class Code(BaseModel):
    """The arguments."""

    code: str


class Instant:
    """A tool that answers at once."""

    name = "python"
    description = "Runs Python code."
    arguments = Code

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ToolSession]:
        """Itself: there is no state."""
        yield self

    async def call(self, arguments: Mapping[str, Any], seconds: float) -> ToolResult:
        """The same every time."""
        return ToolResult("1298552")

    async def fork(self) -> ToolSession:
        """Itself."""
        return self


async def one_run(turns: int) -> list[float]:
    """Seconds of each turn of one trajectory."""
    stamps: list[float] = []

    def script(_: object) -> str:
        stamps.append(time.perf_counter())
        return TURN if len(stamps) <= turns else "Done."

    engine = ScriptedEngine(Tokenizer.load(nano.path()), script, chunk=64, context_length=10**7)
    limits = Limits(max_turns=turns + 1, max_calls=turns + 1, max_tokens=10**7)
    policy = Policy(engine, FORMATS["retool"], [Instant()], limits=limits)
    async with Rollout(policy, name="bench") as rollout:
        await rollout.ask("How much?")
    return [b - a for a, b in itertools.pairwise(stamps)]


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    asyncio.run(one_run(20))
    runs = [asyncio.run(one_run(args.turns)) for _ in range(args.runs)]
    median = [statistics.median(turn) for turn in zip(*runs, strict=True)]
    block = max(1, args.turns // 10)
    print(f"{'turns':>10}  {'us per turn':>12}")
    blocks = [median[i : i + block] for i in range(0, len(median), block)]
    for number, part in enumerate(blocks):
        label = f"{number * block + 1}-{number * block + len(part)}"
        print(f"{label:>10}  {statistics.median(part) * 1e6:12.0f}")
    ratio = statistics.median(blocks[-1]) / statistics.median(blocks[0])
    print(f"last block / first block: {ratio:.2f}")


if __name__ == "__main__":
    main()

"""Runs the Python blocks of pages as they stand, each page in a namespace of its own.

    python run_docs.py PAGE...

What a page takes for granted (a server, a batch) is made before it, in `BEFORE`; what would take
minutes is made smaller, in `SMALLER`. Prints a line `== PAGE` before what a page prints.
"""

import ast
import asyncio
import inspect
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from support.fakes import NANO

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

SMALLER = {
    "engines.md": [("n=8", "n=2"), ("n=12", "n=3"), ("len(done) >= 8", "len(done) >= 2")],
    "train.md": [("steps=10", "steps=1, tasks_per_step=2, group_size=2, max_tokens=120")],
}


def served() -> dict[str, Any]:
    """The nano model behind vLLM's protocol, in the place of port 8000."""
    from safetensors.torch import load_file

    from interlace.rollout.engines import TransformersEngine
    from interlace.tools.background import BackgroundLoop
    from support.servers import ExactServer, serving

    engine = TransformersEngine.load(NANO, device="cpu")
    stack, loop = AsyncExitStack(), BackgroundLoop()

    async def start() -> str:
        return (await stack.enter_async_context(serving(ExactServer(engine)))).url

    Path("qwen3").symlink_to(NANO)
    weights = load_file(NANO / "model.safetensors")
    url = loop.run(start())
    return {
        "http://localhost:8000/v1": url,
        "learn": lambda groups: weights,
        "_alive": (loop, stack),
    }


def a_batch() -> dict[str, Any]:
    """Two attempts at one task, of three tokens each."""
    import torch

    log_prob = torch.full((2, 3), -0.5, requires_grad=True)
    return {
        "scores": torch.tensor([1.0, 0.0]),
        "response_mask": torch.ones(2, 3, dtype=torch.bool),
        "index": ["a", "a"],
        "log_prob": log_prob,
        "old_log_prob": log_prob.detach(),
    }


def a_database() -> dict[str, Any]:
    """An empty database of that name."""
    sqlite3.connect("some.db").close()
    return {}


def an_episode() -> dict[str, Any]:
    """One that was answered rightly."""
    from dataclasses import replace

    from interlace import Agent

    with Agent() as agent:
        episode = agent.run_sync("How many bolts are in 296 crates of 4387?").episode
    episode.task = replace(episode.task, answer="1298552")
    return {"episodes": [episode]}


BEFORE: dict[str, Callable[[], dict[str, Any]]] = {
    "engines.md": served,
    "objectives.md": a_batch,
    "rewards.md": an_episode,
    "sql.md": a_database,
}


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Each block with the line on which it begins."""
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        yield text.count("\n", 0, found.start(1)), found[1]


def run(page: Path) -> None:
    """Run a page from its top; `await` may stand outside of a function."""
    given = BEFORE.get(page.name, dict)()
    names = {"__name__": "__main__", **{k: v for k, v in given.items() if k.isidentifier()}}
    changes = [*SMALLER.get(page.name, ()), *((k, v) for k, v in given.items() if "/" in k)]
    with asyncio.Runner() as runner:
        for line, source in blocks(page):
            for before, after in changes:
                source = source.replace(before, after)
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile("\n" * line + source, str(page), "exec", flags=flags)
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(eval(code, names))
            else:
                exec(code, names)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"== {Path(name).name}", flush=True)
        run(Path(name))

"""Shared code of the commands that measure the nano model and write a table into its card."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from interlace.rollout.engines import Engine, nano
from interlace.rollout.models.load import load_engine
from interlace.tools import PythonTool
from interlace.train.data.task_tools import TaskTools

from .model_card import write_section
from .score import Shared

__all__ = ["measure_and_show"]

_R = TypeVar("_R", covariant=True)


class _Measure(Protocol[_R]):
    def __call__(
        self, engine: Engine, world: TaskTools, *, problems: int, seed: int
    ) -> Awaitable[Sequence[_R]]: ...


def measure_and_show(
    section: str,
    measure: _Measure[_R],
    table: Callable[[Sequence[_R]], str],
    arguments: Sequence[str] | None,
    *,
    problems: int,
    seed: int,
) -> None:
    """Run a command; its table goes to stdout, or with --write into the model card's `section`."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.nano.{section}")
    parser.add_argument("--model", type=Path, default=nano.path(), help="the checkpoint's folder")
    parser.add_argument("--problems", type=int, default=problems, help="problems of each kind")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--write", action="store_true", help="write it into the model card")
    given = parser.parse_args(arguments)

    async def run() -> Sequence[_R]:
        engine = load_engine(str(given.model), device="cpu")
        async with Shared(PythonTool()) as python, TaskTools(python) as world:
            rows = await measure(engine, world, problems=given.problems, seed=given.seed)
        await engine.aclose()
        return rows

    text = table(asyncio.run(run()))
    if given.write:
        write_section(given.model / "README.md", section, text)
    else:
        sys.stdout.write(text + "\n")

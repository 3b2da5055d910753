"""Attempts at held-out stories: how cold starts and runs are measured."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from interlace.rollout.engines import Sampling, TransformersEngine
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task, equal_answers
from interlace.rollout.trajectory import Episode
from interlace.tools import PythonTool

from .arms import LIMITS, Arm, Curt

if TYPE_CHECKING:
    import torch

__all__ = ["Examiner", "held", "is_right", "policy_of"]


def policy_of(arm: Arm, engine: TransformersEngine) -> Policy:
    """How the arm's policy is let act, in cold start and in reinforcement learning."""
    return Policy(engine, Curt(), arm.tools(), sampling=Sampling(), limits=LIMITS)


def is_right(episode: Episode) -> bool:
    """True if the answer is the story's."""
    answer, wanted = episode.answer, episode.task.answer
    return answer is not None and wanted is not None and equal_answers(answer, wanted)


def held(policy: Policy) -> PythonTool | None:
    """The policy's interpreter, whose processes are to be held as long as it is needed."""
    tool = policy.tools.get("python")
    assert tool is None or isinstance(tool, PythonTool)
    return tool


class Examiner:
    """Has a policy attempt the same stories again and again, with an interpreter of its own.

    Use it as a context manager; the engine is the caller's to close.
    """

    def __init__(self, engine: TransformersEngine, arm: Arm, tasks: Sequence[Task]) -> None:
        self.engine = engine
        self.policy = policy_of(arm, engine)
        self.tasks = tasks
        self._loop = asyncio.Runner()
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        tool = held(self.policy)
        if tool is not None:
            self._loop.run(self._stack.enter_async_context(tool))
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stack.aclose())
        self._loop.close()

    def take_weights(self, weights: dict[str, "torch.Tensor"]) -> None:
        """Hand the weights of a model in training to the engine."""
        self._loop.run(self.engine.update_weights(weights))

    def attempts(self, n: int, seed: int, tasks: Sequence[Task] | None = None) -> list[Episode]:
        """`n` attempts at each story, sampled at temperature 1; at some of them, if so told."""
        return self._loop.run(self._attempts(n, seed, self.tasks if tasks is None else tasks))

    async def _attempts(self, n: int, seed: int, tasks: Sequence[Task]) -> list[Episode]:
        runner = Runner(self.policy, concurrency=64)
        return [episode async for episode in runner.run(tasks, n=n, seed=seed)]

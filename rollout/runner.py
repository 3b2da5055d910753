"""Many trajectories at once, in groups of n."""

import asyncio
import time
from collections.abc import AsyncGenerator, Container, Iterable, Iterator

import numpy as np

from .loop import Rollout
from .policy import Policy
from .task import Task
from .trajectory import Episode, StopReason

__all__ = ["Runner", "episode_id"]


def episode_id(task: Task, sample: int) -> str:
    """The id of the `sample`-th attempt at a task: the same in every run, so a run can resume."""
    return f"{task.id}/{sample}"


class Runner:
    """Rolls out tasks with one policy, at most `concurrency` trajectories at a time.

    Tools and generation overlap: while one trajectory waits for its tool, the engine samples for
    the others. Nothing a model, a tool or a format does raises out of a run; an episode that our
    side failed has the stop reason `INFRASTRUCTURE` and an `error`.
    """

    def __init__(self, policy: Policy, *, concurrency: int = 64) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        self.policy = policy
        self.concurrency = concurrency
        self.interrupted: list[Episode] = []
        """The episodes in flight when the last run was closed early, with what they had."""

    async def run(
        self,
        tasks: Iterable[Task],
        *,
        n: int = 1,
        seed: int | None = None,
        skip: Container[str] = (),
    ) -> AsyncGenerator[Episode, None]:
        """Yield the episodes of each task, `n` a task, as they finish.

        `tasks` is read as far as there is room, so it may be endless. Episode ids in `skip` are
        left out. With a `seed`, each episode has its own, derived from it, the task and the sample.
        Closing the generator cancels what is in flight and keeps it in `interrupted`.
        """
        self.interrupted = []
        jobs = self._jobs(tasks, n, seed, skip)
        flying: dict[asyncio.Task[None], Episode] = {}
        try:
            while True:
                while len(flying) < self.concurrency and (episode := next(jobs, None)) is not None:
                    flying[asyncio.create_task(self._roll_out(episode))] = episode
                if not flying:
                    return
                finished, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    episode = flying.pop(task)
                    task.result()
                    yield episode
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
            self.interrupted = [episode for episode in flying.values() if episode.trajectories]

    async def groups(
        self, tasks: Iterable[Task], *, n: int, seed: int | None = None
    ) -> AsyncGenerator[list[Episode], None]:
        """Yield each task's `n` episodes together, in the order of their samples, when complete."""
        open_groups: dict[str, list[Episode]] = {}
        async for episode in self.run(tasks, n=n, seed=seed):
            group = open_groups.setdefault(episode.group, [])
            group.append(episode)
            if len(group) == n:
                yield sorted(open_groups.pop(episode.group), key=lambda e: e.sample)

    def _jobs(
        self, tasks: Iterable[Task], n: int, seed: int | None, skip: Container[str]
    ) -> Iterator[Episode]:
        for number, task in enumerate(tasks):
            for sample in range(n):
                id = episode_id(task, sample)
                if id in skip:
                    continue
                own = None
                if seed is not None:
                    own = int(np.random.SeedSequence([seed, number, sample]).generate_state(1)[0])
                yield Episode(id=id, task=task, group=task.id, sample=sample, seed=own)

    async def _roll_out(self, episode: Episode) -> None:
        """Fill in one episode. What a cancel leaves of it stands in it."""
        episode.started = time.time()
        clock = time.perf_counter()
        name = f"{episode.id}@{episode.started}"
        rollout = Rollout(self.policy, name=name, seed=episode.seed)
        episode.trajectories.append(rollout.trajectory)
        try:
            async with rollout:
                await rollout.ask(episode.task.question)
        except Exception as error:  # boundary: a tool that can't be closed is no reason to stop
            rollout.trajectory.stop = rollout.trajectory.stop or StopReason.INFRASTRUCTURE
            episode.error = f"{type(error).__name__}: {error}"
        finally:
            episode.seconds = time.perf_counter() - clock
            if episode.stop is StopReason.INFRASTRUCTURE:
                episode.error = rollout.trajectory.details.get("error")

"""Many trajectories at once, in groups of n."""

import asyncio
import json
import random
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol, TypeAlias

from ...tools import Tool
from ...tools.errors import UsageError
from ..admission import Phase, RunMetrics, SamplingGate
from ..budget import Budget
from ..formats import Message
from ..loop import Rollout
from ..policy import Policy
from ..sessions import describe_error
from ..task import Task
from ..trajectory import Episode, StopReason, Trajectory
from .call_cache import cache_calls
from .strategies import Strategy

__all__ = ["Attempt", "Enough", "Open", "Runner", "back_off", "episode_id", "episode_seed"]

Enough: TypeAlias = Callable[[Sequence[Episode]], bool]
"""Whether the episodes of a group that are over decide it, so that the others may stop."""


class Open(Protocol):
    """Opens a rollout as one of a runner's: it counts, waits its turn and shares the budget."""

    def __call__(
        self, policy: Policy, *, name: str, seed: int | None, make: Callable[..., Rollout] = Rollout
    ) -> AbstractAsyncContextManager[Rollout]:
        """`name` is its own; `make` takes what `Rollout` takes."""
        ...


Attempt: TypeAlias = Callable[[Episode, Policy, Open], Awaitable[None]]
"""Makes an episode of several rollouts, a team's say: puts their trajectories into it, that of the
answer last. What it raises ends the episode as failed on our side."""

_PAUSE = 1.0
"""Seconds before an attempt that failed on our side is made again; they double."""


async def back_off(tried: int) -> None:
    """Wait before an attempt that was made `tried` times before and failed; not before the first.

    The random part keeps attempts that failed together from coming back together.
    """
    if tried:
        await asyncio.sleep(_PAUSE * 2.0 ** (tried - 1) * random.uniform(0.5, 1.0))


def episode_id(task: Task, sample: int) -> str:
    """The id of the `sample`-th attempt at a task: the same in every run, so a run can resume."""
    return f"{task.id}/{sample}"


def episode_seed(seed: int, task: Task, sample: int | str) -> int:
    """The seed of one attempt, or of the leaf of that name, independent of the task's place among
    the others of a run.
    """
    parts = json.dumps([seed, task.id, sample])
    return int.from_bytes(blake2b(parts.encode(), digest_size=6).digest())


class Runner:
    """Rolls out tasks with one policy, at most `concurrency` trajectories at a time.

    Tools and generation overlap: while one trajectory waits for its tool, the engine samples for
    the others. Nothing a model, a tool or a format does raises out of a run; an episode that failed
    on our side is tried `retries` times more, and then has the stop reason `INFRASTRUCTURE` and an
    `error`. The memory used does not grow with the number of tasks.

    Where each task has its own database or corpus, `tools_for` gives the tools for a task, in place
    of the policy's. It is called once for all attempts at a task, in a thread, so it may take
    long; an exception ends those attempts as failed on our side. The attempts at a task share the
    results of equal calls to tools that are `pure`.

    With a `strategy` an episode is not one attempt but several, of which one is chosen: its
    trajectory comes last. With an `attempt`, that function makes the episode. A `budget` is shared
    by all episodes. `metrics` counts what happens, and `sampling_gate` can pause sampling.

    Example:
        runner = Runner(policy, tools_for=lambda task: [sql.on(databases[task.data["db"]])])
    """

    def __init__(
        self,
        policy: Policy,
        *,
        tools_for: Callable[[Task], Sequence[Tool]] | None = None,
        concurrency: int = 64,
        retries: int = 0,
        strategy: Strategy | None = None,
        attempt: Attempt | None = None,
        budget: Budget | None = None,
    ) -> None:
        if strategy is not None and attempt is not None:
            raise ValueError("a strategy asks a policy: an attempt of its own goes without")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        if retries < 0:
            raise ValueError(f"retries must not be negative, got {retries}")
        self.policy = policy
        self.tools_for = tools_for
        self.concurrency = concurrency
        self.retries = retries
        self.strategy = strategy
        self.attempt = attempt
        self.budget = budget
        self.metrics = RunMetrics()
        self.sampling_gate = SamplingGate(self.metrics)
        self._slots = asyncio.Semaphore(concurrency)
        self.interrupted: list[Episode] = []
        """The episodes in flight when the last run was closed early, with what they had."""

    async def run(
        self,
        tasks: Iterable[Task],
        *,
        n: int = 1,
        seed: int | None = None,
        skip: Container[str] = (),
        enough: Enough | None = None,
    ) -> AsyncGenerator[Episode, None]:
        """Yield the episodes of each task, `n` a task, as they finish.

        `tasks` is consumed lazily and may be infinite. Task ids must be unique.
        Episode ids in `skip` are left out. With a `seed`, each episode has its own, derived from
        it, the task's id and the sample.
        Once the finished episodes of a task are `enough`, its others are cancelled, and yielded
        with the stop reason `CANCELLED`; those that have not begun never do.
        Closing the generator cancels what is in flight and keeps it in `interrupted`.
        """
        async with aclosing(self._run(tasks, n, seed, skip, enough)) as episodes:
            async for episode, _ in episodes:
                yield episode

    async def groups(
        self,
        tasks: Iterable[Task],
        *,
        n: int,
        seed: int | None = None,
        enough: Enough | None = None,
    ) -> AsyncGenerator[list[Episode], None]:
        """Yield each task's `n` episodes together, in the order of their samples, when complete.

        Where the first of them were `enough`, the cancelled ones are left out: over-sampling is
        `groups(tasks, n=12, enough=lambda done: len(done) >= 8)`.
        """
        open_groups: dict[str, list[Episode]] = {}
        async with aclosing(self._run(tasks, n, seed, (), enough)) as episodes:
            async for episode, group in episodes:
                came = open_groups.setdefault(episode.group, [])
                if not (group.decided and episode.stop is StopReason.CANCELLED):
                    came.append(episode)
                if not group.left:
                    yield sorted(open_groups.pop(episode.group), key=lambda e: e.sample)

    # -- the attempts in flight -----------------------------------------------------------------

    async def _run(
        self,
        tasks: Iterable[Task],
        n: int,
        seed: int | None,
        skip: Container[str],
        enough: Enough | None,
    ) -> AsyncGenerator[tuple[Episode, "_Group"], None]:
        self.interrupted = []
        self._slots = asyncio.Semaphore(self.concurrency)  # of this event loop
        jobs = self._jobs(tasks, n, seed, skip)
        flying: dict[asyncio.Task[None], tuple[Episode, _Group]] = {}
        try:
            while True:
                while len(flying) < self.concurrency and (job := next(jobs, None)) is not None:
                    flying[asyncio.create_task(self._roll_out(*job))] = job
                if not flying:
                    return
                finished, _ = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    episode, group = flying.pop(task)
                    if not task.cancelled():
                        task.result()
                    group.left -= 1
                    if enough is not None and group.decides(episode, enough):
                        others = [each for each, job in flying.items() if job[1] is group]
                        group.left = len(others)  # those that have not begun never do
                        for other in others:
                            other.cancel()
                    yield episode, group
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
            self.interrupted = [episode for episode, _ in flying.values() if episode.trajectories]

    def _jobs(
        self, tasks: Iterable[Task], n: int, seed: int | None, skip: Container[str]
    ) -> Iterator[tuple[Episode, "_Group"]]:
        for task in tasks:
            samples = [sample for sample in range(n) if episode_id(task, sample) not in skip]
            group = _Group(self, task, left=len(samples))
            for sample in samples:
                if group.decided:
                    break
                own = None if seed is None else episode_seed(seed, task, sample)
                id = episode_id(task, sample)
                episode = Episode(id=id, task=task, group=task.id, sample=sample, seed=own)
                episode.settings = {"n": n, "seed": seed}
                yield episode, group

    # -- one episode ----------------------------------------------------------------------------

    async def attempt_one(
        self, episode: Episode, policy: Policy, *, history: Sequence[Message] = (), tried: int = 0
    ) -> None:
        """Fill in an episode that a caller has made, with one attempt and no second one.

        For those who have their own tasks and retries (verl's worker): `policy` stands in place of
        the runner's, `history` before the task's question, and `tried` counts the attempts before.
        Otherwise it is as in a run: the attempt counts, waits for its turn and never raises for
        what a model, a tool or a format does.
        """
        async with self._recording(episode):
            if self.attempt is not None:
                await self.attempt(episode, policy, self._open)
            elif self.strategy is not None:
                await self._decide(episode, policy, self.strategy)
            else:
                async with self._slots:
                    await self._try(episode, policy, episode.task.question, tried, history)

    async def _roll_out(self, episode: Episode, group: "_Group") -> None:
        """Fill in one episode; after a cancel it holds what there was until then."""
        async with self._recording(episode):
            policy, settings = await group.policy()
            episode.settings |= settings
            if self.attempt is not None:
                attempt = self.attempt
                await self._retrying(episode, lambda _: attempt(episode, policy, self._open))
            elif self.strategy is None:
                await self._attempt(episode, policy, episode.task.question)
            else:
                await self._decide(episode, policy, self.strategy)

    @asynccontextmanager
    async def _recording(self, episode: Episode) -> AsyncIterator[None]:
        """Keep the time of one episode and how it ended; our failures go no further."""
        episode.started = time.time()
        clock = time.perf_counter()
        try:
            yield
        except asyncio.CancelledError:
            if not episode.trajectories:
                self._failed(episode, StopReason.CANCELLED)
            raise
        except Exception as error:  # boundary: a tool that can't be made, a strategy that fails
            if episode.stop is not None:  # the last attempt was not chosen, and is no answer
                episode.trajectories.append(self._empty())
            self._failed(episode, StopReason.INFRASTRUCTURE, describe_error(error))
        finally:
            episode.seconds = time.perf_counter() - clock
            if episode.stop is StopReason.INFRASTRUCTURE:
                episode.error = episode.trajectory.error or episode.error
            self.metrics.finished(episode)

    async def _attempt(self, episode: Episode, policy: Policy, question: str) -> None:
        """Add a trajectory; where our side failed it, another in its place."""
        async with self._slots:
            await self._retrying(episode, lambda tried: self._try(episode, policy, question, tried))

    async def _retrying(self, episode: Episode, attempt: Callable[[int], Awaitable[None]]) -> None:
        """Make an attempt; where our side failed it, another in its place."""
        before = len(episode.trajectories)
        for tried in range(self.retries + 1):
            if tried:
                self.metrics.retried += 1
                await back_off(tried)
                del episode.trajectories[before:]
                episode.error = None
            await attempt(tried)
            if episode.stop is not StopReason.INFRASTRUCTURE:
                return

    async def _try(
        self,
        episode: Episode,
        policy: Policy,
        question: str,
        tried: int,
        history: Sequence[Message] = (),
    ) -> None:
        name = f"{episode.id}@{episode.started}.{tried}"
        rollout = Rollout(
            policy,
            name=name,
            seed=episode.seed,
            sampling_gate=self.sampling_gate,
            budget=self.budget,
        )
        rollout.history.messages.extend(history)
        episode.trajectories.append(rollout.trajectory)
        with self.metrics.during(Phase.IN_FLIGHT):
            try:
                async with rollout:
                    await rollout.ask(question)
            except Exception as error:  # boundary: a tool that can't be closed
                self._failed(episode, StopReason.INFRASTRUCTURE, describe_error(error))

    @asynccontextmanager
    async def _open(
        self, policy: Policy, *, name: str, seed: int | None, make: Callable[..., Rollout] = Rollout
    ) -> AsyncIterator[Rollout]:
        async with self._slots:
            opening = make(
                policy, name=name, seed=seed, sampling_gate=self.sampling_gate, budget=self.budget
            )
            with self.metrics.during(Phase.IN_FLIGHT):
                async with opening as rollout:
                    yield rollout

    def _failed(self, episode: Episode, stop: StopReason, error: str | None = None) -> None:
        if not episode.trajectories:
            episode.trajectories.append(self._empty())
        episode.trajectory.stop = episode.stop or stop
        episode.error = error

    def _empty(self) -> Trajectory:
        return Trajectory(self.policy.engine.name, self.policy.format.name)

    async def _decide(self, episode: Episode, policy: Policy, strategy: Strategy) -> None:
        """Fill an episode with the attempts of a strategy, the chosen one last."""
        decision = await strategy(_Asking(self, episode, policy), episode.task)
        chosen = decision.episode.trajectory
        chosen.strategy = decision.why
        episode.error = decision.episode.error
        others = [each for each in episode.trajectories if each is not chosen]
        episode.trajectories = [*others, chosen]


@dataclass(eq=False)
class _Asking:
    """The attempts of a strategy at one episode: see `Ask`."""

    runner: Runner
    episode: Episode
    policy: Policy
    _made: int = 0
    _leaves: set[str] = field(default_factory=set)

    async def __call__(self, question: str, /) -> Episode:
        episode, task, number = self.episode, self.episode.task, self._made
        self._made += 1
        id = f"{episode.id}.{number}"
        one = Episode(id, task, task.id, number, seed=self.seed(number), started=time.time())
        try:
            await self.runner._attempt(one, self.policy, question)
        finally:
            episode.trajectories += one.trajectories
        return one

    def seed(self, name: str | int) -> int | None:
        """The seed of an attempt or a leaf; the first root's is the episode's own."""
        seed = self.episode.seed
        if seed is None or name == "0":
            return seed
        return episode_seed(seed, self.episode.task, name)

    def rollout(self, name: str) -> Rollout:
        """A leaf without its place in the tree. Raises UsageError for a name that is taken."""
        if name in self._leaves:
            raise UsageError(
                f"the episode {self.episode.id} has a leaf {name!r} already: a strategy grows one "
                "tree, of several roots"
            )
        self._leaves.add(name)
        return Rollout(
            self.policy,
            name=f"{self.episode.id}@{self.episode.started}:{name}",
            seed=self.seed(name),
            sampling_gate=self.runner.sampling_gate,
            budget=self.runner.budget,
        )

    def record(self, trajectory: Trajectory) -> None:
        """Keep the trajectory of a leaf, from its beginning on."""
        self.episode.trajectories.append(trajectory)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A slot, for a while."""
        async with self.runner._slots:
            with self.runner.metrics.during(Phase.IN_FLIGHT):
                yield


@dataclass(eq=False)
class _Group:
    """The attempts at one task, and the policy that they share."""

    runner: Runner
    task: Task
    left: int
    """Attempts that have not come back."""
    decided: bool = False
    _over: list[Episode] = field(default_factory=list)
    _made: tuple[Policy, dict[str, Any]] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def decides(self, episode: Episode, enough: Enough) -> bool:
        """Add a finished episode. Return True if it is the one that decides the group."""
        self._over.append(episode)
        if self.decided or not enough(self._over):
            return False
        self.decided = True
        return True

    async def policy(self) -> tuple[Policy, dict[str, Any]]:
        """The policy and its settings, made by the first attempt.

        Raises what making the task's tools, or reading what they are, raises.
        """
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        return self._made

    def _make(self) -> tuple[Policy, dict[str, Any]]:
        policy, tools_for = self.runner.policy, self.runner.tools_for
        if tools_for is not None:
            policy = policy.with_tools(tools_for(self.task))
        settings = policy.settings
        if self.left > 1:
            policy = copy(policy)
            shared = cache_calls(list(policy.tools.values()))
            policy.tools = {tool.name: tool for tool in shared}
        return policy, settings

"""State of one of verl's agent-loop processes: tools, rewards, a log of episodes."""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ...rollout.engines.base import Sampling
from ...rollout.episode_log import EpisodeLog
from ...rollout.formats import Message, find_format
from ...rollout.ledger import Source
from ...rollout.limits import Limits
from ...rollout.loop import Rollout
from ...rollout.policy import Policy
from ...rollout.sessions import describe_error
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode, StopReason, Trajectory
from ...tools import Tool
from ...tools.errors import UsageError
from ...tools.named import find_tool
from ..data.task_tools import TaskTools
from ..rewards import TOTAL, Checker, find_rewards
from ..rewards.team_credit import find_parts
from ..team import find_attempt, find_role_rewards
from .engine import Client, Dialect, VerlEngine
from .settings import LoopSettings
from .team import opened
from .votes import Votes

__all__ = ["Attempt", "LeftOut", "Lengths", "Rolled", "Worker"]

_PAUSE = 1.0
"""Seconds before an attempt that failed on our side is made again; they double."""


class LeftOut(Exception):
    """An episode that can't be trained on, through no fault of the policy: why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The most tokens of a prompt, of a response, and of both together."""

    prompt: int
    response: int
    context: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task: verl's session."""

    task: Task
    history: Sequence[Message] = ()
    """What stands before the question."""
    sample: int = 0
    step: int = 0
    """verl's global step."""
    group: str = ""
    """verl's name of the task's attempts: those of one name are compared."""
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class Rolled:
    """An episode that has its rewards, and the engine it was sampled from."""

    episode: Episode
    engine: VerlEngine
    scoring_seconds: float
    vote: str
    """The text that stands for its answer among those of its group (votes.py)."""
    parts: Sequence[tuple[str, Episode]] | None = None
    """Of a team's episode, each with its place and its reward (train/rewards/team_credit.py)."""

    @property
    def reward(self) -> float:
        """The sum of the reward's parts."""
        return self.episode.rewards[TOTAL]


class Worker:
    """Rolls out and rewards, for as many of verl's sessions at once as the settings allow.

    The tools' processes, the checker's and the log's file are held while it is entered. Raises
    UsageError for settings that do not go together.
    """

    def __init__(
        self,
        settings: LoopSettings,
        client: Client,
        tokenizer: Tokenizer,
        *,
        name: str,
        lengths: Lengths,
        dialect: Dialect = "vllm",
    ) -> None:
        self.settings = settings
        self.lengths = lengths
        self._dialect: Dialect = dialect
        self._client = client
        self._name = name
        self._tools = [find_tool(each) for each in settings.tools or ()]
        self._world = TaskTools() if settings.tools is None else None
        self._policy = Policy(
            VerlEngine(client, tokenizer, name=name, context_length=lengths.context),
            find_format(settings.format),
            self._tools,
            limits=Limits(
                turns=settings.turns,
                calls=settings.calls,
                response_tokens=lengths.response,
                tool_output_tokens=settings.tool_output_tokens,
                call_seconds=settings.call_seconds,
                seconds=settings.seconds,
            ),
        )
        self._attempt = None if settings.attempt is None else find_attempt(settings.attempt)
        self._checker = Checker(default=settings.checker)
        self._votes = Votes(self._checker)
        own = find_role_rewards(settings.rewards, self._checker)
        self._split = find_parts(settings.credit, rewards=own, learns=settings.learns)
        self._rewards = find_rewards(
            settings.reward,
            self._checker,
            tokenizer,
            response_tokens=lengths.response,
            overlong_buffer=settings.overlong_buffer,
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._log: EpisodeLog | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start what all trajectories share. Raises ToolUnavailable, and DataError for the log."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._checker)
            if self.settings.episodes is not None:
                file = f"{socket.gethostname()}-{os.getpid()}.jsonl"
                log = EpisodeLog(Path(self.settings.episodes) / file)
                self._log = stack.enter_context(log)
            if self._world is not None:
                await stack.enter_async_context(self._world)
            for tool in self._tools:
                if isinstance(tool, AbstractAsyncContextManager):
                    await stack.enter_async_context(tool)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the tools' processes."""
        await self._stack.aclose()

    async def roll_out(self, attempt: Attempt) -> Rolled:
        """One episode with its rewards. Raises LeftOut where our side failed it, after `retries`
        more attempts, and where nobody can know its reward: verl then trains without it.
        """
        tries = 0
        async with self._slots:
            while True:
                try:
                    return await self._try(attempt, tries)
                except LeftOut:
                    if tries == self.settings.retries:
                        raise
                await asyncio.sleep(_PAUSE * 2.0**tries)
                tries += 1

    async def _try(self, attempt: Attempt, tried: int) -> Rolled:
        policy = await self._policy_for(attempt)
        task, began = attempt.task, time.time()
        id = f"{attempt.step}.{task.id}/{attempt.sample}"
        episode = Episode(id, task, task.id, attempt.sample, started=began)
        episode.settings = {**policy.settings, "step": attempt.step}
        engine = VerlEngine(
            self._client,
            policy.engine.tokenizer,
            name=self._name,
            context_length=self.lengths.context,
            dialect=self._dialect,
        )
        policy = policy.with_engine(engine)
        try:
            if self._attempt is None:
                await self._alone(episode, policy, attempt.history, f"{id}@{began}.{tried}")
            else:
                async with asyncio.timeout(self.settings.seconds):
                    await self._attempt(episode, policy, opened)
        except Exception as error:  # boundary: a tool that can't be closed, whatever a team raises
            self._failed(episode, error)
        if episode.stop is StopReason.INFRASTRUCTURE:
            episode.error = episode.trajectory.details.get("error")
        episode.seconds = time.time() - began
        began = time.perf_counter()
        parts, problem = await asyncio.to_thread(self._score, episode)
        group, sample = attempt.group or id, attempt.sample
        vote = await asyncio.to_thread(self._votes.name, group, task, episode.answer, sample=sample)
        seconds = time.perf_counter() - began
        if self._log is not None:
            self._log.append(episode)
        if problem is not None:
            raise LeftOut(f"the episode {id} is left out: {problem}")
        return Rolled(episode, engine, seconds, vote, parts)

    async def _alone(
        self, episode: Episode, policy: Policy, history: Sequence[Message], name: str
    ) -> None:
        rollout = Rollout(policy, name=name)
        rollout.history.messages.extend(history)
        episode.trajectories.append(rollout.trajectory)
        async with rollout:
            await rollout.ask(episode.task.question)

    def _failed(self, episode: Episode, error: Exception) -> None:
        """Set how it ended: by its limit of seconds, or by a failure of ours."""
        if not episode.trajectories:
            episode.trajectories.append(Trajectory(self._name, self._policy.format.name))
        if self._attempt is not None and isinstance(error, TimeoutError):
            for trajectory in episode.trajectories:
                if trajectory.stop in (None, StopReason.CANCELLED):
                    trajectory.stop = StopReason.TIMEOUT
            episode.trajectory.stop = StopReason.TIMEOUT
        else:
            episode.trajectory.stop = StopReason.INFRASTRUCTURE
            episode.trajectory.details.setdefault("error", describe_error(error))

    def _score(self, episode: Episode) -> tuple[list[tuple[str, Episode]] | None, str | None]:
        """Set the episode's rewards; a team's parts with theirs, and why it can't be trained on."""
        score = self._rewards.score(episode)
        episode.rewards = score.rewards
        if score.problem is not None:
            return None, score.problem
        if not _sampled(episode):
            return None, "it ended before the policy said anything"
        if self._attempt is None:
            return None, None
        parts = self._split(episode)
        if not parts:
            return None, "of the roles that learn none spoke in it, or none could be rewarded"
        return parts, None

    async def _policy_for(self, attempt: Attempt) -> Policy:
        """The policy with the task's own tools. Raises UsageError for a prompt that is too long,
        and for what a team can't be asked. A team's own prompts need only fit the context.
        """
        policy = self._policy.with_sampling(
            temperature=attempt.sampling.temperature,
            top_p=attempt.sampling.top_p,
            top_k=attempt.sampling.top_k,
        )
        if self._world is not None:
            policy = policy.with_tools(await asyncio.to_thread(self._tools_of, attempt.task))
        if self._attempt is not None:
            if attempt.history:
                raise UsageError(
                    f"the task {attempt.task.id} has messages before its question: a team is "
                    "asked a bare question"
                )
            return policy
        spans = policy.encoder.prompt(attempt.task.question, attempt.history)
        length = sum(map(len, spans))
        if length > self.lengths.prompt:
            raise UsageError(
                f"the prompt of the task {attempt.task.id} has {length} tokens with what the "
                f"format adds, above data.max_prompt_length={self.lengths.prompt}: raise that"
            )
        return policy

    def _tools_of(self, task: Task) -> Sequence[Tool]:
        assert self._world is not None
        return self._world(task)


def _sampled(episode: Episode) -> bool:
    ledgers = [ledger for each in episode.trajectories for ledger in each.ledgers]
    return any(span.source is Source.POLICY for ledger in ledgers for span in ledger)

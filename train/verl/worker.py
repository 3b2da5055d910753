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
from ...rollout.many.runner import Runner, back_off
from ...rollout.many.strategies import find_strategy
from ...rollout.policy import Policy
from ...rollout.task import Task
from ...rollout.tokenizer import Tokenizer
from ...rollout.trajectory import Episode
from ...tools.errors import UsageError
from ...tools.named import find_tool, task_sql
from ..data.task_tools import TaskTools
from ..rewards import TOTAL, Checker, find_rewards
from ..rewards.team_credit import find_parts
from ..rewards.tree_credit import score_leaves
from ..team import find_attempt, find_role_rewards
from .engine import Client, Dialect, VerlEngine
from .settings import LoopSettings
from .team import within
from .votes import Votes

__all__ = ["EpisodeSkipped", "Lengths", "LoopWorker", "ScoredEpisode", "VerlAttempt"]


class EpisodeSkipped(Exception):
    """An episode that can't be trained on, through no fault of the policy: why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """The most tokens of a prompt, of a response, and of both together."""

    prompt: int
    response: int
    context: int


@dataclass(frozen=True, slots=True)
class VerlAttempt:
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
class ScoredEpisode:
    """An episode that has its rewards, and the engine it was sampled from."""

    episode: Episode
    engine: VerlEngine
    scoring_seconds: float
    vote: str
    """The text that stands for its answer among those of its group (votes.py)."""
    parts: Sequence[tuple[str, Episode]] | None = None
    """Of a team's or a tree's episode, each with its place and its reward (train/rewards/
    team_credit.py, tree_credit.py)."""

    @property
    def reward(self) -> float:
        """The sum of the reward's parts."""
        return self.episode.rewards[TOTAL]


class LoopWorker:
    """Rolls out with a `Runner`, and rewards, for verl's sessions.

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
        task_tool = "sql" if settings.tools is None else task_sql(settings.tools)
        self._tools = [] if task_tool else [find_tool(each) for each in settings.tools or ()]
        self._world = TaskTools(sql=task_tool) if task_tool else None
        self._policy = Policy(
            VerlEngine(client, tokenizer, name=name, context_length=lengths.context),
            find_format(settings.format),
            self._tools,
            limits=Limits(
                max_turns=settings.max_turns,
                max_calls=settings.max_calls,
                max_tokens=lengths.response,
                max_tool_tokens=settings.max_tool_tokens,
                call_timeout=settings.call_timeout,
                timeout=settings.timeout,
            ),
        )
        team = None
        if settings.attempt is not None:
            team = within(find_attempt(settings.attempt), settings.timeout)
        tree = None if settings.strategy is None else find_strategy(settings.strategy)
        self._runner = Runner(
            self._policy, concurrency=settings.concurrency, attempt=team, strategy=tree
        )
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

    async def roll_out(self, attempt: VerlAttempt) -> ScoredEpisode:
        """One episode with its rewards.

        Raises EpisodeSkipped where our side failed it, or nobody can know its reward, `retries`
        more attempts included: verl then trains without it.
        """
        tried = 0
        while True:
            try:
                return await self._try(attempt, tried)
            except EpisodeSkipped:
                if tried == self.settings.retries:
                    raise
            tried += 1
            await back_off(tried)

    async def _try(self, attempt: VerlAttempt, tried: int) -> ScoredEpisode:
        policy = await self._policy_for(attempt)
        task = attempt.task
        id = f"{attempt.step}.{task.id}/{attempt.sample}"
        episode = Episode(id, task, task.id, attempt.sample)
        episode.settings = {**policy.settings, "step": attempt.step}
        engine = VerlEngine(  # of this episode: it notes which weights drew its tokens
            self._client,
            policy.engine.tokenizer,
            name=self._name,
            context_length=self.lengths.context,
            dialect=self._dialect,
        )
        await self._runner.attempt_one(
            episode, policy.with_engine(engine), history=attempt.history, tried=tried
        )
        began = time.perf_counter()
        parts, problem = await asyncio.to_thread(self._score, episode)
        group, sample = attempt.group or id, attempt.sample
        vote = await asyncio.to_thread(self._votes.name, group, task, episode.answer, sample=sample)
        seconds = time.perf_counter() - began
        if self._log is not None:
            self._log.append(episode)
        if problem is not None:
            raise EpisodeSkipped(f"the episode {id} is left out: {problem}")
        return ScoredEpisode(episode, engine, seconds, vote, parts)

    def _score(self, episode: Episode) -> tuple[list[tuple[str, Episode]] | None, str | None]:
        """Set the episode's rewards; a team's parts with theirs, and why it can't be trained on."""
        if self._runner.strategy is not None:
            return self._score_leaves(episode)
        score = self._rewards.score(episode)
        episode.rewards = score.rewards
        if score.problem is not None:
            return None, score.problem
        ledgers = [ledger for each in episode.trajectories for ledger in each.ledgers]
        if not any(span.source is Source.POLICY for ledger in ledgers for span in ledger):
            return None, "it ended before the policy said anything"
        if self._runner.attempt is None:
            return None, None
        parts = self._split(episode)
        if not parts:
            return None, "of the roles that learn none spoke in it, or none could be rewarded"
        return parts, None

    def _score_leaves(self, tree: Episode) -> tuple[list[tuple[str, Episode]] | None, str | None]:
        """The same for a tree: its leaves, each with the name of its root as its place. The chosen
        one is its answer to verl, so that a tree is left out where that has no reward.
        """
        leaves, scores = score_leaves(self._rewards, [tree])
        if not tree.rewards:
            return None, scores[-1].problem
        return [(leaf.path[0].root, leaf) for leaf in leaves if leaf.rewards], None

    async def _policy_for(self, attempt: VerlAttempt) -> Policy:
        """The policy with the task's own tools. Raises UsageError for a prompt that is too long,
        and for what a team can't be asked. A team's own prompts need only fit the context.
        """
        policy = self._policy.with_sampling(
            temperature=attempt.sampling.temperature,
            top_p=attempt.sampling.top_p,
            top_k=attempt.sampling.top_k,
        )
        if self._world is not None:
            tools = await asyncio.to_thread(self._world, attempt.task)
            policy = policy.with_tools(tools)
        parted = self._runner.attempt or self._runner.strategy
        if parted is not None and attempt.history:
            raise UsageError(
                f"the task {attempt.task.id} has messages before its question: a team or a tree is "
                "asked a bare question"
            )
        if self._runner.attempt is not None:
            return policy
        spans = policy.encoder.prompt(attempt.task.question, attempt.history)
        length = sum(map(len, spans))
        if length > self.lengths.prompt:
            raise UsageError(
                f"the prompt of the task {attempt.task.id} has {length} tokens with what the "
                f"format adds, above data.max_prompt_length={self.lengths.prompt}: raise that"
            )
        return policy

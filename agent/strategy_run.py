"""One question, several attempts, one answer: an agent with a strategy."""

import time
import uuid
from contextlib import aclosing
from typing import Any

from ..rollout.budget import Budget
from ..rollout.many.runner import Runner
from ..rollout.many.strategies import Strategy
from ..rollout.policy import Policy
from ..rollout.task import Task
from ..rollout.trajectory import Episode
from .result import Result, Usage, ending

__all__ = ["StrategyRun"]

_AT_ONCE = 16


class StrategyRun:
    """Answers one question as a strategy does; `last` is the result, also of one that was stopped.

    The result's text, calls and answer are those of the attempt that was chosen, its usage is that
    of all attempts together.
    """

    def __init__(self, policy: Policy, strategy: Strategy, budget: Budget) -> None:
        self._policy = policy
        self._runner = Runner(policy, strategy=strategy, concurrency=_AT_ONCE, budget=budget)
        self.last: Result[Any] | None = None

    async def ask(self, question: str) -> Result[Any]:
        """Answer the question; never raises for what the model or a tool did."""
        task, clock = Task(uuid.uuid4().hex[:12], question), time.perf_counter()
        episodes: list[Episode] = []
        try:
            run = self._runner.run([task], seed=self._policy.sampling.seed)
            async with aclosing(run):
                async for episode in run:
                    episodes.append(episode)
        finally:
            for episode in (*episodes, *self._runner.interrupted):
                self.last = self._result(episode, time.perf_counter() - clock)
        assert self.last is not None
        return self.last

    def _result(self, episode: Episode, seconds: float) -> Result[Any]:
        chosen, tokenizer = episode.trajectory, self._policy.engine.tokenizer
        turns = [turn for each in episode.trajectories for turn in each.own_turns]
        prompt = chosen.turns[0].start if chosen.turns else 0
        given = sum(len(ledger) - ledger.prompt_length for ledger in chosen.ledgers)
        written = sum(turn.stop - turn.start for turn in chosen.turns)
        usage = Usage(
            tokens=sum(each.sampled_tokens for each in episode.trajectories),
            prompt_tokens=prompt,
            tool_tokens=given - written,
            turns=len(turns),
            calls=sum(len(turn.calls) for turn in turns),
            seconds=round(seconds, 3),
            estimated=any(turn.estimated for turn in turns),
        )
        stop, answer = ending(self._policy, chosen)
        return Result(
            question=episode.task.question,
            stop=stop,
            answer=answer,
            text="".join(chosen.text(turn, tokenizer) for turn in chosen.turns),
            calls=tuple(chosen.calls),
            usage=usage,
            error=episode.error,
            episode=episode,
            tokenizer=tokenizer,
        )

"""A conversation: questions that share one context and the state of the tools."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Self

from ..rollout.events import Event, Finished, Listener
from ..rollout.loop import Rollout
from ..rollout.policy import Policy
from ..rollout.task import Task
from ..rollout.trajectory import Episode, StopReason, Turn
from ..tools.errors import UsageError
from .result import AgentEvent, Done, Result, Usage

__all__ = ["Conversation"]


class Conversation:
    """Ask as often as you like: variables, files and what was said live from question to question.

    `last` is the latest result, of a question that was cancelled too; `episode` is the record of
    the whole conversation.

    Example:
        async with agent.conversation() as chat:
            await chat.ask("Let x be 17 * 23 in Python.")
            print((await chat.ask("And x squared?")).answer)
    """

    def __init__(self, policy: Policy) -> None:
        id = uuid.uuid4().hex[:12]
        seed = policy.sampling.seed
        self._policy = policy
        self._rollout = Rollout(policy, name=id, listener=self._hear)
        self._listener: Listener | None = None
        self._busy = False
        self.last: Result | None = None
        # The task's question is the first one; later ones stand in the ledger.
        self.episode = Episode(id, Task(id, ""), id, 0, [self._rollout.trajectory], seed=seed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the tools' sessions."""
        await self._rollout.__aexit__(None, None, None)

    async def ask(self, question: str, listener: Listener | None = None) -> Result:
        """Answer one question; never raises for what the model or a tool did.

        `listener` is called with every event as it happens. Cancelling keeps what was said until
        then in the conversation, and as `last`. Raises UsageError while another question is being
        answered.
        """
        if self._busy:
            raise UsageError("a conversation answers one question at a time")
        if not self.episode.task.question:
            self.episode.task = Task(self.episode.id, question)
            self.episode.started = time.time()
        first_turn, clock = len(self._rollout.trajectory.turns), time.perf_counter()
        self._busy, self._listener = True, listener
        try:
            await self._rollout.ask(question)
        finally:
            self._busy, self._listener = False, None
            self.last = self._result(question, first_turn, time.perf_counter() - clock)
        return self.last

    async def stream(self, question: str) -> AsyncGenerator[AgentEvent, None]:
        """Yield what happens as it happens, and at the end `Done` with the result.

        Closing the stream, or cancelling the task that reads it, stops the answer.
        """
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        asking = asyncio.create_task(self.ask(question, events.put_nowait))
        asking.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                if not isinstance(event, Finished):  # Done says it, with the whole result
                    yield event
            yield Done(await asking)
        finally:
            if not asking.done():
                asking.cancel()
                with suppress(asyncio.CancelledError):
                    await asking

    def _hear(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)

    def _result(self, question: str, first_turn: int, seconds: float) -> Result:
        trajectory = self._rollout.trajectory
        tokenizer = self._policy.engine.tokenizer
        turns = trajectory.turns[first_turn:]
        calls = tuple(call for turn in turns for call in turn.calls)
        error = trajectory.details.get("error")
        self.episode.seconds += seconds
        self.episode.error = error
        return Result(
            question=question,
            stop=trajectory.stop or StopReason.INFRASTRUCTURE,
            answer=trajectory.answer,
            text="".join(trajectory.text(turn, tokenizer) for turn in turns),
            calls=calls,
            usage=self._usage(turns, len(calls), seconds),
            error=error,
            episode=self.episode,
        )

    def _usage(self, turns: list[Turn], calls: int, seconds: float) -> Usage:
        tokens = sum(turn.stop - turn.start for turn in turns)
        prompt = response = 0
        if turns:
            prompt = turns[0].start
            response = len(self._rollout.trajectory.ledgers[turns[0].ledger]) - prompt
        return Usage(tokens, prompt, response - tokens, len(turns), calls, round(seconds, 3))

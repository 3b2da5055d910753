"""A conversation: questions that share one context and the state of the tools."""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Self, TypeAlias

from typing_extensions import TypeVar

from ..rollout.budget import Budget
from ..rollout.events import CallFinished, Event, Finished, PolicyText
from ..rollout.formats import Message
from ..rollout.loop import Rollout
from ..rollout.policy import Policy
from ..rollout.task import Task
from ..rollout.trajectory import Episode, StopReason, Turn
from ..tools.base import encodable
from ..tools.errors import DataError, UsageError
from .approval import Approval
from .call_policy import CallPolicy, Hooks
from .conversations import Asked, ConversationElsewhere, Conversations, Saved
from .events import AgentEvent, ApprovalAsked, BudgetLeft, Done
from .output import OutputSchema
from .result import Result, Usage, ending
from .run import AgentRun, AnswerFeed
from .thinking import Thinking

__all__ = ["AgentSettings", "Conversation"]

T = TypeVar("T", default=None)

Listener: TypeAlias = Callable[[AgentEvent[Any]], None]


@dataclass(frozen=True, slots=True)
class AgentSettings(Generic[T]):
    """The terms of an agent's conversations, and the store that keeps them."""

    budget: Budget = field(default_factory=Budget)
    approval: Approval | None = None
    hooks: Hooks = field(default_factory=Hooks)
    schema: OutputSchema[T] | None = None
    repairs: int = 1
    store: Conversations | None = None
    tools: tuple[str, ...] = ()
    """The tools as the agent was given them, by name: kept for who resumes."""


class Conversation(Generic[T]):
    """Ask as often as you like: variables, files and the dialogue are kept between questions.

    `last` is the latest result, even if that question was cancelled. `episode` is the record of
    the whole conversation; its `id` is also the conversation's.

    Example:
        async with agent.conversation() as chat:
            await chat.ask("Let x be 17 * 23 in Python.")
            print((await chat.ask("And x squared?")).answer)
    """

    def __init__(
        self,
        policy: Policy,
        settings: AgentSettings[T] | None = None,
        *,
        saved: Saved | None = None,
        messages: tuple[Message, ...] = (),
    ) -> None:
        """`saved` is a conversation that was read back, to be continued; it has to be of this model
        and format (UsageError); `messages` begins with what was said in another one.
        """
        self._policy = policy
        self._settings = settings or AgentSettings()
        self._saved = saved or self._begin()
        self.episode = self._saved.episode
        self._rollout = Rollout(
            policy,
            name=self.episode.id,
            listener=self._hear,
            budget=self._settings.budget,
            call_gate=CallPolicy(
                self._settings.approval, self._settings.hooks, self._ask_for_approval
            ),
        )
        self._thinking = Thinking(policy)
        self._listener: Listener | None = None
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept = (0, 0)  # questions and turns, when last saved
        self.last: Result[T] | None = None
        self._rollout.history.messages += messages
        self._take_up()

    def __repr__(self) -> str:
        return f"<Conversation {self.episode.id}: {len(self._saved.asked)} questions>"

    @property
    def questions(self) -> tuple[Asked, ...]:
        """The questions asked so far, and how each ended."""
        return tuple(self._saved.asked)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages so far, to begin a conversation with another model."""
        return tuple(self._rollout.history.messages)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the tools' sessions."""
        await self._rollout.__aexit__(None, None, None)

    async def ask(self, question: str, listener: Listener | None = None) -> Result[T]:
        """Answer one question; never raises for what the model or a tool did.

        `listener` is called with every event but `Done` as it happens. Cancelling keeps what was
        said until then in the conversation, and as `last`. Raises UsageError while another question
        is being answered, DataError where the conversation can't be kept: on a full disk after the
        answer, which is in `last`, and the next question keeps both.
        """
        if self._busy:
            raise UsageError("a conversation answers one question at a time")
        here = asyncio.get_running_loop()  # the tools' sessions live in it
        self._loop = self._loop or here
        if self._loop is not here:
            raise UsageError("a conversation stays in the event loop that it was begun in")
        if not isinstance(question, str):
            raise UsageError(
                "a conversation is asked a text; earlier messages begin it: "
                "agent.conversation(messages=...)"
            )
        question = encodable(question)
        if not self.episode.task.question:
            self.episode.task = Task(self.episode.id, question)
            self.episode.started = time.time()
        first_turn, clock = len(self._rollout.trajectory.turns), time.perf_counter()
        self._busy, self._listener = True, listener
        output: T | None = None
        problem: str | None = None
        try:
            schema = self._settings.schema
            await self._put(question if schema is None else schema.ask(question))
            if schema is not None:
                answer = self._saved.asked[-1].answer
                output, problem = schema.check(answer)
                for _ in range(self._settings.repairs):
                    if problem is None or answer is None:
                        break
                    await self._put(schema.ask_again(problem))
                    answer = self._saved.asked[-1].answer
                    output, problem = schema.check(answer)
        finally:
            self._busy, self._listener = False, None
            seconds = time.perf_counter() - clock
            self.last = self._result(question, first_turn, seconds, (output, problem))
            for event in self._last_events(self.last):
                self._settings.hooks.hear_end(event)
        return self.last

    def stream(self, question: str) -> AgentRun[T]:
        """Stream the events of an answer as they happen, ending with `Done` and the result.

        Leaving, closing or dropping the stream, or cancelling the task that reads it, stops the
        answer; so does `AgentRun.cancel`, after which the stream continues to its `Done`. Raises as
        `ask` does.
        """
        return AgentRun(partial(self.answer, question))

    def undo(self) -> str | None:
        """Take back the last question and all that followed; returns it, None if there is none.

        What its code did in the tools stays done. Raises UsageError while one is being answered,
        DataError where the conversation that is kept can't be changed.
        """
        if self._busy:
            raise UsageError("a question that is being answered can't be taken back")
        if not self._saved.asked:
            return None
        if self._settings.store is not None:  # first: if it fails, all stays as it is
            self._settings.store.cut(self._saved, len(self._saved.asked) - 1)
        gone = self._saved.asked.pop()
        self._rollout.history.restore(self._rollout.trajectory, gone.mark)
        return gone.question

    async def answer(self, question: str, feed: AnswerFeed[T]) -> None:
        """Answer one question; its events go to the feed of an `AgentRun`."""

        def stop_after_turn() -> None:
            self._rollout.stop_after_turn = True

        await feed.until_stopped(self.ask(question, feed.emit), stop_after_turn)
        assert self.last is not None
        for event in self._last_events(self.last):
            feed.emit(event)

    # -- while a question is answered -----------------------------------------------------------

    async def _put(self, question: str) -> None:
        """One question to the model, whatever ends it on record."""
        trajectory = self._rollout.trajectory
        one = Asked(question, self._rollout.history.mark(trajectory))
        self._saved.asked.append(one)
        try:
            await self._rollout.ask(question)
        finally:
            one.stop, (_, one.answer) = trajectory.stop, ending(self._policy, trajectory)
            self._save(len(trajectory.turns))

    def _ask_for_approval(self, event: ApprovalAsked) -> bool:
        if self._listener is None:
            return False
        self._tell(event)
        return True

    def _hear(self, event: Event) -> None:
        if isinstance(event, PolicyText):  # the turns before this one are finished
            try:
                self._save(len(self._rollout.trajectory.turns) - 1, unless_done=True)
            except ConversationElsewhere:
                raise
            except DataError:  # a full disk, say: the answer first, the save after it raises
                pass
        for one in self._thinking.hear(event, self._rollout.trajectory):
            if not isinstance(one, Finished):  # Done says it, with the whole result
                self._tell(one)
        if isinstance(event, CallFinished) and self._settings.budget.bounded:
            self._tell(BudgetLeft(self._settings.budget.left))

    def _tell(self, event: AgentEvent[Any]) -> None:
        if self._listener is not None:
            self._listener(event)
        self._settings.hooks.hear(event)

    def _last_events(self, result: Result[T]) -> list[AgentEvent[T]]:
        budget = self._settings.budget
        return [*([BudgetLeft(budget.left)] if budget.bounded else []), Done(result)]

    # -- records --------------------------------------------------------------------------------

    def _begin(self) -> Saved:
        id, policy = uuid.uuid4().hex[:12], self._policy
        # The task's question is the first one; later ones stand in the ledger.
        episode = Episode(id, Task(id, ""), id, 0, seed=policy.sampling.seed)
        tools = self._settings.tools or tuple(policy.tools)
        return Saved(episode, [], tools, system=policy.system)

    def _take_up(self) -> None:
        """Continue from the end of the conversation that was read back."""
        if not self.episode.trajectories:
            self.episode.trajectories.append(self._rollout.trajectory)
            return
        trajectory, now = self.episode.trajectory, self._rollout.trajectory
        if (trajectory.model, trajectory.format) != (now.model, now.format):
            raise UsageError(
                f"the conversation {self.episode.id} is one with {trajectory.model} in the format "
                f"{trajectory.format}, not with {now.model} in {now.format}"
            )
        self._rollout.trajectory = trajectory
        questions = self._saved.asked
        ends = [one.mark.turns for one in questions[1:]] + [len(trajectory.turns)]
        for one, end in zip(questions, ends, strict=True):
            one.stop = one.stop or StopReason.CANCELLED  # whoever answered it was killed
            if one.stop is not StopReason.INFRASTRUCTURE:
                remember = self._rollout.history.remember
                remember(one.question, trajectory, one.mark.turns, end)

    def _save(self, finished: int, *, unless_done: bool = False) -> None:
        """Keep what is finished; `unless_done`: if there is anything new."""
        now = len(self._saved.asked), finished
        if self._settings.store is not None and not (unless_done and now == self._kept):
            self._kept = now  # even if it fails: it is tried again after the next turn
            self._settings.store.save(self._saved, finished)

    def _result(
        self, question: str, first_turn: int, seconds: float, read: tuple[T | None, str | None]
    ) -> Result[T]:
        trajectory = self._rollout.trajectory
        tokenizer = self._policy.engine.tokenizer
        turns = trajectory.turns[first_turn:]
        calls = tuple(call for turn in turns for call in turn.calls)
        error = trajectory.error
        stop, answer = ending(self._policy, trajectory)
        self.episode.seconds += seconds
        self.episode.error = error
        return Result(
            question=question,
            stop=stop,
            answer=answer,
            text="".join(trajectory.text(turn, tokenizer) for turn in turns),
            calls=calls,
            usage=self._usage(turns, len(calls), seconds),
            error=error,
            episode=self.episode,
            output=read[0],
            output_problem=read[1],
            tokenizer=tokenizer,
        )

    def _usage(self, turns: list[Turn], calls: int, seconds: float) -> Usage:
        written = sum(turn.stop - turn.start for turn in turns)
        prompt = response = 0
        if turns:
            prompt = turns[0].start
            response = len(self._rollout.trajectory.ledgers[turns[0].ledger]) - prompt
        return Usage(
            tokens=sum(turn.sampled_tokens for turn in turns),
            prompt_tokens=prompt,
            tool_tokens=response - written,
            turns=len(turns),
            calls=calls,
            seconds=round(seconds, 3),
            estimated=any(turn.estimated for turn in turns),
        )

"""An agent: a model, the tools it is offered, and how it is let act."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from typing_extensions import TypeVar

from ..rollout.budget import Budget
from ..rollout.engines import Engine, Sampling
from ..rollout.formats import Format, find_format
from ..rollout.limits import Limits
from ..rollout.many.strategies import Strategy, find_strategy
from ..rollout.many.votes import classes_of
from ..rollout.models.load import check_engine, default_format, load_engine, trained_formats
from ..rollout.policy import Policy
from ..rollout.rollable import RolloutPlan
from ..tools.errors import UsageError
from ..tools.named import AnyTool, as_tool
from .approval import Approval, Asker
from .call_policy import Hooks
from .conversation import AgentSettings, Conversation
from .conversations import Conversations
from .events import Done
from .messages import Question, read_messages, read_question
from .output import OutputSchema
from .result import Result
from .run import AgentRun, Answerer, AnswerFeed, LazyResource
from .strategy_run import StrategyRun

__all__ = ["Agent", "AnyTool"]

T = TypeVar("T", default=None)


class Agent(Answerer[T]):
    """A model that answers questions and calls tools while it thinks.

    `model` is a name or an engine; it is loaded once, at the first question, with `device`,
    `engine` (with its options) and `tokenizer` as for `load_engine`.
    `format` is how the model asks for tools: by default, what suits the model. Without tools, a
    model that was not trained here is asked in plain words (evaluations still ask for the tags).
    Without `sampling` an agent is greedy: the same question gives the same answer. With a
    `strategy` (`vote@8`, or a function, see `strategies`) `run` and `stream` make several attempts,
    sampled at temperature 1
    unless told otherwise, and give the one that was chosen; conversations don't. Use it as a
    context manager, or close it when done; an engine that was passed in stays open. Within its
    context what the tools start once (the Python sandbox) is kept from question to question.

    `system` is the system prompt in your own words; the format adds how tools are called and how
    to answer. A question is a text, or a list of messages as chat APIs have them (`role` and
    `content`), of which the last is the question and the others are the conversation before it.

    `limits` bound each question; `budget` is used up by all of them, and by whoever shares it.
    `output` is a type: the answer is read as that (`Result.output`), and where it does not fit the
    model is told why and may try again, `repairs` times. `approve` says which calls are run: an
    `Approval`, its rules as a text, or a function that is asked for each. `hooks` see what happens.
    `conversations` keeps every conversation, to be resumed.

    The methods whose names end in `_sync` need no event loop and work inside a running one too.

    Example:
        with Agent() as agent:
            print(agent.run_sync("How many bolts are in 296 crates of 4387?").answer)
    """

    def __init__(
        self,
        model: str | Engine = "nano",
        *,
        tools: Sequence[AnyTool] = ("python",),
        format: str | Format | None = None,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        strategy: str | Strategy | None = None,
        device: str = "auto",
        engine: str = "transformers",
        engine_options: Mapping[str, Any] | None = None,
        tokenizer: str | None = None,
        budget: Budget | None = None,
        output: type[T] | None = None,
        repairs: int = 1,
        approve: Approval | Asker | str | None = None,
        hooks: Hooks | None = None,
        conversations: Conversations | None = None,
        system: str = "",
    ) -> None:
        """Raises UsageError for a tool, a format, a strategy or a rule that does not exist, and for
        a strategy with what only a single attempt can have.
        """
        super().__init__()
        self.model = model
        self.tools = [as_tool(one) for one in tools]
        self.settings: AgentSettings[T] = AgentSettings(
            budget=budget or Budget(),
            approval=_approval(approve),
            hooks=hooks or Hooks(),
            schema=None if output is None else OutputSchema(output),
            repairs=repairs,
            store=conversations,
            tools=tuple(
                given if isinstance(given, str) else tool.name
                for given, tool in zip(tools, self.tools, strict=True)
            ),
        )
        if strategy is not None and (output, approve, hooks, conversations) != (None,) * 4:
            raise UsageError(
                "a strategy makes several attempts at once: it goes without approvals, hooks, a "
                "type of output and kept conversations"
            )
        self.format = find_format(format) if isinstance(format, str) else format
        self.system = system
        self.limits = limits or Limits()
        if isinstance(strategy, str):
            find_strategy(strategy)
        self.strategy = strategy
        self.sampling = sampling or Sampling(temperature=0.0 if strategy is None else 1.0)
        if isinstance(model, str):
            check_engine(model, engine, tokenizer, engine_options)
        self._load_engine = partial(
            load_engine, device=device, engine=engine, tokenizer=tokenizer, options=engine_options
        )
        self.engine: Engine | None = None
        """The engine, once it is loaded."""
        self._policy: LazyResource[Policy] | None = None
        self.keeps_tools = False
        """Whether what the tools start once is kept from question to question."""
        self._started: dict[asyncio.AbstractEventLoop, _StartedTools] = {}

    def __repr__(self) -> str:
        model = getattr(self.model, "name", self.model)
        return f"<Agent {model}: tools={[tool.name for tool in self.tools]}>"

    # -- async ----------------------------------------------------------------------------------

    async def run(self, question: Question) -> Result[T]:
        """Answer one question; never raises for what the model or a tool did.

        A call that needs an approval, where `approve` names nobody to ask, is not run. Raises
        UsageError for messages that can't be read (`messages.py`), ModelError or MissingExtra where
        the model can't be loaded, and ToolUnavailable where a tool can't start on this machine.
        """
        asked, messages = read_question(question)
        if self.strategy is not None:
            deciding = await self._deciding(question, self.strategy)
            try:
                return await deciding.ask(asked)
            finally:
                self.last = deciding.last
        async with self.conversation(messages=messages) as conversation:
            try:
                return await conversation.ask(asked)
            finally:
                self.last = conversation.last

    def stream(self, question: Question) -> AgentRun[T]:
        """Stream the events of an answer as they happen, ending with `Done` and the result.

        If an approval is needed, `ApprovalAsked` comes and the answer waits for the decision.
        `AgentRun.cancel` stops the answer; so does leaving, closing or dropping the stream, or
        cancelling the task that reads it. The partial result is then `last`. Raises as `run` does.
        """
        return AgentRun(partial(self._answer, question))

    async def _answer(self, question: Question, feed: AnswerFeed[T]) -> None:
        asked, messages = read_question(question)
        if self.strategy is not None:
            deciding = await self._deciding(question, self.strategy)
            try:
                await feed.until_stopped(deciding.ask(asked))
            finally:
                self.last = deciding.last
            if deciding.last is not None:
                feed.emit(Done(deciding.last))
            return
        async with self.conversation(messages=messages) as conversation:
            try:
                await conversation.answer(asked, feed)
            finally:
                self.last = conversation.last

    async def _deciding(self, question: Question, strategy: str | Strategy) -> StrategyRun:
        if not isinstance(question, str):
            raise UsageError("a strategy answers a question, not a list of messages: give a text")
        policy = await self.policy()
        if isinstance(strategy, str):
            strategy = find_strategy(strategy, classes=classes_of(policy))
        if self.keeps_tools:
            await self.start_tools()
        return StrategyRun(policy, strategy, self.settings.budget)

    @asynccontextmanager
    async def conversation(
        self,
        *,
        resume: str | None = None,
        after: Conversation[T] | None = None,
        messages: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Conversation[T]]:
        """A conversation: questions that share one context and the tools' state.

        `resume` is the id of a kept conversation: its messages are restored, but the tools start
        afresh, and it keeps its system prompt. `after` is an earlier conversation, perhaps with
        another model: the new one begins with its messages. `messages` are earlier ones as chat
        APIs have them. Neither goes with `resume`. Raises as `run` does, and UsageError if the
        conversation to be resumed was with another model.
        """
        if resume is not None and (after is not None or messages):
            raise UsageError("a resumed conversation has its own messages: give it no others")
        system, earlier = read_messages(messages)
        policy = await self.policy()
        if self.keeps_tools:
            await self.start_tools()
        if resume is not None and self.settings.store is None:
            raise UsageError("an agent resumes what it keeps: Agent(conversations=Conversations())")
        store = self.settings.store
        saved = store.load(resume) if store is not None and resume is not None else None
        if not self.tools and self.format is None and not self._trained:
            policy = policy.in_words()  # nothing to call: a chat as the model knows it
        if saved is not None:
            policy = policy.with_system(saved.system)
        elif system:
            policy = policy.with_system("\n\n".join(filter(None, (self.system, system))))
        if after is not None:
            earlier = (*after.messages, *earlier)
        async with Conversation(
            policy, self.settings, saved=saved, messages=earlier
        ) as conversation:
            yield conversation

    @property
    def _trained(self) -> bool:
        """True for a model that was trained in a format here, and for an engine object."""
        return not isinstance(self.model, str) or bool(trained_formats(self.model))

    async def policy(self) -> Policy:
        """The model, loaded, with its format, tools and limits: what the runner rolls out."""
        with self._lock:
            if self._policy is None or self._policy.failed:
                self._policy = LazyResource(self._load, self._free)
            making = self._policy
        return await making.wait()

    def _load(self) -> Policy:
        engine = self.model
        if isinstance(engine, str):
            engine = self._load_engine(engine)
        self.engine = engine
        format = self.format or find_format(
            default_format(engine.name, engine.tokenizer, self.tools)
        )
        return Policy(
            engine,
            format,
            self.tools,
            sampling=self.sampling,
            limits=self.limits,
            system=self.system,
        )

    @property
    def early_settings(self) -> dict[str, Any]:
        """The settings of rolled out episodes that are known before the model is loaded."""
        sampling = asdict(self.sampling)
        del sampling["seed"]  # each episode has its own
        known = {"model": getattr(self.model, "name", self.model), "sampling": sampling}
        known |= {"limits": asdict(self.limits)} | ({"system": self.system} if self.system else {})
        return known if self.format is None else known | {"format": self.format.name}

    async def rollout_plan(self) -> RolloutPlan:
        """How a `Runner` rolls the agent out: its policy, with its strategy. Raises as `run`."""
        policy = await self.policy()
        if self.keeps_tools:
            await self.start_tools()
        return RolloutPlan(policy, strategy=self.strategy)

    async def start_tools(self) -> None:
        """Start what the tools' sessions share and keep it until `aclose`, for this event loop.

        Without it, or outside of the agent's context, each conversation starts it for itself.
        Raises ToolUnavailable.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            for ended in [each for each in self._started if each.is_closed()]:
                del self._started[ended]
            started = self._started.setdefault(loop, _StartedTools())
        async with started.lock:
            if started.stack is None:
                async with AsyncExitStack() as stack:
                    for tool in self.tools:
                        if isinstance(tool, AbstractAsyncContextManager):
                            await stack.enter_async_context(tool)
                    started.stack = stack.pop_all()

    def _free(self, policy: Policy) -> None:
        if isinstance(self.model, str):
            asyncio.run(policy.engine.aclose())

    async def aclose(self) -> None:
        """Free the tools and the model, also one that is still being loaded, as soon as it is
        there. The agent starts and loads them again if it is asked again.
        """
        with self._lock:
            tools, self._started = self._started, {}
            making, self._policy = self._policy, None
        here = asyncio.get_running_loop()
        for loop, started in tools.items():
            if loop is here:
                await started.aclose()
            elif loop.is_running():  # in another thread
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(started.aclose(), loop))
        if making is None:
            return
        policy = making.give_up(UsageError("the agent was closed while its model was loaded"))
        if policy is not None and isinstance(self.model, str):
            await policy.engine.aclose()

    def after_fork(self) -> None:
        """Start again in a forked process; a model that is still being loaded is loaded again."""
        super().after_fork()
        self._parents = self._started, self._policy  # as they were: nothing of them is closed here
        self._started = {}
        if self._policy is not None and not self._policy.ready:
            self._policy = None

    def _hold(self, kept: bool) -> None:
        self.keeps_tools = kept


@dataclass(slots=True)
class _StartedTools:
    """Everything that an agent's tools have started in one event loop."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stack: AsyncExitStack | None = None

    async def aclose(self) -> None:
        async with self.lock:
            stack, self.stack = self.stack, None
            if stack is not None:
                await stack.aclose()


def _approval(approve: Approval | Asker | str | None) -> Approval | None:
    if approve is None or isinstance(approve, Approval):
        return approve
    return Approval(approve) if isinstance(approve, str) else Approval(ask=approve)

"""A team: a CEO that sizes it, steers it and stops it, and experts with an agent's tools."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from typing_extensions import TypeVar

from ...rollout.budget import Budget
from ...rollout.many.runner import Open, Runner
from ...rollout.policy import Policy
from ...rollout.rollable import RolloutPlan
from ...rollout.task import Task
from ...rollout.trajectory import Episode
from ...tools import PythonTool, Tool
from ...tools.errors import MissingExtra, UsageError
from ..agent import Agent
from ..call_policy import CallPolicy
from ..events import AgentEvent, ApprovalAsked, BudgetLeft, Done, Spoken
from ..messages import Question
from ..output import OutputSchema
from ..result import Result
from ..run import AgentRun, Answerer, AnswerFeed
from .calls import TeamCalls, standalone_rollout
from .embed import node_graph, tell_graph
from .execute import Check, call_check, run_tests
from .graph import Graph
from .record import TeamRecord, to_result
from .roles import FIXED, PAPER
from .runs import Runs, SavedRun
from .state import State, TeamAnswer, TeamPlan, opening

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

__all__ = ["Team"]

T = TypeVar("T", default=None)
S = TypeVar("S", default=None)


class Team(Answerer[T]):
    """A CEO and its experts. It answers as an `Agent` does, and is rolled out as one.

    Build one with `Team.ceo`. Close it when done, or use it as a context manager: its agent's model
    and tools go with it.

    Example:
        with Team.ceo(Agent("Qwen/Qwen3-8B"), max_experts=4, rounds=2) as team:
            print(team.run_sync("How many primes are below 1000?").answer)
    """

    def __init__(
        self,
        agent: Agent[Any],
        plan: TeamPlan,
        *,
        executor: Literal["code"] | Check | None = None,
        budget: Budget | None = None,
        runs: Runs | None = None,
        schema: OutputSchema[T] | None = None,
        repairs: int = 1,
    ) -> None:
        super().__init__()
        self._schema = schema
        self._repairs = repairs
        self.agent = agent
        self.plan = plan
        self.budget = budget or agent.settings.budget
        self.runs = runs
        execute = None
        if executor is not None:
            tool = next((t for t in agent.tools if isinstance(t, PythonTool)), None)
            execute = (
                run_tests(tool or PythonTool()) if executor == "code" else call_check(executor)
            )
        self._executor = getattr(executor, "__qualname__", None if executor is None else "code")
        self._flying: dict[str, TeamCalls] = {}
        self._build = Graph(
            plan, lambda state: self._flying[state["run"]], self._finish, execute
        ).build

    @classmethod
    def ceo(
        cls,
        agent: Agent[Any],
        *,
        max_experts: int = 4,
        rounds: int = 2,
        critiques: int = 3,
        tokens: tuple[int, int] | None = None,
        compat: Literal["paper"] | None = None,
        executor: Literal["code"] | Check | None = None,
        budget: Budget | None = None,
        runs: Runs | str | None = None,
        output: type[S] | None = None,
        repairs: int = 1,
    ) -> "Team[S]":
        """A team whose experts are such agents: its model, tools, format, limits and approvals.

        A round has at most `critiques` turns of critics. `tokens` are the least and the most that
        the CEO may give an expert for one answer (default: up to the agent's limit; in
        `compat="paper"` 2048 to 32000). With compat="paper" it does what the released code does,
        by default what the paper means: see docs/team.md. `executor` runs plans: "code" has tests
        written and runs them in the sandbox; a function is given the question and the solution.
        The `budget` (default: the agent's) is shared by all, and never overrun. In `runs`, a file,
        every finished call is kept, and `resume` continues a run that was cut short. `output` is a
        type: the answer is read as that (`Result.output`), and where it does not fit the solver is
        told why and may try again, `repairs` times; rollouts do without.

        Raises UsageError for sizes that make no team, and DataError for a file that can't be used.
        """
        if max_experts < 2 or rounds < 1 or critiques < 0:
            raise UsageError(
                "a team has two experts or more, one round or more and no negative number of "
                f"critiques, not {max_experts}, {rounds} and {critiques}"
            )
        most = agent.limits.max_tokens
        least, most = tokens or ((2048, 32000) if compat else (max(1, most // 16), most))
        if not 1 <= least <= most:
            raise UsageError(f"tokens are the least and the most, such as (256, 4096): {tokens!r}")
        if agent.strategy is not None or agent.settings.schema is not None:
            raise UsageError("the experts of a team go without a strategy and a type of output")
        rules = PAPER if compat == "paper" else FIXED
        plan = TeamPlan(rules, max_experts, rounds, critiques, (least, most))
        kept = Runs(runs) if isinstance(runs, str) else runs
        schema = None if output is None else OutputSchema(output)
        return Team(
            agent,
            plan,
            executor=executor,
            budget=budget,
            runs=kept,
            schema=schema,
            repairs=repairs,
        )

    def __repr__(self) -> str:
        return f"<Team of {self.agent!r}: up to {self.plan.max_experts} experts>"

    # -- answering ------------------------------------------------------------------------------

    async def run(self, question: Question) -> Result[T]:
        """Answer one question; never raises for what the model or a tool did.

        The result's episode holds a trajectory for each call (`read_rounds` reads it); `text` and
        `answer` are those of the last plan, the usage is that of all. Raises as `Agent.run` does.
        """
        async with self.stream(question) as run:
            async for _ in run:
                pass
        assert run.result is not None
        return run.result

    def stream(self, question: Question) -> AgentRun[T]:
        """The events as they happen, then `Done` with the result; as `Agent.stream`.

        `AgentRun.cancel(after="turn")` lets speaking roles finish their turn.
        """
        if not isinstance(question, str):
            raise UsageError("a team answers a question, not a list of messages: give a text")
        return AgentRun(partial(self._stream, question, None))

    def unfinished(self) -> list[SavedRun]:
        """The runs that `resume` continues, the latest first: nobody is at work on them, and the
        team is not done (accepted, stopped, rounds). Raises UsageError.
        """
        return [run for run in self._kept().all() if run.resumable]

    def resume(self, id: str) -> AgentRun[T]:
        """Go on with a run that was killed or cancelled, or ended with budget or infrastructure, at
        the call that was not finished.

        Raises DataError if there is none; UsageError where it is another team's, the team is done,
        or somebody is at work on it.
        """
        saved = self._kept().load(id)
        if not saved.resumable:
            why = "is still under way" if saved.alive else f"has ended ({saved.ended})"
            raise UsageError(f"the run {id} {why}")
        return AgentRun(partial(self._stream, saved.question, saved))

    async def forget(self, id: str) -> None:
        """Keep nothing more of a run. Raises UsageError where none are kept, or somebody is at work
        on it, and DataError.
        """
        await asyncio.to_thread(self._kept().delete, id)

    def _kept(self) -> Runs:
        if self.runs is None:
            raise UsageError('a team resumes what it keeps: Team.ceo(agent, runs="team.db")')
        return self.runs

    async def _stream(self, question: str, saved: SavedRun | None, feed: AnswerFeed[T]) -> None:
        policy = await self.agent.policy()
        if self.agent.keeps_tools:
            await self.agent.start_tools()
        hooks = self.agent.settings.hooks

        def tell(event: AgentEvent[Any]) -> bool:
            feed.emit(event)
            (hooks.hear if isinstance(event, Spoken | ApprovalAsked) else hooks.hear_end)(event)
            return True

        id = uuid.uuid4().hex[:12] if saved is None else saved.id
        calls = await self._begin(Task(id, question), saved, policy, tell)
        try:
            await feed.until_stopped(self._go(calls, id), calls.stop_after_turn)
        finally:
            del self._flying[id]
            self.last = result = self._result(calls)
        if self.budget.bounded:
            tell(BudgetLeft(self.budget.left))
        tell(Done(result))

    async def _begin(
        self,
        task: Task,
        saved: SavedRun | None,
        policy: Policy,
        tell: Callable[[AgentEvent[Any]], bool],
    ) -> TeamCalls:
        """A run that begins, or continues. Raises UsageError for another team's."""
        made = json.dumps(self._made(policy))
        if saved is not None:
            saved.refuse_other(made)
        if self.runs is not None:
            if saved is None:
                await asyncio.to_thread(self.runs.begin, task.id, task.question, made)
            else:
                await asyncio.to_thread(self.runs.claim, saved.id)
        calls = self._calls(task, policy, tell)
        if saved is not None:
            calls.record.episode.started = saved.started
            calls.take_up(saved.calls)
        self._flying[task.id] = calls
        return calls

    def _calls(
        self, task: Task, policy: Policy, tell: Callable[[AgentEvent[Any]], bool]
    ) -> TeamCalls:
        episode = Episode(task.id, task, task.id, 0, seed=policy.sampling.seed)
        episode.started = time.time()
        episode.settings = {**policy.settings, **self.settings}
        terms = self.agent.settings
        open = partial(
            standalone_rollout,
            call_gate=CallPolicy(terms.approval, terms.hooks, tell),
            budget=self.budget,
        )
        record = TeamRecord(episode, self.runs)
        calls = TeamCalls(policy, self.plan.rules, open, record, self.budget, tell)
        calls.schema, calls.repairs = self._schema, self._repairs
        return calls

    async def _go(self, calls: TeamCalls, run: str, checkpointer: Any = False) -> State:
        """Go through the graph, to its end or until this is cancelled; its last state."""
        try:
            graph = self._build().compile(checkpointer=checkpointer, name="team")
        except ImportError as error:
            raise MissingExtra("a team", "team") from error
        first = opening(run, calls.record.episode.task.question)
        async with nullcontext() if calls.record.runs is None else calls.record.runs.held(run):
            steps = self.plan.most_steps + self._repairs
            return cast(State, await graph.ainvoke(first, {"recursion_limit": steps}))

    def _made(self, policy: Policy) -> dict[str, Any]:
        """Settings that must match to resume a run."""
        output = None if self._schema is None else self._schema.json_schema
        made = {**asdict(self.plan), "output": output, "executor": self._executor}
        return policy.settings | made

    def _result(self, calls: TeamCalls) -> Result[T]:
        """The run's result, with the answer as the type that was asked for, if any."""
        result: Result[Any] = to_result(calls.record, calls.policy)
        if calls.schema is None:
            return result
        output, problem = calls.schema.check(result.answer)
        return replace(result, output=output, output_problem=problem)

    # -- in other graphs ------------------------------------------------------------------------

    def graph(self, *, checkpointer: Any = None) -> "CompiledStateGraph[Any, Any, Any, Any]":
        """The team as a compiled graph, a node for others: in goes a `question`, out come `answer`,
        `solution` and `why`; no other key of the state around it is read or written.

        What the members say is streamed as custom events (`subgraphs=True`), calls that need an
        approval are not run, and `last` is the result. It has its own recursion limit. A failure of
        the engine is raised (EngineError), so that the other graph may try again. Raises
        MissingExtra, and when asked UsageError for a question that is no text.
        """
        try:
            graph = node_graph(self._answer, self.wait)
        except ImportError as error:
            raise MissingExtra("a team", "team") from error
        return graph.compile(checkpointer=checkpointer, name="team")

    async def _answer(self, run: str, question: str) -> TeamAnswer:
        """Answer a question of another graph, whose checkpointer keeps our steps too."""
        policy = await self.agent.policy()
        saved = None if self.runs is None else await asyncio.to_thread(self.runs.find, run)
        calls = await self._begin(Task(run, question), saved, policy, tell_graph)
        calls.embedded = True
        try:
            state = await self._go(calls, run, None)
        finally:
            del self._flying[run]
            self.last = self._result(calls)
        return TeamAnswer(answer=state["answer"], solution=state["solution"], why=state["why"])

    async def _finish(self, state: State) -> None:
        """The run is over: its record is put in order."""
        await self._flying[state["run"]].record.close(state["plan"], state["why"])

    # -- rolling out ----------------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, Any]:
        """The team's plan without its agent, as kept in records."""
        return {"team": asdict(self.plan)}

    @property
    def early_settings(self) -> dict[str, Any]:
        """The settings of rolled out episodes that are known before the model is loaded."""
        return self.agent.early_settings | self.settings

    async def rollout_plan(self) -> RolloutPlan:
        """How a `Runner` rolls the team out. Raises as `run` does."""
        plan = await self.agent.rollout_plan()
        return replace(plan, attempt=self.attempt, settings=self.settings)

    async def attempt(self, episode: Episode, policy: Policy, open: Open) -> None:
        """Make one episode: what a `Runner`, and so a trainer, rolls out (`Runner(attempt=...)`).

        Each call of a role is a trajectory; that of the last plan stands last. No checkpoints.
        """
        calls = TeamCalls(
            policy, self.plan.rules, open, TeamRecord(episode), self.budget, lambda event: False
        )
        episode.settings |= self.settings
        run = f"{episode.id}@{uuid.uuid4().hex}"
        self._flying[run] = calls
        try:
            await self._go(calls, run)
        finally:
            del self._flying[run]
            calls.record.finalize()

    async def rollout(
        self,
        tasks: Iterable[Task],
        n: int = 1,
        *,
        seed: int | None = None,
        concurrency: int = 16,
        tools_for: Callable[[Task], Sequence[Tool]] | None = None,
    ) -> AsyncGenerator[Episode, None]:
        """Yield `n` episodes of each task as they finish, `concurrency` calls at a time.

        The rules are `Runner.run`'s. Approvals and hooks are left out, as in any rollout.
        """
        policy = await self.agent.policy()
        if self.agent.keeps_tools:
            await self.agent.start_tools()
        runner = Runner(
            policy,
            tools_for=tools_for,
            concurrency=concurrency,
            attempt=self.attempt,
            budget=self.budget,
        )
        async with aclosing(runner.run(tasks, n=n, seed=seed)) as episodes:
            async for episode in episodes:
                yield episode

    # -- its agent ------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Free the agent's tools and model. The team loads them again if it is asked again."""
        await self.agent.aclose()

    def _hold(self, kept: bool) -> None:
        self.agent.keeps_tools = kept

"""A team: a CEO that sizes it, steers it and stops it, and experts with an agent's tools."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

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
from ..events import AgentEvent, BudgetLeft, Done
from ..output import OutputSchema
from ..result import Result
from ..run import AgentRun, Answerer
from .calls import TeamCalls, standalone_rollout
from .embed import saver, tell_graph
from .execute import Check, call_check, run_tests
from .graph import Graph
from .record import TeamRecord, to_result
from .roles import FIXED, PAPER
from .runs import Runs, SavedRun
from .state import State, TeamPlan, opening

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
        self._flying: dict[str, TeamCalls] = {}
        self._build = Graph(plan, self._find, self._finish, execute).build

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
        every finished step is kept, and `resume` continues a run that was killed. `output` is a
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

    # -- answering ------------------------------------------------------------------------------

    async def run(self, question: str) -> Result[T]:
        """Answer one question; never raises for what the model or a tool did.

        The result's episode holds a trajectory for each call (`read_rounds` reads it); `text` and
        `answer` are those of the last plan, the usage is that of all. Raises as `Agent.run` does.
        """
        async with aclosing(self.stream(question)) as run:
            async for _ in run:
                pass
        assert run.result is not None
        return run.result

    def stream(self, question: str) -> AgentRun[T]:
        """The events as they happen, then `Done` with the result; as `Agent.stream`.

        `AgentRun.cancel(after="turn")` lets speaking roles finish their turn.
        """
        return AgentRun(partial(self._events, question, None))

    def unfinished(self) -> list[SavedRun]:
        """The runs that were begun and have not ended, the latest first. Raises UsageError."""
        return [run for run in self._kept().all() if run.ended is None]

    def resume(self, id: str) -> AgentRun[T]:
        """Go on with a run that was killed, at the step that was not finished.

        Raises DataError if there is none, UsageError where it is another team's or has ended.
        """
        saved = self._kept().load(id)
        if saved.ended is not None:
            raise UsageError(f"the run {id} has ended ({saved.ended})")
        return AgentRun(partial(self._events, saved.question, saved))

    async def forget(self, id: str) -> None:
        """Keep nothing more of a run. Raises UsageError where none are kept, DataError."""
        runs = self._kept()
        async with saver(runs.path) as kept:
            await kept.setup()
            await kept.adelete_thread(id)
        runs.delete(id)

    def _kept(self) -> Runs:
        if self.runs is None:
            raise UsageError('a team resumes what it keeps: Team.ceo(agent, runs="team.db")')
        return self.runs

    async def _events(
        self, question: str, saved: SavedRun | None, run: AgentRun[T]
    ) -> AsyncGenerator[AgentEvent[T], None]:
        policy = await self.agent.policy()
        if self.agent.keeps_tools:
            await self.agent.start_tools()
        hooks = self.agent.settings.hooks

        def tell(event: AgentEvent[Any]) -> bool:
            run.emit(event)
            if hooks.event is not None:
                hooks.event(event)
            return True

        id = uuid.uuid4().hex[:12] if saved is None else saved.id
        calls = self._begin(Task(id, question), saved, policy, tell)
        answering = run.follow(self._go(calls, fresh=saved is None), calls.stop_after_turn)
        try:
            async with aclosing(answering) as events:
                async for event in events:
                    yield event
        finally:
            self._flying.pop(calls.record.episode.id, None)
            self.last = self._result(calls)
        ends: list[AgentEvent[T]] = [Done(self.last)]
        if self.budget.bounded:
            ends.insert(0, BudgetLeft(self.budget.left))
        for event in ends:
            if hooks.event is not None:
                hooks.event(event)
            yield event

    def _begin(
        self,
        task: Task,
        saved: SavedRun | None,
        policy: Policy,
        tell: Callable[[AgentEvent[Any]], bool],
    ) -> TeamCalls:
        """A run that begins, or continues. Raises UsageError for another team's."""
        made = json.dumps(self._made(policy))
        if saved is None:
            if self.runs is not None:
                self.runs.begin(task.id, task.question, made)
        else:
            saved.refuse_other(made)
        calls = self._calls(task, policy, tell)
        if saved is not None:
            calls.record.episode.started = saved.started
            calls.record.take_up(saved.calls)
            for trajectory in saved.calls:  # what was spent before is spent
                self.budget.release(0, trajectory.sampled_tokens)
                for _ in trajectory.calls:
                    self.budget.take_call()
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

    async def _go(self, calls: TeamCalls, *, fresh: bool) -> None:
        """Go through the graph, to its end or until this is cancelled."""
        episode = calls.record.episode
        config = self._config(episode.id)
        first = opening(episode.id, episode.task.question)
        if self.runs is None:
            await self.graph().ainvoke(first, config)
            return
        async with saver(self.runs.path) as kept:
            begun = not fresh and await kept.aget(config) is not None
            graph = self.graph(checkpointer=kept)
            await graph.ainvoke(None if begun else first, config, durability="sync")

    def _made(self, policy: Policy) -> dict[str, Any]:
        """Settings that must match to resume a run."""
        output = None if self._schema is None else self._schema.json_schema
        model = {"model": policy.engine.name, "format": policy.format.name}
        return {**model, **asdict(self.plan), "output": output}

    def _result(self, calls: TeamCalls) -> Result[T]:
        """The run's result, with the answer as the type that was asked for, if any."""
        result: Result[Any] = to_result(calls.record, calls.policy)
        if calls.schema is None:
            return result
        output, problem = calls.schema.check(result.answer)
        return replace(result, output=output, output_problem=problem)

    def _config(self, id: str) -> Any:
        steps = self.plan.most_steps + self._repairs
        return {"configurable": {"thread_id": id}, "recursion_limit": steps}

    # -- the graph ------------------------------------------------------------------------------

    def graph(self, *, checkpointer: Any = None) -> "CompiledStateGraph[Any, Any, Any, Any]":
        """The graph, compiled: a node for other graphs, whose state has a `question` and wants its
        `answer`, `solution` or `why`. What the members say is streamed as custom events there,
        calls that need an approval are not run, and `last` is the result. Raises MissingExtra.
        """
        try:
            built = self._build()
        except ImportError as error:
            raise MissingExtra("a team", "team") from error
        return built.compile(checkpointer=checkpointer, name="team")

    async def _find(self, state: State) -> TeamCalls:
        """The calls of a run; of one that another graph has begun, or continues with, made now."""
        id = state["run"]
        if id not in self._flying:
            policy = await self.agent.policy()
            if id not in self._flying:
                known = self.runs is not None and any(run.id == id for run in self.runs.all())
                saved = self.runs.load(id) if self.runs is not None and known else None
                task = Task(id, state["question"])
                self._begin(task, saved, policy, tell_graph)
        return self._flying[id]

    async def _finish(self, state: State) -> None:
        """The run is over: its record is put in order."""
        calls = await self._find(state)
        del self._flying[state["run"]]
        calls.record.close(state["plan"], state["why"])
        if calls.tell is tell_graph:
            self.last = self._result(calls)

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
            await self.graph().ainvoke(opening(run, episode.task.question), self._config(run))
        finally:
            self._flying.pop(run, None)
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

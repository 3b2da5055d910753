"""`interlace rollout`: many questions, several attempts at each, every token recorded."""

import asyncio
import dataclasses
import importlib.util
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from typing import Any

from pydantic_core import to_json

from ....rollout.episode_log import EpisodeLog, export_parquet, read_episodes
from ....rollout.many.runner import Runner
from ....rollout.policy import Policy
from ....rollout.task import Task
from ....rollout.trajectory import Episode
from ....tools.errors import MissingExtra, UsageError
from ....train.data.sources import find_tasks
from ....train.data.task_tools import TaskTools, bring_tools, check_tools
from ....train.evaluation.attempts import settle
from ....train.rewards import Checker
from ...agent import Agent
from ...team.team import Team
from ..answering import load, make_agent, warnings
from ..commands.rollout import RolloutOptions
from ..exits import Exit, eprint, print_json, run_to_end
from ..options import LimitOptions, ModelOptions, OutputOptions, TeamOptions
from ..render.live_view import Screen
from ..render.progress import Progress
from ..render.terminal import make_console
from ..resume import refuse_other, refuse_other_task
from ..teams import make_team

__all__ = ["rollout"]


def rollout(
    source: str,
    job: RolloutOptions,
    model: ModelOptions,
    limits: LimitOptions,
    team: TeamOptions,
    output: OutputOptions,
) -> int:
    """Roll out the tasks and return the exit code."""
    _check(job)
    tasks = find_tasks(source, databases=job.databases, tell=None if output.quiet else eprint)
    with Checker() as checker:
        for task in tasks:
            checker.name(task)  # raises if there is no such checker
    own = model.tool is None and bring_tools(tasks)
    if model.tool is None:
        check_tools(tasks)
    if own:  # the format is that of a model that can be told of any tool
        model = dataclasses.replace(model, tool=["none"], format=model.format or "hermes")
    agent = make_agent(model, limits, temperature=1.0)
    rolling = _Rollout(agent, job, output, own_tools=own)
    if team.team:
        rolling.team = make_team(agent, team)
    return run_to_end(rolling.run(tasks, model.seed))


def _check(job: RolloutOptions) -> None:
    """Find what would be in the way at the end before the work begins."""
    if job.parquet is not None and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("--parquet", "parquet")
    if job.out.is_file() and job.out.stat().st_size and not job.resume:
        raise UsageError(
            f"{job.out} is not empty: --resume completes it, another --out leaves it alone"
        )


class _Rollout:
    """One run of the command."""

    def __init__(
        self, agent: Agent, job: RolloutOptions, output: OutputOptions, *, own_tools: bool = False
    ) -> None:

        self.team: Team | None = None
        """Who answers, where it is not the agent alone."""
        self._agent = agent
        self._own_tools = own_tools  # tasks bring theirs
        self._job = job
        self._output = output
        self._console = make_console(sys.stderr)
        self._screen = Screen(self._console)
        self._asked: dict[str, Any] = {}  # what the episodes are made with, as far as it is known
        self._last: dict[str, _Line] = {}  # of each episode in the log, by its id
        self._new = self._tokens = 0
        self._seconds = 0.0
        self._figures: dict[str, Any] = {}
        self._error: str | None = None
        self._unjudged: Counter[str] = Counter()
        """How many episodes that are done have no verdict, by the reason."""

    async def run(self, tasks: list[Task], seed: int | None) -> Exit:

        quiet = self._output.quiet
        self._refuse_early(seed)
        async with self._agent:
            await load(self._agent, self._console, quiet=quiet)
            if not quiet:
                for warning in warnings(self._agent):
                    self._screen.say(warning, "notice")
            policy = await self._agent.policy()
            with EpisodeLog(self._job.out) as log:
                self._read_log(policy, tasks)
                try:
                    await self._run_all(policy, tasks, log)
                except asyncio.CancelledError:
                    self._say_how_to_resume(len(tasks) * self._job.n)
                    raise
        self._finish(len(tasks) * self._job.n)
        return Exit.UNAVAILABLE if self._error is not None else Exit.DONE

    async def _run_all(self, policy: Policy, tasks: list[Task], log: EpisodeLog) -> None:

        done = {id for id, line in self._last.items() if line.done}
        tools = TaskTools() if self._own_tools else None
        runner = Runner(
            policy,
            tools_for=tools,
            concurrency=self._job.concurrency,
            retries=self._job.retries,
            attempt=None if self.team is None else self.team.attempt,
        )
        total, seed = len(tasks) * self._job.n, self._asked["seed"]
        clock = time.perf_counter()
        hidden = self._output.quiet
        shown = Progress(self._console, total, hidden=hidden, traffic=runner.traffic)
        async with AsyncExitStack() as stack:
            if tools is not None:
                await stack.enter_async_context(tools)
            checker = stack.enter_context(Checker())
            stack.enter_context(shown)
            for id in done:
                shown.add(self._last[id].stop, 0)
            try:
                episodes = runner.run(tasks, n=self._job.n, seed=seed, skip=done)
                async with aclosing(episodes):
                    async for episode in episodes:
                        await asyncio.to_thread(self._judge, episode, checker)
                        self._record(episode, log, shown)
            finally:  # stopped early: what was in flight is kept too
                for episode in runner.interrupted:
                    self._record(episode, log, shown)
                self._seconds = time.perf_counter() - clock
                self._figures = runner.traffic.figures()

    def _judge(self, episode: Episode, checker: Checker) -> None:
        """Set `correct` as the task's checker has it, where somebody knows the answer."""
        if episode.task.answer is None and not {"answers", "gold"} & episode.task.data.keys():
            return
        try:
            why = settle(episode, checker)
        except MissingExtra as error:  # the episodes are worth keeping all the same
            why = str(error)
        if why is not None and _Line.of(episode).done:
            self._unjudged[why] += 1

    def _record(self, episode: Episode, log: EpisodeLog, shown: Progress) -> None:
        log.append(episode)
        tokens = sum(each.sampled_tokens for each in episode.trajectories)
        self._new += 1
        self._tokens += tokens
        self._last[episode.id] = line = _Line.of(episode)
        if line.stop == "infrastructure" and self._error is None:
            self._error = episode.error or "unknown"
        shown.add(line.stop, tokens)

    def _refuse_early(self, seed: int | None) -> None:
        """Look at the log's first record before the model is loaded for nothing."""
        agent = self._agent
        self._asked = {
            "model": str(agent.model),
            "format": None if agent.format is None else agent.format.name,
            "sampling": asdict(agent.sampling),
            "limits": asdict(agent.limits),
            "n": self._job.n,
            "seed": seed,
        }
        first = next(read_episodes(self._job.out), None) if self._job.out.is_file() else None
        if first is not None:
            refuse_other(self._job.out, first, self._asked)

    def _read_log(self, policy: Policy, tasks: list[Task]) -> None:
        """Learn what the log holds already. Raises UsageError where another command wrote it."""
        self._asked |= policy.settings
        asked = {task.id: task for task in tasks}
        for episode in read_episodes(self._job.out):
            refuse_other_task(self._job.out, episode, asked.get(episode.group))
            refuse_other(self._job.out, episode, self._asked)
            self._refuse_other_team(episode)
            if self._asked["seed"] is None:  # what completes a run goes on with its seed
                self._asked["seed"] = episode.settings.get("seed")
            self._last[episode.id] = _Line.of(episode)
        if self._asked["seed"] is None:  # each episode records the seed it was sampled with
            self._asked["seed"] = secrets.randbits(32)

    def _refuse_other_team(self, episode: Episode) -> None:

        now = {} if self.team is None else self.team.settings
        was = {name: value for name, value in episode.settings.items() if name == "team"}
        if to_json(now) != to_json(was):
            raise UsageError(
                f"{self._job.out} was written {'with another' if was else 'without a'} team: "
                "resume it with the same, or name another --out"
            )

    def _finish(self, total: int) -> None:
        if self._job.parquet is not None:
            export_parquet(self._last_episodes(), self._job.parquet)
        if self._output.json:
            print_json(self._summary(total))
        if self._error is not None:
            self._screen.say(
                f"{sum(line.stop == 'infrastructure' for line in self._last.values())} episodes "
                f"failed on our side ({self._error}); --resume runs them again",
                "error",
            )
        for why, count in self._unjudged.items():
            self._screen.say(f"{count} episodes are not judged: {why}", "notice")
        if not self._output.quiet:
            self._screen.say(self._summary_line(), "words")

    def _last_episodes(self) -> Iterator[Episode]:
        """The log's episodes; of those that were run again, the last record."""
        last: dict[str, Episode] = {}
        for episode in read_episodes(self._job.out):
            last.pop(episode.id, None)
            last[episode.id] = episode
        return iter(last.values())

    def _stops(self) -> dict[str, int]:
        return dict(Counter(line.stop for line in self._last.values()).most_common())

    def _summary(self, total: int) -> dict[str, Any]:
        judged = [line.correct for line in self._last.values() if line.correct is not None]
        return {
            "out": str(self._job.out),
            "episodes": len(self._last),
            "expected": total,
            "new": self._new,
            "stops": self._stops(),
            "correct": sum(judged) / len(judged) if judged else None,
            "tokens": self._tokens,
            "seconds": round(self._seconds, 3),
            "metrics": self._figures,
            "error": self._error,
        }

    def _summary_line(self) -> str:
        stops = ", ".join(f"{count} {stop}" for stop, count in self._stops().items())
        parts = [f"{len(self._last)} episodes in {self._job.out} ({self._new} new): {stops}"]
        judged = [line.correct for line in self._last.values() if line.correct is not None]
        if judged:
            parts.append(f"{100 * sum(judged) / len(judged):.1f} % correct")
        if self._tokens:
            parts.append(f"{self._tokens} tokens")
            parts.append(f"{self._tokens / self._seconds:.0f} tokens/s")
        parts.append(f"{self._seconds:.1f} s")
        return " · ".join(parts)

    def _say_how_to_resume(self, total: int) -> None:
        done = sum(line.done for line in self._last.values())
        self._screen.say(
            f"stopped: {done} of {total} episodes are done, {self._job.out} has them; the same "
            "command with --resume goes on",
            "notice",
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """An episode in the log, in short."""

    stop: str
    correct: float | None

    @classmethod
    def of(cls, episode: Episode) -> "_Line":
        stop = episode.stop.value if episode.stop else "cancelled"
        return cls(stop, episode.rewards.get("correct"))

    @property
    def done(self) -> bool:
        """True if it need not run again."""
        return self.stop not in ("cancelled", "infrastructure")

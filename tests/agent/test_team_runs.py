"""Runs of teams on disk: many at once, one owner each, resumed however they ended, paid once."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from support.fakes import answer, code
from support.teams import Cast, cast, team, verdict

from interlace import Budget, Limits, PythonTool, Sampling, Team
from interlace.agent import Done, Result, Spoken, read_rounds
from interlace.agent.team.runs import Runs
from interlace.rollout.engines import EngineError
from interlace.rollout.trajectory import StopReason
from interlace.tools.errors import DataError, UsageError


async def resumed(made: Team[Any], id: str) -> Result[Any]:
    *_, last = [event async for event in made.resume(id)]
    assert isinstance(last, Done)
    return last.result


async def cancelled_at(made: Team[Any], role: str, after: Any = "token") -> Result[Any]:
    """A run that is cancelled when this role first speaks."""
    async with aclosing(made.stream("What?")) as run:
        async for event in run:
            if isinstance(event, Spoken) and event.speaker.role == role:
                run.cancel(after=after)
    assert run.result is not None
    return run.result


def usage(result: Result[Any]) -> int:
    return sum(t.sampled_tokens for t in result.episode.trajectories)


def test_many_runs_of_several_teams_share_a_file_and_the_loop_never_stands_still(
    tmp_path: Path,
) -> None:
    file = tmp_path / "t.db"
    teams = [team(cast(), runs=str(file)) for _ in range(2)]

    async def go() -> list[Result[None]]:
        longest, last = 0.0, time.monotonic()

        async def beat() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()

        beating = asyncio.create_task(beat())
        results = await asyncio.gather(*(made.run(f"{n}?") for n in range(4) for made in teams))
        beating.cancel()
        assert longest < 5, "a writer that waits for another, waits in a thread"
        return results

    results = asyncio.run(go())
    assert [result.answer for result in results] == ["42"] * 8
    assert sorted(r.question for r in results) == sorted(f"{n}?" for n in range(4) for _ in teams)
    kept = Runs(file).all()
    assert [run.ended for run in kept] == ["accepted"] * 8
    assert not any(run.alive for run in kept)
    with closing(sqlite3.connect(file)) as db:
        tables = {name for (name,) in db.execute("select name from sqlite_master")}
        assert not {"checkpoints", "writes"} & tables, "calls are kept once"


BROKEN = EngineError("the server restarts")


@pytest.mark.parametrize(
    ("role", "end"),
    [
        (role, end)
        for role in ("ceo", "recruiter", "solver", "critic", "evaluator")
        for end in ("infrastructure", "token", "turn")
        if (role, end) != ("evaluator", "turn")  # with that turn the run is accepted
    ],
)
def test_a_run_that_ended_in_any_call_is_resumed_in_that_call(
    tmp_path: Path, role: str, end: Any
) -> None:
    fails = {role: [BROKEN, *cast()._left[role]]} if end == "infrastructure" else {}
    budget, engine = Budget(tokens=100_000), cast(fails, delay=0.0005)
    made = team(engine, runs=str(tmp_path / "t.db"), budget=budget)

    async def go() -> tuple[Result[Any], Result[Any]]:
        first = await (cancelled_at(made, role, end) if not fails else made.run("What?"))
        (saved,) = made.unfinished()
        engine.order.clear()
        return first, await resumed(made, saved.id)

    first, again = asyncio.run(go())
    order = ["ceo", "recruiter", "solver", "critic", "evaluator"]
    assert first.stop is (StopReason.INFRASTRUCTURE if fails else StopReason.CANCELLED)
    begun = order.index(role) + (end == "turn")  # that turn was finished
    assert engine.order == order[begun:], "what was said is not said again"
    assert again.answer == "42" and made.unfinished() == []
    # What is spent is the usage of the result, and what the call that was cut off had sampled.
    (cut,) = (t for t in first.episode.trajectories if t.speaker.role == role)
    assert (cut.sampled_tokens > 0) is not bool(fails)
    lost = 0 if end == "turn" else cut.sampled_tokens
    assert budget.spent.tokens == usage(again) + lost


def test_tests_of_the_first_round_serve_a_resumed_run_too(tmp_path: Path) -> None:
    plan = "```python\ndef f(): return 42\n```"
    engine = cast({"solver": [plan], "evaluator": [verdict(0), BROKEN, verdict(1)]})
    made = team(
        engine, {"tools": [PythonTool()]}, runs=str(tmp_path / "t.db"), executor="code", rounds=3
    )

    async def go() -> Result[Any]:
        await made.run("What?")
        return await resumed(made, made.unfinished()[0].id)

    rounds = read_rounds(asyncio.run(go()).episode)
    assert [round.correct for round in rounds] == [False, True]
    assert engine.order.count("executor") == 1


def test_a_budget_that_was_spent_is_raised_and_the_run_goes_on(tmp_path: Path) -> None:
    budget = Budget(tokens=60)
    made = team(cast(), runs=str(tmp_path / "t.db"), budget=budget)

    async def go() -> None:
        first = await made.run("What?")
        assert first.stop is StopReason.BUDGET
        budget.allow(tokens=5000)
        (saved,) = made.unfinished()
        again = await resumed(made, saved.id)
        assert again.answer == "42" and made.unfinished() == []
        # Another process has charged nothing yet: all of it is charged there, once.
        other = Budget(tokens=5000)
        calls = Runs(tmp_path / "t.db").load(saved.id).calls
        for _ in range(2):
            team(cast(), budget=other)._calls(
                again.episode.task, await made.agent.policy(), lambda event: True
            ).take_up(calls)
        assert other.spent.tokens == usage(again)

    asyncio.run(go())


def test_a_run_has_one_owner(tmp_path: Path) -> None:
    file = str(tmp_path / "t.db")
    engine = cast(waits=lambda role: 3600.0 if role == "critic" else 0.0)
    made, other = team(engine, runs=file), team(cast(), runs=file)

    async def refused(work: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(UsageError, match="is still under way"):
            await work()

    async def go() -> None:
        running = asyncio.create_task(made.run("What?"))
        while "critic" not in engine.order:
            await asyncio.sleep(0.01)
        (saved,) = Runs(file).all()
        assert saved.alive and other.unfinished() == made.unfinished() == []
        await refused(lambda: resumed(other, saved.id))
        await refused(lambda: made.forget(saved.id))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        (stopped,) = other.unfinished()
        one, two = other.resume(stopped.id), other.resume(stopped.id)
        done = await asyncio.gather(*(anext(each) for each in (one, two)), return_exceptions=True)
        assert [isinstance(each, UsageError) for each in done].count(True) == 1
        for each in (one, two):
            await each.aclose()
        await other.forget(stopped.id)
        assert Runs(file).all() == []

    asyncio.run(go())


def test_an_owner_without_signs_of_life_has_lost_its_run(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "t.db")
    runs.begin("a", "What?", "{}")
    assert not runs.load("a").resumable
    for owner, alive in (("elsewhere 1 x", time.time() - 60), (f"{runs._owner}", 0.0)):
        runs._write("update team_run set owner = ?, alive = ?", owner, alive)
        assert runs.load("a").resumable
    runs._write("update team_run set owner = 'elsewhere 1 x', alive = ?", time.time())
    with pytest.raises(UsageError, match="still under way"):
        runs.claim("a")


@pytest.mark.parametrize(
    "other",
    [
        {"executor": "code"},
        {"agent": {"tools": []}},
        {"agent": {"sampling": Sampling(temperature=0.5)}},
        {"agent": {"limits": Limits(max_tokens=512)}, "tokens": (64, 1024)},
    ],
)
def test_a_team_that_is_made_otherwise_is_told(tmp_path: Path, other: dict[str, Any]) -> None:
    file = str(tmp_path / "t.db")
    first = team(cast({"solver": [BROKEN]}), runs=file)
    asyncio.run(first.run("What?"))
    (saved,) = first.unfinished()
    with pytest.raises(UsageError, match="another team's, made with"):
        asyncio.run(resumed(team(cast(), runs=file, **other), saved.id))
    assert asyncio.run(resumed(team(cast(), runs=file), saved.id)).answer == "42"


def test_a_file_of_an_earlier_version_is_read_and_resumed(tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    first = team(cast({"critic": [BROKEN]}), runs=str(file))
    asyncio.run(first.run("What?"))
    (saved,) = first.unfinished()
    with closing(sqlite3.connect(file)) as db, db:
        made = {k: v for k, v in json.loads(saved.made).items() if k not in ("tools", "executor")}
        db.execute("update team_run set ended = null, made = ?", [json.dumps(made)])
        db.execute("update team_version set version = 2")
        for table, column in (("team_run", "owner"), ("team_run", "alive"), ("team_call", "said")):
            db.execute(f"alter table {table} drop column {column}")
    engine = cast()
    made_again = team(engine, runs=str(file))
    assert asyncio.run(resumed(made_again, saved.id)).answer == "42"
    assert engine.order == ["critic", "evaluator"]


def test_memory_is_no_place_to_resume_from() -> None:
    with pytest.raises(UsageError, match="name a file"):
        team(cast(), runs=":memory:")


def test_a_tool_call_of_a_kept_run_is_counted_once(tmp_path: Path) -> None:
    engine: Cast = cast({"solver": [code("say 42"), answer("42")], "critic": [BROKEN, "[Agree]"]})
    budget = Budget(calls=5)
    made = team(engine, runs=str(tmp_path / "t.db"), budget=budget)

    async def go() -> Result[Any]:
        await made.run("What?")
        return await resumed(made, made.unfinished()[0].id)

    result = asyncio.run(go())
    assert budget.spent.calls == result.usage.calls == 1
    assert [len(round.plans) for round in read_rounds(result.episode)] == [1]
    with pytest.raises(DataError, match="no run"):
        made.resume("b")

"""A team that is killed goes on where it stood; it stands in other graphs, and its tools too."""

import asyncio
import json
import operator
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy
from pydantic import BaseModel
from support import warm
from support.fakes import answer
from support.teams import Cast, cast, decision, team, verdict

from interlace import Budget, PythonTool, Team
from interlace.agent import Decided, Done, Judged, Result, langgraph_tools, read_rounds
from interlace.rollout.engines import EngineError
from interlace.tools.errors import DataError, UsageError

# A process of its own: the second critic (or whoever is named) never comes back.
KILLED = """
import asyncio, json, sys
from support.teams import cast, decision, team, verdict

def waits(role):
    count[role] = count.get(role, 0) + 1
    if f"{role}{count[role]}" == sys.argv[2]:
        print("now", flush=True)
        return 3600.0
    return 0.0

count = {}
said = {"ceo": [decision(n=3)], "evaluator": [verdict(0, "again"), verdict(1)]}
engine = cast(said | json.loads(sys.argv[3]), waits=waits)
team(engine, runs=sys.argv[1], output=int, repairs=3).run_sync("What?")
"""


def kill(file: Path, where: str, said: dict[str, list[str]] | None = None) -> None:
    """Begin a run that keeps itself in this file, and kill it there."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-c", KILLED, str(file), where, json.dumps(said or {})]
    with warm.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "now\n"
            if where == "critic2":
                wait_for_the_first_critic(file)
        finally:
            os.kill(process.pid, signal.SIGKILL)


def go_on(made: Team[int], id: str) -> Result[int]:
    async def resume() -> Result[int]:
        *_, last = [event async for event in made.resume(id)]
        assert isinstance(last, Done)
        return last.result

    return asyncio.run(resume())


def wait_for_the_first_critic(file: Path) -> None:
    """Until it is kept."""
    done = "select count(*) from team_call where key like '0.critic%'"
    with closing(sqlite3.connect(file)) as db:
        while not db.execute(done).fetchone()[0]:
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("where", "asked_again", "whole"),
    [
        ("ceo1", ["ceo", "recruiter", "solver", "critic", "critic", "evaluator"], 12),
        ("critic2", ["critic", "evaluator"], 12),
        ("evaluator1", ["evaluator"], 12),
        ("solver2", ["solver", "critic", "critic", "evaluator"], 12),
    ],
)
def test_a_killed_run_goes_on_at_the_step_that_was_not_finished(
    tmp_path: Path, where: str, asked_again: list[str], whole: int
) -> None:
    file = tmp_path / "team.db"
    kill(file, where)
    second = where.endswith("2") and where != "critic2"
    verdicts = [verdict(1)] if second else [verdict(0, "again"), verdict(1)]
    engine = cast({"ceo": [decision(n=3)], "evaluator": verdicts})
    budget = Budget(tokens=10_000)
    made = team(engine, runs=str(file), budget=budget, output=int, repairs=3)
    (saved,) = made.unfinished()
    assert saved.question == "What?"
    result = go_on(made, saved.id)
    assert engine.order[: len(asked_again)] == asked_again
    assert result.answer == "42" and result.episode.id == saved.id
    trajectories = result.episode.trajectories
    assert len(trajectories) == whole
    votes = [round.votes for round in read_rounds(result.episode)]
    assert votes == [[[True, True]], [[True, True]]]
    # What was spent before the kill counts, but for what the killed step had sampled.
    assert budget.spent.tokens == sum(t.sampled_tokens for t in trajectories)
    assert made.unfinished() == []
    with pytest.raises(UsageError, match="has ended"):
        made.resume(saved.id)


@pytest.mark.parametrize(("where", "left"), [("solver2", 3), ("solver4", 1)])
def test_a_run_that_was_killed_in_a_repair_goes_on_with_that_repair(
    tmp_path: Path, where: str, left: int
) -> None:
    file, wrong = tmp_path / "team.db", [answer(word) for word in ("many", "more", "most")]
    kill(file, where, {"solver": wrong, "evaluator": [verdict(1)]})
    budget, engine = Budget(tokens=10_000), cast({"solver": [*wrong, answer("42")][-left:]})
    made = team(engine, runs=str(file), budget=budget, output=int, repairs=3)
    (saved,) = made.unfinished()
    result = go_on(made, saved.id)
    assert engine.order == ["solver"] * left, "the repairs that were finished are not made again"
    assert (result.output, made.unfinished()) == (42, [])
    trajectories = result.episode.trajectories
    assert budget.spent.tokens == sum(t.sampled_tokens for t in trajectories)
    (round,) = read_rounds(result.episode)
    assert round.plans == [*wrong, answer("42")]
    asyncio.run(made.forget(saved.id))
    with closing(sqlite3.connect(file)) as kept:
        for table in ("team_run", "team_call"):
            assert kept.execute(f"select count(*) from {table}").fetchone() == (0,), table


def test_a_run_goes_on_with_its_own_team_alone(tmp_path: Path) -> None:
    file = str(tmp_path / "team.db")
    with pytest.raises(UsageError, match="resumes what it keeps"):
        team(cast()).resume("a")
    made = team(cast(waits=lambda role: 3600.0 if role == "solver" else 0.0), runs=file)

    async def cancel() -> None:
        running = asyncio.create_task(made.run("What?"))
        while "solver" not in made.agent.engine.order:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(made.agent.policy())
    asyncio.run(cancel())
    (saved,) = made.unfinished()
    with pytest.raises(DataError, match="no run 'b'"):
        made.resume("b")
    other = team(cast(), runs=file, rounds=3)
    with pytest.raises(UsageError, match=r"another team's, made with rounds=\d, here 3$"):
        asyncio.run(anext(other.resume(saved.id)))


class Outer(TypedDict, total=False):
    question: str
    answer: str | None
    shouted: str


def test_a_team_is_a_node_of_another_graph(tmp_path: Path) -> None:
    engine = cast({"evaluator": [verdict(0), verdict(1)]})
    made = team(engine)

    def shout(state: Outer) -> Outer:
        return {"shouted": f"{state['answer']}!"}

    graph = StateGraph(Outer)
    graph.add_node("team", made.graph())
    graph.add_node("shout", shout)
    graph.add_edge(START, "team")
    graph.add_edge("team", "shout")
    graph.add_edge("shout", END)
    outer = graph.compile(checkpointer=InMemorySaver())

    async def go() -> tuple[list[Any], dict[str, Any]]:
        config: Any = {"configurable": {"thread_id": "a"}}
        events = [
            event
            async for _, event in outer.astream(
                {"question": "What?"}, config, stream_mode="custom", subgraphs=True
            )
        ]
        return events, (await outer.aget_state(config)).values

    events, state = asyncio.run(go())
    assert state == {"question": "What?", "answer": "42", "shouted": "42!"}
    kinds = [type(event) for event in events if isinstance(event, Decided | Judged)]
    assert kinds == [Decided, Judged, Decided, Judged]
    assert made.last is not None and len(read_rounds(made.last.episode)) == 2


def test_our_tools_are_tools_of_langgraph() -> None:
    def call(code: str) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": "python", "args": {"code": code}, "id": code}])

    async def go() -> list[str]:
        async with langgraph_tools([PythonTool()]) as tools:
            graph = StateGraph(MessagesState)
            graph.add_node("tools", ToolNode(tools))
            graph.add_edge(START, "tools")
            graph.add_edge("tools", END)
            compiled, said = graph.compile(), []
            for code in ("x = 6", "print(x * 7)", "1 / 0"):
                state = await compiled.ainvoke({"messages": [call(code)]})
                said.append(str(state["messages"][-1].content))
            return said

    _, product, error = asyncio.run(go())
    assert product == "42" and "ZeroDivisionError" in error


# -- a graph around the team that differs from the example in one thing --------------------------


class Busy(TypedDict, total=False):
    """Names that the team has for itself, with values and a reducer of the outer graph's own."""

    question: str
    answer: str | None
    run: str
    plan: str
    tokens: int
    output: Annotated[list[str], operator.add]
    votes: list[str]


def around(made: Team[Any], state: Any = Busy, **options: Any) -> Any:
    graph = StateGraph(state)
    graph.add_node("team", made.graph(), **options)
    graph.add_edge(START, "team")
    graph.add_edge("team", END)
    return graph


def test_no_name_of_the_outer_state_is_read_or_written() -> None:
    engine = cast({"solver": ["{asked}"]})
    own = {"run": "nightly-7", "plan": "mine", "tokens": 3, "output": ["a"], "votes": ["b"]}

    def by_question(request: Any) -> str:
        asked = engine.tokenizer.decode(request.ids)
        if "solve a problem for a team" in asked:
            return answer("1" if "First?" in asked else "2")
        return str(Cast._reply(engine, request))

    engine._next = by_question
    graph = around(team(engine)).compile()

    async def go() -> list[dict[str, Any]]:
        asked = ({"question": each, **own} for each in ("First?", "Second?"))
        return list(await asyncio.gather(*map(graph.ainvoke, asked)))

    first, second = asyncio.run(go())
    assert first == {"question": "First?", "answer": "1", **own}
    assert second == {"question": "Second?", "answer": "2", **own}


@dataclass
class AsDataclass:
    question: str
    answer: str | None = None


class AsModel(BaseModel):
    question: str
    answer: str | None = None


@pytest.mark.parametrize("state", [AsDataclass, AsModel, Busy])
@pytest.mark.parametrize("sync", [False, True])
def test_the_outer_state_is_of_any_kind_and_the_call_of_either(state: Any, sync: bool) -> None:
    with team(cast()) as made:
        graph = around(made, state).compile()
        asked: Any = {"question": "What?"}
        done = graph.invoke(asked) if sync else asyncio.run(graph.ainvoke(asked))
    assert done["answer"] == "42"


def test_the_team_has_its_own_limit_of_steps_and_is_gone_when_it_is_cancelled() -> None:
    engine = cast({"critic": ["No. [Disagree]"], "evaluator": [verdict(0)]})
    made = team(engine, rounds=3, critiques=3)
    limited: Any = {"recursion_limit": 5}
    done = asyncio.run(around(made).compile().ainvoke({"question": "What?"}, limited))
    assert done["answer"] == "42"
    slow = team(cast({"critic": ["word " * 4000]}, delay=0.001))

    async def cancel() -> None:
        running = asyncio.create_task(around(slow).compile().ainvoke({"question": "What?"}))
        while "critic" not in slow.agent.engine.order:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(slow.agent.policy())
    asyncio.run(cancel())
    assert slow._flying == {}
    assert slow.last is not None and slow.last.answer == "42"


def test_a_failure_is_raised_to_be_retried_and_resumed_at_the_member_that_failed() -> None:
    said: dict[str, list[str | Exception]] = {
        "critic": [EngineError("the engine broke"), "[Agree]"]
    }
    asked: Any = {"question": "What?"}
    retry = RetryPolicy(initial_interval=0.01, retry_on=EngineError)
    retried = around(team(cast(said)), retry_policy=retry).compile()
    assert asyncio.run(retried.ainvoke(asked))["answer"] == "42"
    engine = cast(said)
    graph = around(team(engine)).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "a"}}
    with pytest.raises(EngineError, match="broke"):
        asyncio.run(graph.ainvoke(asked, config))
    assert asyncio.run(graph.ainvoke(None, config))["answer"] == "42"
    assert engine.order == ["ceo", "recruiter", "solver", "critic", "critic", "evaluator"]


@pytest.mark.parametrize("question", [None, ["What?"], " "])
def test_a_question_that_is_no_text_is_refused(question: Any) -> None:
    made = team(cast())
    with pytest.raises(UsageError, match="key question"):
        asyncio.run(around(made).compile().ainvoke({"question": question, "tokens": 1}))
    assert made._flying == {}


def test_each_thread_has_its_own_session_and_a_failed_call_says_so() -> None:
    async def go() -> list[Any]:
        async with langgraph_tools([PythonTool()]) as tools:
            graph = StateGraph(MessagesState)
            graph.add_node("tools", ToolNode(tools))
            graph.add_edge(START, "tools")
            compiled, said = graph.compile(), []
            for thread, code in (("a", "x = 6; print(x)"), ("b", "print(x)"), ("a", "print(x)")):
                call = {"name": "python", "args": {"code": code}, "id": "1"}
                config: Any = {"configurable": {"thread_id": thread}}
                asked: Any = {"messages": [AIMessage("", tool_calls=[call])]}
                said.append((await compiled.ainvoke(asked, config))["messages"][-1])
            return said

    first, other, again = asyncio.run(go())
    assert (first.content, first.status) == ("6", "success")
    assert "NameError" in other.content and other.status == "error"
    assert (again.content, again.status) == ("6", "success")

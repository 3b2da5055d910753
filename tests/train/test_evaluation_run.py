"""`evaluate`: a run is measured, interrupted, resumed, and refused to another run."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.attempts import TOKENIZER
from support.fakes import NANO, Echo, answer, code
from support.teams import decision, experts, verdict

from interlace import Agent, Limits, Sampling, Team, evaluate
from interlace.rollout.engines import Request, ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.run_folder import RunFolder
from interlace.rollout.models.fingerprint import fingerprint_model
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import StopReason
from interlace.tools.errors import DataError, UsageError
from interlace.train.evaluation import compare, evaluate_async, load_evaluation
from interlace.train.rewards import Checker

TASKS = [Task(f"t{n}", f"How much is {n} times 7?", str(7 * n)) for n in (2, 3, 5)]
WARM = Sampling(temperature=1.0)


def product(request: Request) -> str:
    """The right answer to the last question of the context."""
    asked = re.findall(r"(\d+) times 7", TOKENIZER.decode(request.ids.tolist()))
    return answer(str(7 * int(asked[-1])))


def scripted(reply: Any = product, **settings: Any) -> Policy:
    settings = {"sampling": WARM, "limits": Limits(max_tokens=500), **settings}
    tools = settings.pop("tools", [Echo()])
    return Policy(ScriptedEngine(TOKENIZER, reply), FORMATS["retool"], tools, **settings)


def ids(out: Path) -> list[str]:
    return [episode.id for episode in read_episodes(out / "episodes.jsonl")]


def test_a_policy_an_agent_and_a_team_are_evaluated_by_one_function(tmp_path: Path) -> None:
    found = evaluate(scripted(), TASKS, out=tmp_path / "policy", samples=2, seed=3)
    assert (found.accuracy.value, found.n, len(found.attempts)) == (1.0, 2, 6)
    written = json.loads((tmp_path / "policy/results.json").read_text())
    assert written["summary"] == json.loads(json.dumps(found.summary()))
    assert json.loads((tmp_path / "policy/run.json").read_text())["seed"] == 3
    assert len(ids(tmp_path / "policy")) == 6

    with Agent(ScriptedEngine(TOKENIZER, product), tools=[Echo()], format="retool") as agent:
        assert evaluate(agent, TASKS).accuracy.value == 1
        rows = [{"question": task.question, "answer": task.answer} for task in TASKS]
        assert evaluate(agent, rows).accuracy.value == 1
        assert agent.run_sync("How much is 8 times 7?").answer == "56"  # it is still there

    said = [decision(n=2, tokens=256), experts("A", "B"), answer("14"), "[Agree]", verdict(1)]
    solo = Agent(ScriptedEngine(TOKENIZER, said), tools=[Echo()], format="retool")
    with Team.ceo(solo, max_experts=2, rounds=1) as team:
        found = evaluate(team, TASKS[:1], out=tmp_path / "team")
    assert found.accuracy.value == 1 and found.run["team"]["max_experts"] == 2
    (episode,) = read_episodes(tmp_path / "team/episodes.jsonl")
    assert len(episode.trajectories) == 5
    with pytest.raises(UsageError, match="begun with a team: resume it with the same"):
        evaluate(solo, TASKS[:1], out=tmp_path / "team", resume=True)


def test_a_run_that_was_cut_off_is_completed_with_the_same_seeds(tmp_path: Path) -> None:
    asyncio.run(cut_off_and_complete(tmp_path / "run"))


async def cut_off_and_complete(out: Path) -> None:
    arrived = asyncio.Event()

    def stuck(request: Request) -> str:
        if "5 times 7" not in TOKENIZER.decode(request.ids.tolist()):
            return product(request)
        arrived.set()
        return code("hang")  # until the run is cancelled

    run = asyncio.create_task(evaluate_async(scripted(stuck), TASKS, out=out))
    await arrived.wait()
    while len(ids(out)) < 2:
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    (cut,) = [e for e in read_episodes(out / "episodes.jsonl") if e.stop is StopReason.CANCELLED]
    assert cut.group == "t5" and not (out / "results.json").exists()
    found = await evaluate_async(scripted(), TASKS, out=out, resume=True)
    assert found.accuracy.value == 1 and ids(out)[-1] == cut.id and len(ids(out)) == 4
    assert [e.seed for e in read_episodes(out / "episodes.jsonl") if e.id == cut.id] == [
        cut.seed
    ] * 2
    more = await evaluate_async(scripted(), TASKS, out=out, samples=2, resume=True)
    assert more.n == 2 and len(ids(out)) == 7


def test_what_infrastructure_failed_is_retried_then_counted_then_resumed(tmp_path: Path) -> None:
    broken = [code("bug"), answer("14")]
    once = evaluate(scripted(broken), TASKS[:1], out=tmp_path / "once", retries=1)
    assert once.accuracy.value == 1 and not once.unjudged
    never = evaluate(scripted([code("bug")]), TASKS[:1], out=tmp_path / "never", retries=0)
    assert "a bug in the tool" in str(never.unjudged)
    written = json.loads((tmp_path / "never/results.json").read_text())["summary"]
    assert written["accuracy"] is None and written["unjudged"] == never.unjudged
    assert evaluate(scripted(), TASKS[:1], out=tmp_path / "never", resume=True).accuracy.value == 1


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("begun") / "run"
    evaluate(scripted(), TASKS, out=out, samples=2, seed=7)
    return out


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"sampling": Sampling(temperature=0.5)}, {}, "temperature 1.0, not 0.5"),
    ({"limits": Limits(max_turns=2, max_tokens=500)}, {}, "max_turns 16, not 2"),
    ({"tools": []}, {}, "--tool python, not --tool none"),
    ({}, {"seed": 8}, "seed 7, not 8"),
    ({}, {"samples": 1}, "n 2, not 1"),
    ({}, {"strategy": "vote@2"}, 'strategy null, not "vote@2"'),
    (
        {},
        {"tasks": [replace(TASKS[0], question="How much is 9 times 7?")]},
        "question of the task 't2'",
    ),
    ({}, {"tasks": [Task("x", "How much is 1 times 7?", "7")]}, "holds episodes of other tasks"),
]


@pytest.mark.parametrize(("made", "asked", "says"), CHANGES, ids=[says for *_, says in CHANGES])
def test_another_run_is_refused_by_its_first_difference(
    begun: Path, made: dict[str, Any], asked: dict[str, Any], says: str
) -> None:
    before = {file.name: file.read_bytes() for file in begun.iterdir()}
    options = {"samples": 2, "tasks": TASKS, **asked}
    with pytest.raises(UsageError, match=re.escape(says)):
        evaluate(scripted(**made), options.pop("tasks"), out=begun, resume=True, **options)
    with pytest.raises(UsageError, match="--resume completes it"):
        evaluate(scripted(), TASKS, out=begun, samples=2)
    assert before == {file.name: file.read_bytes() for file in begun.iterdir()}


def test_the_same_run_moved_reordered_and_without_its_last_line_feed_goes_on(
    begun: Path, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere"
    shutil.copytree(begun, out)
    log = out / "episodes.jsonl"
    log.write_bytes(log.read_bytes()[:-1])  # as editors leave it
    found = evaluate(scripted([]), TASKS[::-1], out=out, samples=2, resume=True)
    assert found.accuracy.value == 1 and len(ids(out)) == 6
    log.write_bytes(log.read_bytes()[:-9])  # torn: this one is made again
    found = evaluate(scripted(), TASKS, out=out, samples=2, resume=True)
    assert found.accuracy.value == 1 and len(ids(out)) == 6


def test_a_new_answer_is_judged_anew_and_told(begun: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    tasks = [replace(TASKS[0], answer="15"), *TASKS[1:]]
    found = evaluate(scripted([]), tasks, out=out, samples=2, resume=True)
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.run["changed_answers"] == ["t2"]


def test_a_lost_or_torn_settings_file_is_told(begun: Path, tmp_path: Path) -> None:
    for left in (None, '{"seed": 7, '):
        out = tmp_path / "run"
        shutil.copytree(begun, out)
        (out / "run.json").unlink()
        if left is not None:
            (out / "run.json").write_text(left)
        with pytest.raises(DataError, match=r"run\.json can't be read"):
            evaluate(scripted(), TASKS, out=out, samples=2, resume=True)
        shutil.rmtree(out)


def test_a_folder_in_which_another_process_runs_is_refused(begun: Path) -> None:
    with (
        EpisodeLog(begun / "episodes.jsonl"),
        pytest.raises(DataError, match="written by another process"),
    ):
        evaluate(scripted(), TASKS, out=begun, samples=2, resume=True)


def test_an_episode_of_another_run_in_the_log_is_refused(begun: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(begun, out)
    evaluate(scripted(limits=Limits(max_calls=1)), TASKS, out=other, samples=2, seed=7)
    shutil.copy(other / "episodes.jsonl", out)
    with pytest.raises(UsageError, match="calls 1, not 16"):
        evaluate(scripted(), TASKS, out=out, samples=2, resume=True)


def test_a_database_counts_by_its_content(tmp_path: Path) -> None:
    def fill(path: Path, city: str) -> Path:
        path.parent.mkdir()
        with sqlite3.connect(path) as db:
            db.execute("create table city (name text)")
            db.execute("insert into city values (?)", [city])
        db.close()
        return path

    def asked(file: Path, *, resume: bool = True) -> list[str]:
        tasks = [replace(t, data={"database": str(file), "db_id": "shop"}) for t in TASKS]
        policy = Policy(ScriptedEngine(TOKENIZER, product), FORMATS["hermes"])
        found = evaluate(policy, tasks, out=tmp_path / "run", resume=resume)
        return list(found.run.get("changed_answers", []))

    first = fill(tmp_path / "a/shop.sqlite", "Oslo")
    asked(first, resume=False)
    (tmp_path / "moved").mkdir()
    moved = Path(shutil.copy(first, tmp_path / "moved"))
    os.utime(moved, (1, 1))
    assert asked(moved) == []
    with pytest.raises(UsageError, match="another content of shop"):
        asked(fill(tmp_path / "b/shop.sqlite", "Nes"))


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_model_counts_by_its_files_not_by_its_path(tmp_path: Path, file: str) -> None:
    first, second = tmp_path / "a/model", tmp_path / "renamed"
    shutil.copytree(NANO, first)
    shutil.copytree(NANO, second)
    os.utime(second / file, (1, 1))
    same = fingerprint_model(str(first))
    assert same is not None and same == fingerprint_model(str(second))
    data = bytearray((second / file).read_bytes())
    data[-2] ^= 1
    (second / file).write_bytes(data)
    assert fingerprint_model(str(second)) not in (None, same)


def begin(folder: Path, settings: dict[str, Any], tasks: Sequence[Task] = ()) -> RunFolder:
    run = RunFolder(folder, resume=True)
    with run.begin({"n": 1, "seed": 1, **settings}, tasks):
        return run


def test_weights_decide_where_both_are_known_else_the_name(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    begin(tmp_path / "run", {"model": "./m", "weights": "aa"})
    (tmp_path / "run/episodes.jsonl").write_bytes(b"")
    evaluate(scripted(), TASKS, out=tmp_path / "log")
    shutil.copy(tmp_path / "log/episodes.jsonl", tmp_path / "run")
    run = RunFolder(tmp_path / "run", resume=True)
    run.refuse_other({"model": "/elsewhere/m", "weights": "aa"})
    run.refuse_other({"model": "./m"})  # a server's: only its name is known
    with pytest.raises(UsageError, match=r"other files of the model \./m: they have changed"):
        run.refuse_other({"model": "./m", "weights": "bb"})
    with pytest.raises(UsageError, match=r'model "\./m", not "\./n"'):
        run.refuse_other({"model": "./n"})


def test_runs_are_paired_by_what_was_asked_and_what_else_differs_is_told(tmp_path: Path) -> None:
    first = evaluate(scripted(), TASKS, out=tmp_path / "a", samples=2, seed=1)
    others = [replace(TASKS[0], question="How much is 9 times 7?"), *TASKS[1:]]
    warmer = scripted(sampling=Sampling(temperature=1.5))
    evaluate(warmer, others, out=tmp_path / "b", seed=1, checker="math")
    (tmp_path / "b/results.json").unlink()  # as a run that was stopped leaves it
    found = compare(first, load_evaluation(tmp_path / "b"))
    assert (found.tasks, found.left_out) == (2, 2)
    assert found.remarks == [
        "the runs differ in n: 2 and 1",
        "the runs differ in temperature: 1.0 and 1.5",
        "1 tasks have one id and two questions, and are left out: t2",
        "only 2 tasks: they say little",
    ]
    log = tmp_path / "b/episodes.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    assert "the second run was stopped: it has 2 of 3 attempts" in (
        compare(first, load_evaluation(tmp_path / "b")).remarks
    )
    with Checker(default="math") as checker:
        by_math = compare(first, load_evaluation(tmp_path / "b", checker))
    assert "the runs differ in checker: exact and math" in by_math.remarks

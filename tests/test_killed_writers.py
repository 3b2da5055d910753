"""Writers that are killed at any moment, and two that write the same: at most the record in flight
is lost, half a record is never read as one, and of two writers one is refused.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support import failing_disk, warm
from support.attempts import attempt
from support.fakes import answer
from support.tiny_models import byte_tokenizer

from interlace import Agent, Conversations
from interlace.agent.conversations import Asked, Saved
from interlace.agent.team.runs import Runs
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.history import Mark
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.many.run_folder import RunFolder
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, Trajectory
from interlace.tools.errors import DataError
from interlace.tools.files import read_object, write_whole
from interlace.train.local.record import Record, read_metrics


def episode(number: int) -> Episode:
    made = attempt(Task(f"t{number}", "é" * 40, "7"), answer("7"))
    made.id = f"t{number}/0"
    return made


LOG = "t.jsonl"


class Store(NamedTuple):
    """A file that many processes may open at once, and what writes `c1` into it."""

    opened: Callable[[Path], Any]
    write: Callable[[Any], object]


def test_a_log_that_is_cut_anywhere_loses_the_record_in_flight_alone(tmp_path: Path) -> None:
    """At each byte of the last of three records; then one is added, which is read as itself."""
    path = tmp_path / LOG
    with EpisodeLog(path) as log:
        for number in range(3):
            log.append(episode(number))
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    added = tmp_path / "one.jsonl"
    with EpisodeLog(added) as log:
        log.append(episode(3))
    size = len(whole)
    cuts = {*range(start, start + 30), *range(start, size, 41), *range(size - 30, size)}
    for end in sorted(cuts):
        path.write_bytes(whole[:end])
        known = ["t0", "t1"] + ["t2"] * (end >= size - 1)  # only its end is missing
        assert [each.group for each in read_episodes(path)] == known, end
        with EpisodeLog(path) as log:
            log.append(episode(3) if end == start else next(read_episodes(added)))
        assert [each.group for each in read_episodes(path)] == [*known, "t3"], end


# -- SIGKILL --------------------------------------------------------------------------------------


class Endless(NamedTuple):
    """`write(folder)` yields after each record; `count(folder)` are those that can be read."""

    write: Callable[[Path], Any]
    count: Callable[[Path], int]


def numbers(found: list[int], first: int = 0) -> int:
    assert found == list(range(first, first + len(found)))
    return len(found)


def write_log(folder: Path) -> Any:
    made = episode(0)
    with EpisodeLog(folder / LOG) as log:
        for number in range(sum(1 for _ in read_episodes(folder / LOG)), 10**9):
            made.sample = number
            log.append(made)
            yield


def write_metrics(folder: Path) -> Any:
    with Record(folder) as record:
        lines = read_metrics(folder)
        record.truncate_after(len(lines))
        for step in range(len(lines) + 1, 10**9):
            record.log(step, {"loss": 0.5, "reward": 1.0})
            yield


def talk(store: Conversations) -> Saved:
    if store.all():
        return store.load("c1")
    empty = Trajectory(model="scripted", format="retool")
    return Saved(Episode("c1", Task("c1", "What?"), "c1", 0, [empty]), [], ("python",))


def write_conversation(folder: Path) -> Any:
    store = Conversations(folder / "talks.db")
    saved = talk(store)
    trajectory = saved.episode.trajectory
    trajectory.ledgers = trajectory.ledgers or [Ledger()]
    for number in range(len(saved.asked), 10**9):
        saved.asked.append(Asked(f"{number}", Mark(1, number, number, 0)))
        trajectory.ledger.append(Span.given(Source.PROMPT, [number]))
        trajectory.turns.append(episode(0).trajectory.turns[0])
        store.save(saved, len(trajectory.turns))
        yield


def count_talk(folder: Path) -> int:
    store = Conversations(folder / "talks.db")
    try:
        saved = talk(store)
        spans = [id for ledger in saved.episode.trajectory.ledgers for id in ledger.ids.tolist()]
        assert len(saved.asked) == len(saved.episode.trajectory.turns)
        assert numbers([int(one.question) for one in saved.asked]) == numbers(spans)
        return len(spans)
    finally:
        store.close()


def write_team(folder: Path) -> Any:
    runs = Runs(folder / "teams.db")
    found = runs.find("r1")
    if found is None:
        runs.begin("r1", "What?", "{}")
    made = episode(0).trajectory
    for number in range(0 if found is None else len(found.calls), 10**9):
        runs.add("r1", f"{number}", made, f"{number}")
        yield


def count_team(folder: Path) -> int:
    runs = Runs(folder / "teams.db")
    try:
        found = runs.find("r1")
        return numbers([int(call.said or -1) for call in found.calls] if found else [])
    finally:
        runs.close()


def write_settings(folder: Path) -> Any:
    for number in range(10**9):
        write_whole(folder / "run.json", json.dumps({"number": number, "padding": "x" * 9_000}))
        yield


def write_checkpoints(folder: Path) -> Any:
    for step in range(failing_disk.weights(folder) + 1, 10**9):
        failing_disk.checkpoint(folder, step)
        yield


ENDLESS = {
    "log": Endless(write_log, lambda f: numbers([each.sample for each in read_episodes(f / LOG)])),
    "metrics": Endless(
        write_metrics, lambda f: numbers([line["step"] for line in read_metrics(f)], 1)
    ),
    "conversation": Endless(write_conversation, count_talk),
    "team run": Endless(write_team, count_team),
    "settings": Endless(write_settings, lambda f: read_object(f / "run.json")["number"] + 1),
    "checkpoint": Endless(write_checkpoints, failing_disk.weights),
}


def killed(write: Callable[[Path], Any], folder: Path, records: int, moment: float) -> int:
    """Let a process write until so many records are done and a moment has passed, kill it, and
    return how many were done.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)  # those of the parent are not here
            for _ in write(folder):
                os.write(writing, b".")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    done = 0
    while done < records:
        done += len(os.read(reading, 1)) or pytest.fail("the writer failed")
    signal.sigtimedwait([], moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 65536):
        done += len(more)
    os.close(reading)
    return done


@pytest.mark.parametrize("what", ENDLESS)
def test_a_writer_that_is_killed_loses_at_most_the_record_in_flight(
    what: str, tmp_path: Path
) -> None:
    """Three times in the same place, so that each writer takes up what the one before has left."""
    endless, draw, before = ENDLESS[what], random.Random(what), 0
    if what == "checkpoint":
        failing_disk.model(0.0)  # imports here what each writer would import
    for _ in range(3):
        if what == "settings":
            before = 0
        done = killed(endless.write, tmp_path, draw.randint(1, 4), draw.random() * 0.02)
        found = endless.count(tmp_path)
        assert before + done <= found <= before + done + 1
        before = found


# -- two at once ----------------------------------------------------------------------------------


def test_of_two_that_write_the_same_file_one_is_refused(tmp_path: Path) -> None:
    tasks = [Task("a", "?", "7")]
    with EpisodeLog(tmp_path / LOG) as log:
        with pytest.raises(DataError, match=f"{LOG} is being written by another process"):
            EpisodeLog(tmp_path / LOG)
        log.append(episode(0))
    with RunFolder(tmp_path / "run").begin({"n": 1}, tasks):
        second = RunFolder(tmp_path / "run", resume=True)
        with pytest.raises(DataError, match=r"episodes.jsonl is being written by another process"):
            second.begin({"n": 2}, tasks)
        assert read_object(tmp_path / "run" / "run.json") == {"n": 1}
    with Record(tmp_path / "train") as record:
        record.log(1, {"loss": 1.0})
        with pytest.raises(DataError, match="another process trains in"):
            Record(tmp_path / "train", settings="steps: 9")
        record.log(2, {"loss": 0.5})
    assert [line["step"] for line in read_metrics(tmp_path / "train")] == [1, 2]
    assert not (tmp_path / "train" / "config.yaml").exists()


def test_of_two_that_continue_one_conversation_the_later_one_is_refused(tmp_path: Path) -> None:
    """It neither adds to what the other one said nor takes it back."""

    def agent(*script: str) -> Agent:
        engine = ScriptedEngine(byte_tokenizer(tmp_path), [answer(each) for each in script])
        return Agent(engine, tools=[], conversations=Conversations(tmp_path / "talks.db"))

    async def both() -> None:
        async with agent("1").conversation() as chat:
            await chat.ask("The first?")
            id = chat.episode.id
        one, other, refused = agent("2", "4"), agent("3"), "continued by another process"
        async with one.conversation(resume=id) as here, other.conversation(resume=id) as there:
            await here.ask("The second?")
            with pytest.raises(DataError, match=refused):
                await there.ask("The other second?")
            with pytest.raises(DataError, match=refused):
                there.undo()
            await here.ask("The third?")
        assert one.settings.store is not None
        saved = one.settings.store.load(id)
        assert [each.question for each in saved.asked] == [
            "The first?",
            "The second?",
            "The third?",
        ]
        assert saved.episode.trajectory.ledger == here.episode.trajectory.ledger

    asyncio.run(both())


STORES = {
    "conversation": Store(Conversations, lambda store: store.save(talk(store), 0)),
    "team run": Store(Runs, lambda store: store.begin("c1", "What?", "{}")),
}


@pytest.mark.parametrize("what", STORES)
def test_what_a_forked_process_writes_stays_when_its_parent_closes_the_file(
    what: str, tmp_path: Path
) -> None:
    """SQLite in the child took the locks of the parent, who opened the file twice, for its own."""
    opened, write = STORES[what]
    stores = [opened(tmp_path / "kept.db") for _ in range(2)]
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            ours.close()
            theirs.send(b".")
            theirs.recv(1)
            write(stores[0])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    with ours, theirs:
        ours.recv(1)
        for store in stores:
            store.close()
        ours.send(b".")
        os.waitpid(child, 0)
    assert [each.id for each in opened(tmp_path / "kept.db").all()] == ["c1"]


@pytest.mark.parametrize("what", STORES)
def test_a_file_that_is_opened_twice_keeps_its_log_when_another_process_closes_it(
    what: str, tmp_path: Path
) -> None:
    """Opening it again dropped the locks of the first, and the other process removed the log."""
    opened, write = STORES[what]
    (tmp_path / "kept.db").symlink_to("real.db")
    stores = [opened(tmp_path / "kept.db") for _ in range(2)]
    code = f"from {opened.__module__} import {opened.__name__} as opened\n"
    code += f"store = opened({str(tmp_path / 'kept.db')!r})\n"
    code += "print([each.id for each in store.all()]); store.close()"
    assert warm.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout == "[]\n"
    write(stores[0])
    assert warm.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout == "['c1']\n"
    for store in stores:
        store.close()
    assert (tmp_path / "real.db").stat().st_mode & 0o077 == 0


def test_two_builders_of_one_file_leave_one_of_the_two_whole(tmp_path: Path) -> None:
    """Checkpoints, settings and results are replaced whole: the later one stays."""
    for number in range(2):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        failing_disk.checkpoint(folder, number + 1)
    shutil.copytree(tmp_path / "1" / "checkpoint", tmp_path / "0" / "checkpoint.writing")
    assert failing_disk.weights(tmp_path / "0") == 1  # what a killed writer left is not in use
    failing_disk.checkpoint(tmp_path / "0", 3)
    assert failing_disk.weights(tmp_path / "0") == 3
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["checkpoint"]

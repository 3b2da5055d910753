"""The episode log: what was appended is there, whatever became of the writer."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlace.rollout.episode_log import EpisodeLog, export_parquet, read_episodes
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import (
    Branch,
    CallRecord,
    Episode,
    FinishReason,
    Speaker,
    StopReason,
    TeamCall,
    Trajectory,
    Turn,
)
from interlace.tools import Artifact, ErrorKind
from interlace.tools.errors import DataError


def episode(id: str = "t/0", text: str = "42", seconds: float = 0.5) -> Episode:
    ledger = Ledger(
        [
            Span.given(Source.PROMPT, [1, 2, 3]),
            Span.policy([4, 5], logprobs=[-0.1, -2.3], raw_logprobs=[-0.2, -2.5], version=7),
            Span.given(Source.TOOL, [6]),
            Span.policy([8], logprobs=[-0.4], version=7, weight=0.0),
        ]
    )
    plot = Artifact("image/png", bytes(range(256)), "plot-1.png")
    call = CallRecord(
        "python", {"code": text}, text, ErrorKind.EXCEPTION, seconds, artifacts=[plot]
    )
    turn = Turn(0, 3, 5, FinishReason.STOP, [call], prefilled=3, seconds=seconds)
    trajectory = Trajectory(
        "nano", "retool", [ledger], [turn], StopReason.ANSWERED, text, details={"tier": "none"}
    )
    task = Task("t", f"What is {text}?", text, {"level": 2})
    return Episode(id, task, "t", 0, [trajectory], {"answer": 1.0}, seed=3, seconds=seconds)


@settings(max_examples=50, deadline=None)
@given(text=st.text(), seconds=st.floats(0, 1e6))
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, text: str, seconds: float
) -> None:
    path = tmp_path_factory.mktemp("log") / "t.jsonl"
    written = [episode("a", text, seconds), episode("b")]
    with EpisodeLog(path) as log:
        for one in written:
            log.append(one)
    assert list(read_episodes(path)) == written


def test_a_leaf_of_a_tree_counts_what_was_sampled_for_it_alone() -> None:
    one = episode()
    root = one.trajectory
    root.turns.append(Turn(0, 6, 7, FinishReason.EOS))
    root.branch = Branch("0", weight=0.5)
    late = Branch("0.1", "0", turns=1, tokens=6, weight=0.25)
    early = Branch("0.2", "0", turns=0, tokens=4, weight=0.25)  # inside the first turn
    for branch in (late, early):
        leaf = Trajectory("nano", "retool", list(root.ledgers), list(root.turns), branch=branch)
        one.trajectories.append(leaf)
    assert [leaf.sampled_tokens for leaf in one.trajectories] == [3, 1, 2]
    assert [len(leaf.own_turns) for leaf in one.trajectories] == [2, 1, 2]
    assert [sum(map(len, leaf.own_spans)) for leaf in one.trajectories] == [7, 1, 3]


def test_text_that_is_no_text_can_not_stop_the_log(tmp_path: Path) -> None:
    with EpisodeLog(tmp_path / "t.jsonl") as log:
        log.append(episode(text="a\ud800b"))
    (read,) = read_episodes(tmp_path / "t.jsonl")
    assert read.answer == "a?b"


def test_a_torn_last_line_is_left_out_and_removed_on_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with EpisodeLog(path) as log:
        log.append(episode("a"))
        log.append(episode("b"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for torn in (first + 1, (first + len(whole)) // 2, len(whole) - 2):
        path.write_bytes(whole[:torn])
        assert [e.id for e in read_episodes(path)] == ["a"]
    with EpisodeLog(path) as log:
        log.append(episode("c"))
    assert [e.id for e in read_episodes(path)] == ["a", "c"]


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with EpisodeLog(path) as log:
        log.append(episode("a"))
    path.write_bytes(path.read_bytes()[:-1])  # as an editor may leave it
    assert [e.id for e in read_episodes(path)] == ["a"]
    with EpisodeLog(path) as log:
        log.append(episode("b"))
    assert [e.id for e in read_episodes(path)] == ["a", "b"]


def test_a_writer_killed_at_any_moment_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import episode
from interlace.rollout.episode_log import EpisodeLog
with EpisodeLog({str(path)!r}) as log:
    for i in range(10**9):
        log.append(episode(str(i), "x" * 50_000))
        print(i, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(30):
        told = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    ids = [int(e.id) for e in read_episodes(path)]
    assert ids == list(range(len(ids)))
    assert len(ids) > told  # whatever was reported as written is there


def test_what_is_no_ordinary_file_or_no_log_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match=r"ordinary file|can't read"):
            list(read_episodes(path))
    path = tmp_path / "log.jsonl"
    for data in (bytes(1_000), b"[" * 100_000, b"[" * 100_000 + b"\n"):
        path.write_bytes(data)
        with pytest.raises(DataError, match="line 1 is not an episode"):
            list(read_episodes(path))
    path.write_bytes(b'{"a": ' + b"[" * 100_000)  # what a killed writer may leave
    assert list(read_episodes(path)) == []
    monkeypatch.setattr("interlace.rollout.episode_log._LONGEST_LINE", 1_000)
    path.write_bytes(b'{"a": "' + b"x" * 5_000)
    with pytest.raises(DataError, match="line 1 is longer than 1,000 bytes"):
        list(read_episodes(path))


def test_two_writers_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with EpisodeLog(path), pytest.raises(DataError, match="another process"):
        EpisodeLog(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"not json\n", "line 2 is not an episode"),
        (b'{"id": "x"}\n', "line 2 is not an episode: task"),
        (b"\xff\xfe\n", "line 2 is not an episode"),
    ],
)
def test_a_corrupt_file_is_one_clear_sentence(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "t.jsonl"
    with EpisodeLog(path) as log:
        log.append(episode())
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(DataError, match=says) as caught:
        list(read_episodes(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ledger": 1}, "turn 0 points to ledger 1 of 1"),
        ({"ledger": -1}, "turn 0 points to ledger -1 of 1"),
        ({"start": -3}, "turn 0 points to tokens -3 to 5 of 7"),
        ({"start": 6}, "turn 0 points to tokens 6 to 5 of 7"),
        ({"stop": 8}, "turn 0 points to tokens 3 to 8 of 7"),
        ({"stop": 6}, "turn 0 points to tokens that the policy did not write"),
    ],
)
def test_a_turn_that_points_nowhere_is_refused(
    tmp_path: Path, change: dict[str, int], says: str
) -> None:
    path = tmp_path / "t.jsonl"
    with EpisodeLog(path) as log:
        log.append(episode("a"))
        log.append(episode("b"))
    first, second = path.read_text().splitlines()
    record = json.loads(second)
    record["trajectories"][0]["turns"][0] |= change
    path.write_text(f"{first}\n{json.dumps(record)}\n")
    episodes = read_episodes(path)
    assert next(episodes).id == "a"
    with pytest.raises(DataError, match=f"line 2 is not an episode: .*{says}"):
        next(episodes)


def as_of_version(version: int, record: dict[str, Any]) -> dict[str, Any]:
    """A record as that version of this package wrote it."""
    (trajectory,) = record["trajectories"]
    trajectory["exact"] = trajectory.pop("token_exact")
    team, details = trajectory.pop("team"), trajectory["details"]
    details["team"] = {**team.pop("speaker"), **team}
    for name in ("error", "tools", "strategy", "origin"):
        details[name] = trajectory.pop(name)
    if version == 1:
        trajectory["policy"] = trajectory.pop("model")
        del record["settings"]
    return {**record, "schema_version": version}


@pytest.mark.parametrize("version", [1, 2])
def test_records_of_older_versions_are_read_and_written_as_of_this_one(
    tmp_path: Path, version: int
) -> None:
    """Version 1 called the model's name `policy`, and did not say what an episode was made with.
    Up to version 2 what is decided by stood in `details`, beside what others put there.
    """
    path = tmp_path / "t.jsonl"
    written = episode()
    written.trajectory.token_exact = False
    written.trajectory.error = "the server is gone"
    written.trajectory.tools = {"python": {"isolation": "full"}}
    written.trajectory.strategy = {"rounds": 3}
    written.trajectory.origin = "rewrite"
    speaker = Speaker("critic", "Chemist", 1, 2, 3)
    written.trajectory.team = TeamCall(speaker, 1, [{"role": "user"}], {"agrees": True}, "rounds")
    with EpisodeLog(path) as log:
        log.append(written)
    record = as_of_version(version, json.loads(path.read_text()))
    path.write_text(json.dumps(record) + "\n")
    (read,) = read_episodes(path)
    assert read == written and read.trajectory.details == {"tier": "none"}
    with EpisodeLog(tmp_path / "again.jsonl") as log:
        log.append(read)
    again = json.loads((tmp_path / "again.jsonl").read_text())
    assert (again["schema_version"], again["trajectories"][0]["model"]) == (4, "nano")
    assert list(read_episodes(tmp_path / "again.jsonl")) == [written]


@pytest.mark.parametrize("content", [b"notes without an end", b"one\ntwo", b'{"a": 1}\n'])
def test_a_file_that_is_no_log_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a log"):
        EpisodeLog(path)
    assert path.read_bytes() == content


def test_a_reward_that_is_no_number_can_be_read_again(tmp_path: Path) -> None:
    one = episode()
    one.rewards["loss"] = float("nan")
    with EpisodeLog(tmp_path / "t.jsonl") as log:
        log.append(one)
    (read,) = read_episodes(tmp_path / "t.jsonl")
    assert math.isnan(read.rewards["loss"])


def test_a_record_of_a_later_version_says_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    later = episode()
    later.schema_version += 1
    with EpisodeLog(path) as log:
        log.append(later)
    with pytest.raises(DataError, match="upgrade"):
        list(read_episodes(path))


def test_a_full_disk_is_reported_and_leaves_no_half_line(tmp_path: Path) -> None:
    """A limit on the file's size stands for the disk: it tears a write in the middle."""
    path = tmp_path / "t.jsonl"
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import episode
from interlace.rollout.episode_log import EpisodeLog
from interlace.tools.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with EpisodeLog({str(path)!r}) as log:
    log.append(episode("a"))
    size = log.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, resource.RLIM_INFINITY))
    try:
        log.append(episode("b"))
    except DataError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "can't write" in done.stdout
    assert path.read_bytes().endswith(b"}\n")
    assert [e.id for e in read_episodes(path)] == ["a"]


def test_parquet_holds_the_columns_a_trainer_reads(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert export_parquet([episode("a"), episode("b")], path) == 2
    row = pyarrow.parquet.read_table(path).to_pylist()[0]
    assert row["prompt_ids"] == [1, 2, 3]
    assert row["response_ids"] == [4, 5, 6, 8]
    assert row["response_mask"] == [True, True, False, True]
    assert row["loss_weights"] == [1.0, 1.0, 0.0, 0.0]
    assert dict(row["rewards"]) == {"answer": 1.0}
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]

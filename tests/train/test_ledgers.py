"""From logs of episodes to what is learnt from: what is held out, left out, refused."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.attempts import TOKENIZER, attempt
from support.fakes import answer, code
from support.tiny_models import byte_tokenizer

from interlace.rollout.episode_log import EpisodeLog
from interlace.rollout.ledger import Ledger
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.errors import DataError
from interlace.train.local.ledgers import Ledgers, read_ledgers


def episode(task: str, *script: str, sample: int = 0) -> Episode:
    made = attempt(Task(task, f"What is {task}?", "7"), *script)
    return replace(made, id=f"{task}/{sample}", sample=sample)


def written(path: Path, episodes: Iterable[Episode]) -> Path:
    with EpisodeLog(path) as log:
        for each in episodes:
            log.append(each)
    return path


def read(*logs: Path, held_out: float = 0.0, max_length: int = 2048) -> Ledgers:
    return read_ledgers(logs, TOKENIZER, held_out=held_out, max_length=max_length)


def ids(ledgers: Iterable[Ledger]) -> list[list[int]]:
    return [ledger.ids.tolist() for ledger in ledgers]


def test_of_an_episode_that_was_run_again_the_last_is_learnt_from(tmp_path: Path) -> None:
    first, again, other = episode("a", answer("1")), episode("a", answer("7")), episode("b", "7")
    one = written(tmp_path / "one.jsonl", [first, other, again])
    two = written(tmp_path / "two.jsonl", [first])  # another log, another episode
    found = read(one, two)
    expected = [again, other, first]
    assert ids(found.training) == ids(each.trajectory.ledger for each in expected)


def test_a_log_and_its_copy_are_learnt_from_once(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", [episode("a", answer("7")), episode("b", answer("7"))])
    alone, copied = read(log), read(log, Path(shutil.copy(log, tmp_path / "copy.jsonl")), log)
    assert ids(copied.training) == ids(alone.training)
    assert copied.left_out == {"in another log": 4}


def test_whole_tasks_are_held_out_and_always_the_same(tmp_path: Path) -> None:
    names = [f"task {number}" for number in range(12)]
    made = [episode(name, answer(name), sample=sample) for name in names for sample in (0, 1)]
    found = read(written(tmp_path / "log.jsonl", made), held_out=0.3)
    said = [{TOKENIZER.decode(i) for i in ids(part)} for part in (found.training, found.held_out)]
    tasks = [{name for name in names if any(f"{{{name}}}" in t for t in part)} for part in said]
    assert tasks[0] and tasks[1] and not tasks[0] & tasks[1] and tasks[0] | tasks[1] == set(names)
    assert len(found.held_out) == 2 * len(tasks[1])
    fewer = read(written(tmp_path / "fewer.jsonl", made[:12]), held_out=0.3)
    assert all(each in ids(found.held_out) for each in ids(fewer.held_out))


def test_what_is_too_long_or_teaches_nothing_is_left_out_and_counted(tmp_path: Path) -> None:
    short = episode("a", answer("7"))
    long = episode("b", code("count 300"), answer("7"))
    silent = episode("c", answer("7"))
    spans = [replace(span, weight=0.0) for span in silent.trajectory.ledger]
    silent.trajectory.ledgers[0] = Ledger(spans)
    log = written(tmp_path / "log.jsonl", [short, long, silent])
    found = read(log, max_length=len(short.trajectory.ledger))
    assert ids(found.training) == ids([short.trajectory.ledger])
    assert found.left_out == {"too long": 1, "nothing to learn": 1}
    with pytest.raises(DataError, match=r"nothing to learn from in .*: 0 held out, 3 too long"):
        read(log, max_length=5)


def test_a_log_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", [episode("a", answer("7"))])
    other = byte_tokenizer(tmp_path / "bytes")
    with pytest.raises(DataError, match="written for another tokenizer"):
        read_ledgers([log], other, held_out=0, max_length=2048)
    assert np.array_equal(
        read(log).training[0].loss_weights > 0, read(log).training[0].response_mask
    )

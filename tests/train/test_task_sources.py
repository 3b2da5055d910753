"""Tasks by name: how files, generators, adapters and code of one's own share one grammar."""

import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from interlace.tools.errors import DataError, UsageError
from interlace.train.data.sources import find_tasks, find_training_tasks, refuse_task_code

MINE = """
from interlace.rollout.task import Task

LISTED = [Task("a", "1 + 1?", "2"), {"question": "2 + 2?", "answer": 4, "level": 3}]
TEXT = 7

def made(*, last: int = 3):
    for number in range(1, last + 1):
        yield {"id": str(number), "question": f"{number}?", "answer": str(number)}

def broken():
    yield {"question": "fine?"}
    1 / 0

def adapt(row, *, upper: bool = False):
    text = row["text"].upper() if upper else row["text"]
    return Task(text, text, str(row["sum"]))

def sums(seed, split, *, digits: int = 1):
    for index in range(10 ** 9):
        yield Task(f"{split}-{seed}-{index}", f"{index} + {digits}?", str(index + digits))

def texts(seed, split):
    yield from ["What did she do?"] * 2
    yield from [{"question": "And then?", "id": None}] * 2

def strange(one, two):
    return []
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_tasks.py").write_text(MINE)
    (tmp_path / "own_tasks").mkdir()  # a folder of that name is in nobody's way
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "one and two", "sum": 3}) + "\n")
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": "1?", "answer": "#### 1"}) + "\n")
    (tmp_path / "plain@2").write_text("One?\nTwo?\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("own_tasks", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


@pytest.mark.parametrize(
    ("name", "questions"),
    [
        ("own_tasks.py:LISTED", ["1 + 1?", "2 + 2?"]),
        ("own_tasks:LISTED", ["1 + 1?", "2 + 2?"]),
        ("own_tasks.py:made", ["1?", "2?", "3?"]),
        ("own_tasks.py:made@2", ["1?", "2?"]),
        ("own_tasks.py:adapt:rows.jsonl", ["one and two"]),
        ("own_tasks:adapt:rows.jsonl@upper=true", ["ONE AND TWO"]),
        ("own_tasks.py:sums:train:2:7", ["0 + 1?", "1 + 1?"]),
        ("own_tasks.py:sums@count=1,seed=7,digits=5", ["0 + 5?"]),
        ("gsm8k:gsm.jsonl", ["1?"]),
        ("plain@2", ["One?", "Two?"]),
    ],
)
def test_a_name_of_tasks_of_ones_own(name: str, questions: list[str], here: Path) -> None:
    assert [task.question for task in find_tasks(name)] == questions


def test_a_generators_settings_are_parts_or_parameters() -> None:
    parts = find_tasks("arithmetic:held_out:3:7")
    assert find_tasks("arithmetic@split=held_out,count=3,seed=7") == parts
    assert find_tasks("arithmetic:held_out@count=3,seed=7") == parts


def test_equal_questions_of_a_generator_without_ids_stay_apart(here: Path) -> None:
    assert len({task.id for task in find_tasks("own_tasks.py:texts")}) == 4


def test_training_takes_endlessly_many_of_a_generator_and_the_whole_of_a_list(here: Path) -> None:
    endless = find_training_tasks("own_tasks.py:sums:train:2:7")
    assert [task.id for task in islice(endless, 3)] == ["train-7-0", "train-7-1", "train-7-2"]
    assert len(find_training_tasks("own_tasks.py:made")) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("own_tasks.py:none", UsageError, "has no attribute 'none'"),
        ("own_tasks.py:TEXT", UsageError, "can't be made: TypeError"),
        ("own_tasks.py:LISTED@3", UsageError, "neither a source nor parameters"),
        ("own_tasks.py:broken", UsageError, "can't be made: ZeroDivisionError"),
        ("own_tasks.py:adapt", UsageError, "own_tasks.py:adapt:FILE"),
        ("own_tasks.py:adapt:gsm.jsonl", DataError, "there is no 'text'; its columns are question"),
        ("own_tasks.py:strange", UsageError, "wants one, two: a generator has seed and split"),
        ("own_tasks.py:sums:tset", UsageError, "with a split of train, test, held_out"),
        ("builtins:int:gsm.jsonl", UsageError, "no signature found"),
        ("arithmetik", UsageError, "unknown tasks 'arithmetik'; choose from arithmetic, database"),
        ("arithmetik:test", UsageError, "unknown tasks 'arithmetik'; choose from arithmetic"),
        ("gsm8", UsageError, "unknown tasks 'gsm8'; choose from .*gsm8k"),
        ("gsm9k:gsm.jsonl", UsageError, "unknown adapter 'gsm9k'; choose from gsm8k"),
        ("gsm8k", UsageError, "write gsm8k:FILE"),
        ("gone.jsonl", DataError, "can't read gone.jsonl: No such file"),
        ("gone.jsonl:databases", DataError, "can't read gone.jsonl:databases: No such file"),
    ],
)
def test_a_name_without_tasks_is_one_sentence(
    name: str, error: type[Exception], said: str, here: Path
) -> None:
    with pytest.raises(error, match=said):
        find_tasks(name)


def test_a_runs_folder_names_no_code(here: Path) -> None:
    for name in ("arithmetic:train", "gsm8k:gsm.jsonl", "gone.jsonl", "gone.jsonl:databases"):
        refuse_task_code(name, "config.yaml")
    for name in ("own_tasks.py:made", "own_tasks:adapt:rows.jsonl", "os:environ"):
        with pytest.raises(UsageError, match=r"names the tasks .* would load code"):
            refuse_task_code(name, "config.yaml")
    assert "own_tasks" not in sys.modules


def test_a_generator_without_a_split_trains_on_other_tasks_than_it_is_evaluated_on() -> None:
    trained = {next(iter(find_training_tasks("arithmetic"))).id}
    assert not trained & {task.id for task in find_tasks("arithmetic:test:50")}
    assert trained <= {task.id for task in find_tasks("arithmetic:train:50")}
    assert find_tasks("arithmetic")[0].id == find_tasks("arithmetic:test")[0].id

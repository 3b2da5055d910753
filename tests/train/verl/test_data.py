"""Tasks as rows of verl's data sets, and rows of others as tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from interlace.rollout.formats import Message
from interlace.rollout.task import Task
from interlace.tools.errors import DataError
from interlace.train.data.sources import find_tasks
from interlace.train.verl.data import from_row, write_dataset


def as_verl_hands_it(row: dict[str, Any]) -> dict[str, Any]:
    """verl's data set takes the messages out of `prompt`."""
    return {**row, "raw_prompt": np.array(row["prompt"], dtype=object)}


def test_every_familys_tasks_come_back_from_parquet_as_they_were(tmp_path: Path) -> None:
    tasks = [
        task
        for name in ("arithmetic", "database", "lookup")
        for task in find_tasks(f"{name}:test:3")
    ]
    file = tmp_path / "new" / "train.parquet"
    assert write_dataset(tasks, file, split="train", source="nano") == 9
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert [from_row(as_verl_hands_it(row)) for row in rows] == [(task, []) for task in tasks]
    assert [row["reward_model"]["ground_truth"] for row in rows] == [t.answer or "" for t in tasks]
    assert [row["extra_info"]["index"] for row in rows] == list(range(9))
    assert [path.name for path in file.parent.iterdir()] == ["train.parquet"]


def test_rows_of_others_are_read_from_their_own_columns() -> None:
    row = {
        "data_source": "mine",
        "raw_prompt": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": "Who wrote it?"},
        ],
        "reward_model": {"ground_truth": {"target": np.array(["Ann Lee", "A. Lee"])}},
        "extra_info": {"index": 7, "split": "train"},
    }
    task, history = from_row(row)
    assert task == Task(
        "7", "Who wrote it?", "Ann Lee", {"source": "mine", "answers": ["Ann Lee", "A. Lee"]}
    )
    assert history == [Message("system", "Answer.")]
    plain, _ = from_row({**row, "reward_model": {"ground_truth": "34"}})
    assert (plain.answer, plain.data) == ("34", {"source": "mine"})
    assert from_row({**row, "reward_model": None})[0].answer is None


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"raw_prompt": [{"role": "assistant", "content": "I"}]},
        {"raw_prompt": [{"role": "user", "content": [{"type": "image"}]}]},
        {"raw_prompt": [{"role": "user", "content": "x"}], "extra_info": {"task": "{}"}},
        {"raw_prompt": [{"role": "user", "content": "x"}], "extra_info": {"task": "[1"}},
    ],
)
def test_a_row_that_is_none_is_refused_in_one_sentence(broken: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        from_row(broken)


def test_no_tasks_make_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tasks"):
        write_dataset([], tmp_path / "a.parquet", split="train", source="x")

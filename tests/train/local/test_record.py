"""A run's folder: nothing is logged twice, and it is one run wherever it lies."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
from support.tiny_models import checkpoint

from interlace.rollout.engines.local.load_checkpoint import load_model
from interlace.tools.errors import DataError
from interlace.train.local.checkpoint import read_checkpoint, write_checkpoint
from interlace.train.local.record import Record, Sink, TensorBoard, read_metrics, wandb_id
from interlace.train.local.resume import contents


def test_steps_that_are_repeated_stand_once_in_every_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs interlace[tensorboard]")
    from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
        event_accumulator,
    )

    for done, last in ((0, 5), (3, 6), (6, 7)):  # killed in step 6, of which step 3 was saved
        sinks: list[Sink] = [TensorBoard(tmp_path)]
        with Record(tmp_path, sinks) as record:
            record.truncate_after(done)
            for step in range(done + 1, last + 1):
                record.log(step, {"reward": done + step / 100})
    wanted = [
        (step, (0 if step < 4 else 3 if step < 7 else 6) + step / 100) for step in range(1, 8)
    ]
    assert [(line["step"], line["reward"]) for line in read_metrics(tmp_path)] == wanted
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, round(event.value, 4)) for event in events.Scalars("reward")]
    assert shown == wanted


def test_a_runs_id_is_drawn_once_and_stays_in_its_folder(tmp_path: Path) -> None:
    names = ("a.b", "a-b", "a/b")
    drawn = [wandb_id(tmp_path / name) for name in names]
    assert len({*drawn}) == 3 and [wandb_id(tmp_path / name) for name in names] == drawn
    shutil.move(tmp_path / "a.b", tmp_path / "moved")
    assert wandb_id(tmp_path / "moved") == drawn[0]
    shutil.rmtree(tmp_path / "a-b")
    assert wandb_id(tmp_path / "a-b") not in drawn


def test_an_id_that_cannot_be_kept_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "wandb-id").write_bytes(b"\xff")
    for folder in ("file", "file/below", "bad"):
        with pytest.raises(DataError, match=r"can't keep the id of a run in .*wandb-id: "):
            wandb_id(tmp_path / folder)


def test_a_checkpoint_knows_its_base_model_by_content(tmp_path: Path) -> None:
    import torch

    base, moved = checkpoint(tmp_path / "base"), tmp_path / "moved"
    model = cast(Any, load_model(base, torch.device("cpu"), "float32"))
    optimizer = torch.optim.AdamW(model.parameters())

    def identity(folder: Path, **files: str) -> dict[str, object]:
        return {"model": str(folder), **contents(folder, files)}

    state = {"done": 1, "identity": identity(base, shop="aa"), "changes": []}
    write_checkpoint(tmp_path / "run", model, optimizer, json.loads(json.dumps(state)))

    def read(wanted: dict[str, object]) -> None:
        changed = ("model", "weights", "files")
        read_checkpoint(tmp_path / "run", model, optimizer, wanted, fixed=changed, changed=changed)

    shutil.copytree(base, moved)
    read(identity(moved, shop="aa"))
    with pytest.raises(DataError, match="another content of databases or corpora"):
        read(identity(base, shop="bb"))
    (moved / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"whose model is '.*base' and not '.*moved'"):
        read(identity(moved, shop="bb"))
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="other files of the model that it began with"):
        read(identity(base, shop="aa"))

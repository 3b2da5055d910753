"""Training checkpoints: whole or not there, safetensors and JSON only.

A run's folder holds one of them, `checkpoint/`: `model.safetensors` with its `config.json` (the
weights, as an ordinary Hugging Face checkpoint), `optimizer.safetensors` (the optimizer's tensors,
named `<index>.<name>`) and `trainer.json` (steps done, the report so far, which run this is).
"""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tools.errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from .sft import SFTReport

__all__ = ["load_checkpoint", "replace_folder", "save_checkpoint"]


def save_checkpoint(
    folder: Path,
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    done: int,
    report: "SFTReport",
    identity: dict[str, Any],
) -> None:
    """Write all that a run needs to go on, in place of the checkpoint before."""
    from safetensors.torch import save_file

    fresh = folder / "checkpoint.writing"
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }
    save_file(tensors, fresh / "optimizer.safetensors")
    state = {"done": done, "report": asdict(report), "identity": identity}
    (fresh / "trainer.json").write_text(json.dumps(state), encoding="utf-8")
    replace_folder(fresh, folder / "checkpoint")


def load_checkpoint(
    folder: Path,
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    report: "SFTReport",
    identity: dict[str, Any],
) -> int:
    """Take up the checkpoint in `folder`, if there is one; the number of steps done.

    Raises DataError where it is of another run or can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, load_model

    path = folder / "checkpoint"
    if not path.exists() and (folder / "checkpoint.old").exists():
        os.replace(folder / "checkpoint.old", path)  # killed between the two renames
    if not path.exists():
        return 0
    try:
        state = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "optimizer.safetensors")
        if state["identity"] != json.loads(json.dumps(identity)):
            raise DataError(f"{path} is of another run: remove it, or name another folder")
        load_model(model, path / "model.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{path} can't be read ({error}): remove it to start anew") from error
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        kept.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})
    report.losses = state["report"]["losses"]
    report.held_out = {int(step): loss for step, loss in state["report"]["held_out"].items()}
    report.tokens = state["report"]["tokens"]
    report.seconds = state["report"]["seconds"]
    return int(state["done"])


def replace_folder(fresh: Path, path: Path) -> None:
    """Put the folder `fresh` in the place of `path`; a crash leaves one of them whole."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(fresh, path)
    shutil.rmtree(old, ignore_errors=True)

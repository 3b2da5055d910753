"""Training checkpoints: whole or not there, safetensors and JSON only.

A run's folder holds one of them, `checkpoint/`: `model.safetensors` with its `config.json` (the
weights, as an ordinary Hugging Face checkpoint), `optimizer.safetensors` (the optimizer's tensors,
named `<index>.<name>`), `trainer.json` (what else the run needs to go on, and which run this is),
`interlace.json` (the format that it was trained in), and where there are adapters
`adapters.safetensors`: the weights in `model.safetensors` have them added in.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...rollout.model_files import FORMAT_FILE
from ...tools.errors import DataError
from .lora import has_lora, merged_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "read_checkpoint",
    "replace_folder",
    "save_weights",
    "write_checkpoint",
]


def write_checkpoint(
    folder: Path,
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    state: dict[str, Any],
    *,
    tokenizer_from: Path | None = None,
    format: str | None = None,
) -> None:
    """Write all that a run needs to go on, in place of the checkpoint before.

    `state` is plain data, its `identity` says which run this is. With the files of a tokenizer, the
    checkpoint can be used as a model; `format`, where given, is what it then speaks by default.
    Raises DataError where it can't be written (a full disk, say); the checkpoint before is then
    still whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    fresh = folder / "checkpoint.writing"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        save_weights(model, fresh)
        if has_lora(model):
            trained: dict[str, torch.Tensor] = {
                name: p.detach() for name, p in model.named_parameters() if p.requires_grad
            }
            save_file(trained, fresh / "adapters.safetensors")
        save_file(_tensors(optimizer), fresh / "optimizer.safetensors")
        (fresh / "trainer.json").write_text(json.dumps(state), encoding="utf-8")
        if format is not None:
            (fresh / FORMAT_FILE).write_text(json.dumps({"format": format}), encoding="utf-8")
        for file in () if tokenizer_from is None else _tokenizer_files(tokenizer_from):
            shutil.copy(file, fresh)
        _flush(fresh)
        replace_folder(fresh, folder / "checkpoint")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DataError(
            f"can't save a checkpoint in {folder} ({error}): the last one that was saved is whole; "
            "make room and resume"
        ) from error


def _tensors(optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    return {
        f"{index}.{name}": value.contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _tokenizer_files(folder: Path) -> list[Path]:
    names = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja")
    return [file for name in names for file in sorted(folder.glob(name)) if file.is_file()]


def _flush(folder: Path) -> None:
    """Have the files on the disk before their folder is renamed: a power cut is survived too."""
    for file in folder.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def save_weights(model: "PreTrainedModel", folder: Path) -> None:
    """Write a model as an ordinary Hugging Face checkpoint, in one file; tied weights once, and
    adapters added in.
    """
    from safetensors.torch import save_file

    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    file = folder / "model.safetensors"
    places: set[int] = set()
    weights = {}
    merged = has_lora(model)
    for name, value in (merged_weights(model) if merged else model.state_dict()).items():
        # Of tied ones the first, which is the embedding: vLLM looks for it under that name.
        if value.data_ptr() not in places:
            places.add(value.data_ptr())
            weights[name] = (value.to(model.dtype) if merged else value).contiguous()
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)  # the library lets nobody else read it


def read_checkpoint(
    folder: Path,
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    identity: dict[str, Any],
) -> dict[str, Any] | None:
    """Take up the checkpoint in `folder`: its state. None where there is none.

    Raises DataError where it is of another run or can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, load_model

    path = folder / "checkpoint"
    if not path.exists() and (folder / "checkpoint.old").exists():
        os.replace(folder / "checkpoint.old", path)  # killed between the two renames
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
        tensors = load_file(path / "optimizer.safetensors")
        _refuse_other(path, state["identity"], json.loads(json.dumps(identity)))
        if has_lora(model):
            adapters = load_file(path / "adapters.safetensors")
            model.load_state_dict(adapters, strict=False)
        else:
            load_model(model, path / "model.safetensors")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{path} can't be read ({error}): remove it to start anew") from error
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        kept.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})
    return state


def _refuse_other(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise DataError(
                f"{path} is of another run, whose {name} is {saved.get(name)!r} and not "
                f"{wanted.get(name)!r}: go on with that, remove it, or name another folder"
            )


def replace_folder(fresh: Path, path: Path) -> None:
    """Put the folder `fresh` in the place of `path`; a crash leaves one of them whole."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(fresh, path)
    shutil.rmtree(old, ignore_errors=True)

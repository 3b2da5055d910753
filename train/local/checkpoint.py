"""Training checkpoints: whole or not there, safetensors and JSON only.

A run's folder holds one of them, `checkpoint/`: `model.safetensors` with its `config.json` (the
weights, as an ordinary Hugging Face checkpoint), `optimizer.safetensors` (the optimizer's tensors,
named `<index>.<name>`), `trainer.json` (what else the run needs to resume, and which run this is),
`interlace.json` (the format that it was trained in), and where there are adapters
`adapters.safetensors`: the weights in `model.safetensors` have them added in.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ...rollout.models.files import FORMAT_FILE
from ...tools.errors import DataError, ModelError
from ...tools.files import open_ordinary, read_object
from .lora import has_lora, merged_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "Change",
    "are_finite",
    "read_checkpoint",
    "replace_folder",
    "save_weights",
    "write_checkpoint",
]

_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja")
Change: TypeAlias = dict[str, Any]
"""A setting that was changed on purpose when a run was resumed: `step`, `name`, `was`, `now`."""


def are_finite(model: "PreTrainedModel") -> bool:
    """True if all weights in training are finite."""
    import torch

    finite = [p.detach().isfinite().all() for p in model.parameters() if p.requires_grad]
    return bool(torch.stack(finite).all())


def write_checkpoint(
    folder: Path,
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    state: dict[str, Any],
    *,
    tokenizer_from: Path | None = None,
    format: str | None = None,
) -> None:
    """Write all that a run needs to resume, in place of the previous checkpoint.

    `state` is plain data, its `identity` says which run this is. With the files of a tokenizer, the
    checkpoint can be used as a model; `format`, where given, is what it then speaks by default.
    Raises DataError where it can't be written (a full disk, say), ModelError where weights are not
    numbers; the checkpoint before is then still whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not are_finite(model):
        raise ModelError(f"weights are not numbers: no checkpoint is made of them in {folder}")
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
        if tokenizer_from is not None:
            for file in (each for names in _TOKENIZER_FILES for each in tokenizer_from.glob(names)):
                if file.is_file():
                    shutil.copy(file, fresh)
        _flush(fresh)
        replace_folder(fresh, folder / "checkpoint")
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        whole = (folder / "checkpoint").exists()
        then = "the last one that was saved is whole" if whole else "there is none yet"
        raise DataError(
            f"can't save a checkpoint in {folder} ({error}): {then}; mend this and resume"
        ) from error


def _tensors(optimizer: "torch.optim.Optimizer") -> "dict[str, torch.Tensor]":
    return {
        f"{index}.{name}": value.contiguous()
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


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
    *,
    changed: Collection[str] = (),
    fixed: Collection[str] = (),
    advice: Callable[[Change], str] = lambda change: "say so",
) -> dict[str, Any] | None:
    """Load the checkpoint in `folder` and return its state, or None if there is no checkpoint.

    What differs between the saved `identity` and this one must be among `changed`, the settings
    that the user changed explicitly, and not among those that are `fixed`. The state's `changes`
    then has it, after the earlier ones. `advice` says how to change it.

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
        state = read_object(path / "trainer.json")
    except DataError as error:
        raise DataError(f"{path} can't be read ({error}): remove it to start anew") from error
    try:
        for file in path.glob("*.safetensors"):
            open_ordinary(file).close()
        tensors = load_file(path / "optimizer.safetensors")
        found = _changes(state["identity"], json.loads(json.dumps(identity)))
        for change in found:
            name = change["name"]
            if name in fixed or name not in changed:
                whose = f"whose {name} is {change['was']!r} and not {change['now']!r}"
                whose = _CONTENTS.get(name, whose)
                then = "" if name in fixed else f"{advice(change)} to change it from here on, "
                raise DataError(
                    f"{path} is of another run, {whose}: {then}go on with that, remove it, or name "
                    "another folder"
                )
        step = state["done"] + 1
        state["changes"] = [*state.get("changes", ()), *({"step": step} | each for each in found)]
        if has_lora(model):
            adapters = load_file(path / "adapters.safetensors")
            model.load_state_dict(adapters, strict=False)
        else:
            load_model(model, path / "model.safetensors")
        kept: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            index, name = key.split(".", 1)
            kept.setdefault(int(index), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": kept, "param_groups": groups})
    except DataError:
        raise
    except (OSError, *_DAMAGED, SafetensorError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{path} can't be read ({why}): remove it to start anew") from error
    return state


_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""Errors of reading what is not as it was written."""
_CONTENTS = {
    "weights": "with other files of the model that it began with: they have changed since",
    "files": "with another content of databases or corpora: they have changed since",
}


def _changes(saved: dict[str, Any], wanted: dict[str, Any]) -> list[Change]:
    """The settings that differ, as far as the run that was saved knew of them.

    How the model's place is written does not count where its files are known. Contents come last:
    they differ, too, where another model or other tools are named.
    """
    known = saved.keys() & wanted.keys()
    same_files = "weights" in known and saved["weights"] == wanted["weights"]
    return [
        {"name": name, "was": saved[name], "now": wanted[name]}
        for name in sorted(known, key=lambda name: (name in _CONTENTS, name))
        if saved[name] != wanted[name] and not (name == "model" and same_files)
    ]


def replace_folder(fresh: Path, path: Path) -> None:
    """Put the folder `fresh` in the place of `path`; a crash leaves one of them whole."""
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(path, old)
    os.replace(fresh, path)
    shutil.rmtree(old, ignore_errors=True)

"""What can be wrong with a model on disk is told in one sentence, before anything is sampled."""

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import byte_tokenizer, checkpoint

from interlace.rollout.engines import TransformersEngine
from interlace.rollout.engines.local import load_checkpoint as on_disk
from interlace.tools.errors import MissingExtra, ModelError

torch.set_num_threads(1)


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def make_huge(name: str, folder: Path) -> None:
    edit_config(folder, **{name: 10**9})


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file) | {name.replace("__", "."): w for name, w in changes.items()}
    save_file({n: w for n, w in weights.items() if w is not None}, file, {"format": "pt"})


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def lose_a_shard(folder: Path) -> None:
    shards = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))


def lose_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle": (as_pickle, r"pickle \(pytorch_model\.bin\)"),
    "cut short": (cut_short, "broken or cut short"),
    "garbage": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 100),
        "broken or cut short",
    ),
    "a shard lost": (lose_a_shard, "lacks model-00001-of-00002"),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "it has no model.safetensors",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "config no JSON": (lambda folder: (folder / "config.json").write_text("{"), "can't be read"),
    "unknown architecture": (
        lambda folder: edit_config(folder, model_type="unheard_of"),
        "can't be read",
    ),
    "a weight missing": (
        lambda folder: edit_weights(folder, model__norm__weight=None),
        r"do not fit its config\.json: model\.norm\.weight",
    ),
    "another shape": (
        lambda folder: edit_weights(folder, model__norm__weight=torch.ones(7)),
        r"do not fit its config\.json: model\.norm\.weight",
    ),
    **{
        f"a huge {name}": (
            partial(make_huge, name),
            rf"config\.json,? (which )?says .*{name} 1000000000",
        )
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    },
    "no tokenizer": (
        lose_the_tokenizer,
        r"no tokenizer\.json",
    ),
    "another tokenizer": (
        lambda folder: byte_tokenizer(folder, [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]),
        "do not belong together",
    ),
    "a sliding window": (
        lambda folder: edit_config(folder, layer_types=["sliding_attention"] * 2),
        "layers of kind sliding_attention",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_checkpoint_is_told_in_one_sentence(tmp_path: Path, fault: str) -> None:
    breaks, message = BROKEN[fault]
    breaks(checkpoint(tmp_path))
    with pytest.raises(ModelError, match=message) as raised:
        TransformersEngine.load(tmp_path, device="cpu")
    assert "\n" not in str(raised.value)


def test_a_folder_or_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder"):
        TransformersEngine.load(tmp_path / "nowhere", device="cpu")
    with pytest.raises(ModelError, match="'abacus' can't be used here"):
        TransformersEngine.load(checkpoint(tmp_path), device="abacus")


def test_a_model_too_large_for_the_memory_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkpoint(tmp_path)
    monkeypatch.setattr(on_disk, "free_bytes", lambda device: 100_000)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(ModelError, match="GiB free: take a smaller model"):
        TransformersEngine.load(path, device="cpu")


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_torch_or_transformers_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"\[local\]"):
        TransformersEngine.load(tmp_path)


def test_bfloat16_loads_as_asked_and_float32_is_the_default_on_a_cpu(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    edit_config(path, dtype="bfloat16")
    for dtype, expected in (("bfloat16", torch.bfloat16), ("auto", torch.float32)):
        engine = TransformersEngine.load(path, device="cpu", dtype=dtype, max_context=100)
        assert next(engine._batch.model.parameters()).dtype is expected
        assert engine.context_length == 100
        asyncio.run(engine.aclose())

"""Tensors of a step lie where the model does: on `meta`, which refuses to be mixed with the CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import checkpoint
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from interlace.rollout.engines import Request, Sampling
from interlace.rollout.engines.local.attention import KeyValues, plan, register
from interlace.rollout.engines.local.batch import BatchRow, RunningBatch
from interlace.rollout.engines.local.memory import one_memory_error
from interlace.rollout.engines.local.sampler import TokenSampler

META = torch.device("meta")


def test_all_of_a_plan_is_on_the_models_device_in_its_type() -> None:
    cache = KeyValues(2, 2, 32, torch.bfloat16, META)
    cache.grow(4, 64)
    held, counts = np.array([9, 5, 0, 2]), np.array([1, 1, 7, 3])
    step = plan(cache, held, counts, 2, (torch.bfloat16, META))
    (block,) = step.blocks
    masks = [step.mask, block.mask]
    places = [step.written, block.gather, block.real]
    assert all(isinstance(tensor, Tensor) and tensor.device == META for tensor in masks + places)
    assert {tensor.dtype for tensor in masks if tensor is not None} == {torch.bfloat16}


def test_a_step_of_the_model_mixes_no_devices(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = AutoConfig.from_pretrained(checkpoint(tmp_path_factory.mktemp("model")))
    auto: Any = AutoModelForCausalLM
    with META:
        model = auto.from_config(config, dtype=torch.bfloat16).eval()
    model.config._attn_implementation = register()
    heads, head_dim = config.num_key_value_heads, config.head_dim
    cache = KeyValues(config.num_hidden_layers, heads, head_dim, torch.bfloat16, META)
    batch = RunningBatch(model, cache, frozenset(), 0)
    rows = [BatchRow(Request(np.arange(n, dtype=np.int32), 9), None, 9, held=n - 1) for n in (4, 7)]
    for row in rows:
        row.sampled.append(1)
    with torch.inference_mode():
        logits = batch.forward(rows, np.array([1, 1]), 2)
        assert logits.device == META and logits.shape == (2, config.vocab_size)


@pytest.mark.parametrize(
    "samplings",
    [
        [Sampling(), Sampling(temperature=0.7)],
        [Sampling(top_k=5), Sampling(temperature=0)],
        [Sampling(temperature=0)] * 2,
    ],
)
def test_drawing_mixes_no_devices(samplings: list[Sampling]) -> None:
    draw = TokenSampler(samplings, META).draw(torch.zeros(2, 50, device=META), [0.1, 0.9])
    assert {draw.tokens.device, draw.logprobs.device, draw.raw.device} == {META}


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_library_of_the_card_that_finds_no_room_is_out_of_memory(said: str) -> None:
    with pytest.raises(MemoryError), one_memory_error():
        raise RuntimeError(said)

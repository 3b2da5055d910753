"""A check, by trial, that this engine can drive a model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ....tools.errors import ModelError
from ...ledger import Ids
from ..base import Request
from .attention import KeyValues, UnsupportedModel, register
from .batch import BatchRow, RunningBatch
from .memory import one_memory_error

__all__ = ["PreparedModel", "prepare_model"]

# Rotary embeddings that depend on the longest context in the batch: what is cached would be wrong.
_UNSTEADY_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model that passed."""

    model: nn.Module
    context_length: int
    vocabulary: int
    device: torch.device

    def batch(self, eos: frozenset[int], kept_bytes: int) -> RunningBatch:
        """An empty batch for it."""
        config: Any = self.model.config
        heads = config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        weight = next(self.model.parameters())
        cache = KeyValues(
            config.num_hidden_layers,
            getattr(config, "num_key_value_heads", None) or heads,
            head_dim,
            weight.dtype,
            weight.device,
        )
        return RunningBatch(self.model, cache, eos, kept_bytes)


def prepare_model(model: nn.Module, max_context: int | None) -> PreparedModel:
    """Set the model to our attention and check that it computes the same as before.

    Raises ModelError if it does not: sliding windows, state other than keys and values, and so on.
    """
    config: Any = model.config
    context_length = getattr(config, "max_position_embeddings", None) or max_context or 4096
    context_length = min(context_length, max_context or context_length)
    _refuse_by_config(config, context_length)
    config._attn_implementation = register()
    device = next(model.parameters()).device
    prepared = PreparedModel(model.eval(), context_length, config.vocab_size, device)
    try:
        with torch.inference_mode():
            _compare(prepared)
    except UnsupportedModel as error:
        raise ModelError(
            f"{config.model_type} models can't be run in this process ({error}): use a server"
        ) from error
    except MemoryError as error:
        raise ModelError(
            f"there is no memory left on {device} to run the model in ({error}): take a smaller "
            "model or dtype='bfloat16'"
        ) from error
    return prepared


def _refuse_by_config(config: Any, context_length: int) -> None:
    layers = set(getattr(config, "layer_types", None) or ())
    kinds = layers - {"full_attention"}
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    windowed = not layers and window is not None and window < context_length
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    problem = None
    if getattr(config, "is_encoder_decoder", False):
        problem = "it has an encoder"
    elif kinds:
        problem = f"it has layers of kind {sorted(kinds)[0]}"
    elif windowed:
        problem = f"its attention sees {window} tokens only"
    elif rope.get("rope_type") in _UNSTEADY_ROPE:
        problem = f"its rotary embedding is {rope['rope_type']}"
    if problem:
        raise ModelError(
            f"{config.model_type} models can't be run in this process ({problem}): use a server"
        )


def _compare(prepared: PreparedModel) -> None:
    """Two contexts of unlike length, in two steps, against plain forward passes of each."""
    model = prepared.model
    contexts: list[Ids] = [
        (np.arange(start, start + 7) * 31 % prepared.vocabulary).astype(np.int32)
        for start in (1, 5)
    ]
    batch = prepared.batch(frozenset(), 0)
    rows = [BatchRow(Request(ids, 1), None, 1) for ids in contexts]
    for counts in ((5, 2), (2, 5)):
        try:
            with one_memory_error():
                logits = batch.forward(rows, np.array(counts), 0)
        except (TypeError, AttributeError, ValueError, RuntimeError) as error:
            if isinstance(error, UnsupportedModel):
                raise
            raise UnsupportedModel("it does not take packed contexts") from error
        for row, count in zip(rows, counts, strict=True):
            row.held += count
    for ids, mine in zip(contexts, logits.float(), strict=True):
        context = torch.from_numpy(ids.astype(np.int64))[None].to(prepared.device)
        plain = model(input_ids=context, use_cache=False).logits[0, -1].float()
        # Rounding differs with the kernels; a wrong mask differs by the size of the logits.
        tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.1
        scale = float((plain - plain.mean()).abs().max()) + 1e-6
        if not float((plain - mine).abs().max()) <= tolerance * scale:
            raise UnsupportedModel("its layers keep other state than keys and values")

"""Log-probabilities of the tokens that count, without ever holding the logits of a whole batch.

With a vocabulary of 150,000 tokens, the logits of 8 responses of 2,048 tokens are 10 GB in float32,
and a loss needs them several times over. Here the model gives its last hidden states; from those of
the tokens that count, logits are made a chunk at a time, and made again for the gradient.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...tools.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["check_head", "token_logprobs"]

LOGITS = 1 << 26
"""Logits that are there at a time: 256 MB in float32, and their gradient again as much."""


def token_logprobs(
    model: "PreTrainedModel",
    ids: NDArray[np.int64],
    mask: NDArray[np.bool_],
    temperature: float = 1.0,
    *,
    logits_at_once: int = LOGITS,
) -> "tuple[Tensor, Tensor]":
    """(log-probability, entropy) of each token of `ids` (B, T) where `mask` is set; 0 elsewhere.

    Both are float32 (B, T) on the model's device, under softmax(logits / temperature), and the
    entropy, in nats, is without a gradient. Column 0 is never computed: nothing predicts the first
    token. Rows are padded on the right.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    device = model.device
    wanted = torch.from_numpy(mask[:, 1:]).to(device)
    on_device = torch.from_numpy(ids).to(device)
    hidden = model.base_model(input_ids=on_device, use_cache=False).last_hidden_state
    states, targets = hidden[:, :-1][wanted], on_device[:, 1:][wanted]  # (N, H), (N,)
    head = _head(model)
    size = max(1, logits_at_once // model.config.vocab_size)
    parts = [
        checkpoint(
            _chunk, head, states[at : at + size], targets[at : at + size], temperature,
            use_reentrant=False, preserve_rng_state=False,
        )
        for at in range(0, len(targets), size)
    ]  # fmt: skip
    empty = torch.zeros(on_device.shape, dtype=torch.float32, device=device)
    if not parts:
        return empty, empty.clone()
    places = torch.nonzero(torch.nn.functional.pad(wanted, (1, 0)), as_tuple=True)
    logprobs, entropy = (torch.cat(values) for values in zip(*parts, strict=True))
    return empty.index_put(places, logprobs), empty.index_put(places, entropy)


def _head(model: "PreTrainedModel") -> "nn.Module":
    """The layer that makes logits of hidden states."""
    untyped: Any = model
    head: nn.Module = untyped.get_output_embeddings()
    return head


def _chunk(
    head: "nn.Module", states: "Tensor", targets: "Tensor", temperature: float
) -> "tuple[Tensor, Tensor]":
    import torch

    logits = head(states).float() / temperature  # (n, V)
    total = torch.logsumexp(logits, dim=-1)
    picked = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = total - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)
    return picked - total, entropy


def check_head(model: "PreTrainedModel") -> None:
    """See that the model's logits are its output layer on its last hidden states, and no more.

    Raises ModelError where they are not (scaled or capped logits): the log-probabilities would be
    those of another distribution than the engine's.
    """
    import torch

    ids = torch.arange(1, 9, device=model.device).unsqueeze(0) % model.config.vocab_size
    try:
        with torch.no_grad():
            whole = model(input_ids=ids, use_cache=False).logits.float()
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            mine = _head(model)(hidden).float()
        same = torch.allclose(whole, mine, rtol=1e-2, atol=1e-3 * float(whole.abs().max()))
    except (AttributeError, TypeError):
        same = False
    if not same:
        raise ModelError(
            f"{model.config.model_type} models can't be trained here: their logits are not the "
            "output layer's alone"
        )

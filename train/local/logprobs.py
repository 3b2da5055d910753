"""Log-probabilities of the tokens that count, without ever holding the logits of a whole batch.

With a vocabulary of 150,000 tokens, the logits of 8 responses of 2,048 tokens are 10 GB in float32,
and a loss needs them several times over. Here the model gives its last hidden states; from those of
the tokens that count, logits are made a chunk at a time, and made again for the gradient.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...tools.errors import ModelError
from ..objectives.masked import precise
from .prefixes import Layout, Pack

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

__all__ = ["check_head", "check_packing", "token_logprobs"]

LOGITS = 1 << 26
"""Logits that are there at a time: 256 MB in float32, and their gradient again as much."""


def token_logprobs(
    model: "PreTrainedModel",
    ids: NDArray[np.int64],
    mask: NDArray[np.bool_],
    temperature: float = 1.0,
    *,
    layout: Layout | None = None,
    logits_at_once: int = LOGITS,
) -> "tuple[Tensor, Tensor]":
    """(log-probability, entropy) of each token of `ids` (B, T) where `mask` is set; 0 elsewhere.

    Both are (B, T) on the model's device, in float32 (of a model in float64 in that), under
    softmax(logits / temperature), and the entropy, in nats, is without a gradient. Column 0 is
    never computed: nothing predicts the first token. Rows are padded on the right. With a `layout`
    of these rows, tokens that they share are computed once.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    device = model.device
    if layout is None:
        inputs = {"input_ids": torch.from_numpy(ids).to(device)}
        places = np.arange(ids.size).reshape(ids.shape)
    else:
        inputs, places = layout.inputs(model), layout.places
    hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
    wanted = mask[:, 1:].nonzero()
    unique, first, of = np.unique(
        places[:, 1:][wanted], return_index=True, return_inverse=True
    )  # the N tokens to compute, and which of them each wanted one is
    before = torch.from_numpy(places[:, :-1][wanted][first]).to(device)
    states = hidden.flatten(0, 1)[before]  # (N, H)
    targets = inputs["input_ids"].flatten()[torch.from_numpy(unique).to(device)]  # (N,)
    head = _head(model)
    size = max(1, logits_at_once // model.config.vocab_size)
    parts = [
        checkpoint(
            _chunk, head, states[at : at + size], targets[at : at + size], temperature,
            use_reentrant=False, preserve_rng_state=False,
        )
        for at in range(0, len(targets), size)
    ]  # fmt: skip
    kind = torch.promote_types(hidden.dtype, torch.float32)
    empty = torch.zeros(ids.shape, dtype=kind, device=device)
    if not parts:
        return empty, empty.clone()
    rows, columns, which = (torch.from_numpy(each).to(device) for each in (*wanted, of))
    logprobs, entropy = (torch.cat(values)[which] for values in zip(*parts, strict=True))
    at = (rows, columns + 1)
    return empty.index_put(at, logprobs), empty.index_put(at, entropy)


def _head(model: "PreTrainedModel") -> "nn.Module":
    """The layer that makes logits of hidden states."""
    untyped: Any = model
    head: nn.Module = untyped.get_output_embeddings()
    return head


def _chunk(
    head: "nn.Module", states: "Tensor", targets: "Tensor", temperature: float
) -> "tuple[Tensor, Tensor]":
    import torch

    logits = precise(head(states)) / temperature  # (n, V)
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


def check_packing(model: "PreTrainedModel") -> None:
    """See that rows packed by `prefixes.py` have the log-probabilities that they have alone.

    Raises ModelError where they don't: layers that look at the order of tokens otherwise than by
    attention over positions (a sliding window, a recurrent state), or that take no such mask.
    """
    import torch

    config: Any = model.config
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds and getattr(config, "sliding_window", None):
        kinds = {"sliding_attention"}
    same = kinds <= {"full_attention"}
    if same:
        rows = [[3, 1, 4, 1, 5, 9], [3, 1, 4, 2, 6, 5], [3, 1, 7, 2, 6, 5]]
        ids = np.array(rows, np.int64) % config.vocab_size
        lengths = np.full(3, 6)
        layout = Layout.of(ids, lengths, [Pack([0, 1, 2], 13)])
        mask = np.ones(ids.shape, np.bool_)
        try:
            with torch.no_grad():
                alone, _ = token_logprobs(model, ids, mask)
                packed, _ = token_logprobs(model, ids, mask, layout=layout)
            # A quarter of half the digits: rounding stays far below, another context far above.
            limit = max(torch.finfo(each).eps for each in (model.dtype, torch.float32)) ** 0.5 / 4
            same = bool((alone - packed).abs().mean() <= limit * alone.abs().mean())
        except (AttributeError, TypeError, ValueError, RuntimeError):
            same = False
    if not same:
        raise ModelError(
            f"{config.model_type} models can't be trained on packed rows: rows that begin alike "
            "are computed one by one"
        )

"""Keys and values of ragged contexts, and the attention over them.

The tokens of one step lie side by side in one sequence, as if the batch were 1: first one token of
each decoding row, then the new tokens of each row that is being filled. Nothing but attention
looks across tokens, so no layer computes padding; attention reads the rows apart again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["AttentionBlock", "AttentionStep", "KeyValues", "UnsupportedModel", "plan", "register"]

_NAME = "interlace"
# Scores of a block that are computed at once, at most: bounds its mask and padding.
_BLOCK = 1 << 24


class UnsupportedModel(RuntimeError):
    """The model's attention is of a kind that this cache can't serve."""


class KeyValues:
    """Keys and values of all running rows: one tensor (layer, 2, row, head, position, head_dim).

    It grows as needed. What lies past a row's length is finite and never looked at.
    """

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.heads = heads
        self._tensor = torch.zeros(layers, 2, 0, heads, 0, head_dim, dtype=dtype, device=device)

    @property
    def capacity(self) -> int:
        """Positions a row has room for."""
        return self._tensor.shape[4]

    def bytes_for(self, tokens: int) -> int:
        """The memory that so many positions of one row take."""
        layers, two, _, heads, _, head_dim = self._tensor.shape
        return layers * two * heads * tokens * head_dim * self._tensor.element_size()

    def missing(self, rows: int, length: int) -> tuple[int, int] | None:
        """The (rows, positions) to grow to, so that so many fit; None where they do."""
        has_rows, has_length = self._tensor.shape[2], self._tensor.shape[4]
        if rows <= has_rows and length <= has_length:
            return None
        if rows > has_rows:
            rows = max(rows, min(2 * has_rows, rows + 16))
        if length > has_length:
            length = -(-max(length, has_length + has_length // 2) // 64) * 64
        return max(rows, has_rows), max(length, has_length)

    def grow(self, rows: int, length: int) -> None:
        """Make room; what the first `rows` rows hold stays. Changes nothing where that fails."""
        old = self._tensor
        shape = (*old.shape[:2], rows, old.shape[3], length, old.shape[5])
        new = torch.zeros(shape, dtype=old.dtype, device=old.device)
        new[:, :, : old.shape[2], :, : old.shape[4]] = old[:, :, :rows]
        self._tensor = new

    def clear(self) -> None:
        """Give all memory back."""
        layers, two, _, heads, _, head_dim = self._tensor.shape
        self._tensor = self._tensor.new_zeros(layers, two, 0, heads, 0, head_dim)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's positions over another row's."""
        self._tensor[:, :, target, :, :length] = self._tensor[:, :, source, :, :length]

    def take(self, row: int, length: int) -> Tensor:
        """A copy of a row, (layer, 2, head, length, head_dim)."""
        return self._tensor[:, :, row, :, :length].clone()

    def put(self, row: int, kept: Tensor) -> None:
        """Write what `take` gave, or the beginning of it."""
        self._tensor[:, :, row, :, : kept.shape[3]] = kept

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """One layer's keys and values, each (row, head, position, head_dim)."""
        both = self._tensor[index]
        return both[0], both[1]


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Rows that are being filled, attended together. Its tokens follow one another in the step.

    `gather` (rows, most) are the step's tokens, padded by repeating; `real` (rows, most) says which
    are none of the padding; `mask` (rows, 1, most, length) is added to the scores.
    """

    first: int
    last: int
    length: int
    gather: Tensor
    real: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class AttentionStep:
    """One forward pass: where its keys and values go, and who looks at what.

    `written` (tokens * heads,) are places in a layer's keys laid flat; `mask` (decoding, 1, 1,
    length) is added to the scores of the decoding rows, which are the first rows and tokens.
    """

    cache: KeyValues
    written: Tensor
    decoding: int
    length: int
    mask: Tensor | None
    blocks: tuple[AttentionBlock, ...]


def plan(
    cache: KeyValues,
    held: NDArray[np.int64],
    counts: NDArray[np.int64],
    decoding: int,
    model: tuple[torch.dtype, torch.device],
) -> AttentionStep:
    """Lay out a step: row i holds `held[i]` positions and gets `counts[i]` more.

    The first `decoding` rows get one each. `counts` may be shorter than the rows there are.
    """
    dtype, device = model
    rows = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    positions = held[rows] + within
    heads = np.arange(cache.heads)
    written = (rows[:, None] * cache.heads + heads) * cache.capacity + positions[:, None]
    length = int(held[:decoding].max()) + 1 if decoding else 0
    mask = None
    if decoding:
        seen = np.arange(length) <= held[:decoding, None]
        mask = _additive(seen[:, None, None], dtype, device)
    blocks = []
    first, offset = decoding, decoding
    while first < len(counts):
        last = _block_end(held, counts, first)
        block, offset = _block(held, counts, (first, last), offset, model)
        blocks.append(block)
        first = last
    return AttentionStep(
        cache, torch.from_numpy(written.ravel()).to(device), decoding, length, mask, tuple(blocks)
    )


def _block_end(held: NDArray[np.int64], counts: NDArray[np.int64], first: int) -> int:
    most = length = 0
    for row in range(first, len(counts)):
        most = max(most, int(counts[row]))
        length = max(length, int(held[row] + counts[row]))
        if row > first and (row + 1 - first) * most * length > _BLOCK:
            return row
    return len(counts)


def _block(
    held: NDArray[np.int64],
    counts: NDArray[np.int64],
    rows: tuple[int, int],
    offset: int,
    model: tuple[torch.dtype, torch.device],
) -> tuple[AttentionBlock, int]:
    dtype, device = model
    held, counts = held[slice(*rows)], counts[slice(*rows)]
    most, length = int(counts.max()), int((held + counts).max())
    within = np.arange(most)
    starts = offset + np.cumsum(counts) - counts
    gather = starts[:, None] + np.minimum(within, counts[:, None] - 1)
    real = within < counts[:, None]
    seen = np.arange(length) <= (held[:, None] + within)[..., None]
    block = AttentionBlock(
        *rows,
        length,
        torch.from_numpy(gather).to(device),
        torch.from_numpy(real).to(device),
        _additive(seen[:, None], dtype, device),
    )
    return block, offset + int(counts.sum())


def _additive(seen: NDArray[np.bool_], dtype: torch.dtype, device: torch.device) -> Tensor:
    hidden = torch.from_numpy(~seen).to(device)
    return torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, Any]:
    """Attention as transformers calls it: (1, heads, tokens, head_dim) in, tokens first out."""
    step: AttentionStep | None = rest.pop("interlace_step", None)
    if step is None:  # an ordinary forward pass of the same model
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
    for name in ("softcap", "s_aux", "position_bias"):
        if rest.get(name) is not None:
            raise UnsupportedModel(f"its attention uses {name}")
    keys, values = step.cache.layer(int(module.layer_idx))  # type: ignore[arg-type]
    head_dim = keys.shape[-1]
    expected = (step.cache.heads, head_dim)
    if (key.shape[1], key.shape[3]) != expected or (value.shape[1], value.shape[3]) != expected:
        raise UnsupportedModel("its keys and values have an uncommon shape")
    keys.view(-1, head_dim).index_copy_(0, step.written, _tokens(key).reshape(-1, head_dim))
    values.view(-1, head_dim).index_copy_(0, step.written, _tokens(value).reshape(-1, head_dim))
    tokens = _tokens(query)  # (tokens, heads, head_dim)
    out = [_attend_block(tokens, keys, values, block, scaling) for block in step.blocks]
    if step.decoding:
        out.insert(0, _attend_decoding(tokens[: step.decoding], keys, values, step, scaling))
    return (out[0] if len(out) == 1 else torch.cat(out))[None], None


def _tokens(heads_first: Tensor) -> Tensor:
    return heads_first[0].transpose(0, 1)


def _attend_decoding(
    query: Tensor, keys: Tensor, values: Tensor, step: AttentionStep, scaling: float | None
) -> Tensor:
    """One query a row. The query heads that share a key head stand as its queries: nothing is
    copied, neither keys nor values.
    """
    rows, heads, head_dim = query.shape
    grouped = query.reshape(rows, step.cache.heads, heads // step.cache.heads, head_dim)
    out = F.scaled_dot_product_attention(
        grouped,
        keys[:rows, :, : step.length],
        values[:rows, :, : step.length],
        attn_mask=step.mask,
        scale=scaling,
    )
    return out.reshape(rows, heads, head_dim)


def _attend_block(
    tokens: Tensor, keys: Tensor, values: Tensor, block: AttentionBlock, scaling: float | None
) -> Tensor:
    rows = slice(block.first, block.last)
    groups = tokens.shape[1] // keys.shape[1]
    out = F.scaled_dot_product_attention(
        tokens[block.gather].transpose(1, 2),
        keys[rows, :, : block.length].repeat_interleave(groups, dim=1),
        values[rows, :, : block.length].repeat_interleave(groups, dim=1),
        attn_mask=block.mask,
        scale=scaling,
    )
    return out.transpose(1, 2)[block.real]


def register() -> str:
    """Tell transformers of this attention; returns the name to set on a model's configuration.

    A model set to it still runs ordinary forward passes, with torch's own attention.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    return _NAME

"""Rows that begin alike, packed: their common tokens go through the model once.

The leaves of a tree share their first turns, the attempts at one task its prompt. A *pack* is some
rows laid out as one sequence of unique tokens: a token's position is its depth, and it attends to
its own row's earlier tokens alone (a block mask). Each token's log-probability is computed once and
given to every row that has the token, so that any loss of rows is the same number, and its gradient
the sum over the rows: an identity, up to rounding.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["LONGEST", "Layout", "Pack", "attention_cost", "find_packs"]

LONGEST = 1 << 15
"""Tokens of a pack at most: its mask then takes 1 GB, and 2 GB more in bfloat16."""


@dataclass(slots=True)
class Pack:
    """Rows that are laid out together, sorted so that what two rows share, those between share."""

    rows: list[int]
    size: int
    """Their unique tokens."""

    def cost(self, pair: float) -> float:
        """The work of a pass, in tokens: alone a row has a causal mask, of which kernels compute
        half; a block mask is computed whole.
        """
        return self.size + pair * self.size**2 / (2 if len(self.rows) == 1 else 1)


def find_packs(
    rows: Iterable[int],
    ids: NDArray[np.int64],
    lengths: NDArray[np.int64],
    *,
    most_tokens: int,
    pair: float,
) -> list[Pack]:
    """Sort `rows` of `ids` (B, T) into packs: a row joins the one before it if that saves work.

    `lengths` (B,) are the rows' tokens, `most_tokens` a pack's limit, `pair` what attention between
    two tokens costs (`attention_cost`), and no pack is above `LONGEST`. A row that shares too
    little is a pack by itself.

    Example:
        >>> ids = np.array([[1, 2, 3, 4], [7, 8, 9, 9], [1, 2, 3, 5]])
        >>> find_packs(range(3), ids, np.array([4, 4, 4]), most_tokens=99, pair=0.01)
        [Pack(rows=[0, 2], size=5), Pack(rows=[1], size=4)]
    """
    packs: list[Pack] = []
    for row in sorted(rows, key=lambda row: (ids[row, : lengths[row]].tobytes(), row)):
        alone = Pack([row], int(lengths[row]))
        if packs:
            last = packs[-1]
            shared = _shared(ids, lengths, last.rows[-1], row)
            joined = Pack([*last.rows, row], last.size + alone.size - shared)
            apart = last.cost(pair) + alone.cost(pair)
            if joined.size <= min(most_tokens, LONGEST) and joined.cost(pair) < apart:
                packs[-1] = joined
                continue
        packs.append(alone)
    return packs


def _shared(ids: NDArray[np.int64], lengths: NDArray[np.int64], one: int, other: int) -> int:
    """The number of tokens with which both rows begin."""
    most = int(min(lengths[one], lengths[other]))
    differ = ids[one, :most] != ids[other, :most]
    return int(differ.argmax()) if differ.any() else most


@dataclass(frozen=True, slots=True)
class Layout:
    """P packs side by side, padded to U tokens each, and the place of every row's tokens in them.

    U is a multiple of 8. A place counts through all packs: pack * U + its token. Padding attends to
    itself alone.
    """

    ids: NDArray[np.int64]
    """(P, U)."""
    positions: NDArray[np.int64]
    """The depth of each token in its rows, (P, U)."""
    attends: NDArray[np.bool_]
    """True where a token attends to another, (P, U, U)."""
    places: NDArray[np.int64]
    """The place of each token of the rows, (B, T); 0 beyond a row's end."""

    @classmethod
    def of(
        cls, ids: NDArray[np.int64], lengths: NDArray[np.int64], packs: Sequence[Pack]
    ) -> "Layout":
        """The layout of `packs`; their rows, laid end to end, are the rows of `ids` (B, T)."""
        count = len(packs)
        width = -8 * (-max(pack.size for pack in packs) // 8)  # else CUDA kernels copy the mask
        flat, positions = np.zeros((2, count, width), np.int64)
        attends = np.broadcast_to(np.eye(width, dtype=np.bool_), (count, width, width)).copy()
        places = np.zeros(ids.shape, np.int64)
        row = 0
        for number, pack in enumerate(packs):
            end = 0
            for nth in range(len(pack.rows)):
                length = int(lengths[row])
                shared = _shared(ids, lengths, row - 1, row) if nth else 0
                new = slice(end, end + length - shared)
                path = places[row, :shared] = places[row - 1, :shared]
                places[row, shared:length] = number * width + np.arange(new.start, new.stop)
                flat[number, new] = ids[row, shared:length]
                positions[number, new] = np.arange(shared, length)
                attends[number, new][:, path - number * width] = True
                attends[number, new, new] = np.tri(length - shared, dtype=np.bool_)
                row, end = row + 1, new.stop
        return cls(flat, positions, attends, places)

    def inputs(self, model: "PreTrainedModel") -> "dict[str, Tensor]":
        """The arguments of the model's forward pass."""
        import torch

        device = model.device
        dtype = model.dtype
        if torch.is_autocast_enabled(device.type):  # else each layer would cast the mask again
            dtype = torch.get_autocast_dtype(device.type)
        mask = torch.zeros(self.attends.shape, dtype=dtype, device=device)
        mask.masked_fill_(~torch.from_numpy(self.attends).to(device), -torch.inf)
        return {
            "input_ids": torch.from_numpy(self.ids).to(device),
            "position_ids": torch.from_numpy(self.positions).to(device),
            "attention_mask": mask.unsqueeze(1),  # (P, 1, U, U): for all heads
        }


def attention_cost(model: "PreTrainedModel") -> float:
    """The work of attention between two tokens, as a share of a token's work in all other layers:
    4 * heads * head_dim against 2 operations for each weight.
    """
    config: Any = model.config
    base: Any = model.base_model
    weights = sum(parameter.numel() for parameter in base.parameters())
    weights -= sum(parameter.numel() for parameter in base.get_input_embeddings().parameters())
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return float(2 * heads * size * config.num_hidden_layers / weights)

"""Ledgers side by side as arrays: what a trainer computes a loss from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...rollout.ledger import Ledger

__all__ = ["Batch", "micro_batches"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Ledgers side by side, padded on the right with id 0, weight 0 and no log-probability.

    Every column speaks of the token in it as a *target*: what is in column t was predicted from
    the columns before. The first token is predicted by nothing, so column 0 never counts. No
    attention mask is needed: under a causal mask what is padded on the right is seen by nobody that
    counts.
    """

    ids: NDArray[np.int64]
    """(B, T)."""
    mask: NDArray[np.bool_]
    """Which tokens the policy wrote, (B, T)."""
    weights: NDArray[np.float32]
    """The loss weight of each token, (B, T); 0 wherever the policy did not write."""
    logprobs: NDArray[np.float32]
    """The engine's log-probabilities, (B, T), NaN where there is none."""
    versions: NDArray[np.int64]
    """The version of the weights that drew each token, (B, T), -1 where there is none."""
    lengths: NDArray[np.int64]
    """Tokens of each ledger, (B,)."""

    @classmethod
    def of(cls, ledgers: Sequence[Ledger]) -> "Batch":
        """Pad `ledgers` to the longest."""
        lengths = np.array([len(ledger) for ledger in ledgers], np.int64)

        def padded(
            read: Callable[[Ledger], NDArray[Any]], dtype: type[np.generic], empty: float = 0
        ) -> NDArray[Any]:
            rows = np.full((len(ledgers), int(lengths.max())), empty, dtype)
            for row, ledger in enumerate(ledgers):
                rows[row, : len(ledger)] = read(ledger)
            return rows

        mask = padded(lambda ledger: ledger.response_mask, np.bool_)
        weights = padded(lambda ledger: ledger.loss_weights, np.float32)
        mask[:, 0], weights[:, 0] = False, 0
        return cls(
            ids=padded(lambda ledger: ledger.ids, np.int64),
            mask=mask,
            weights=weights,
            logprobs=padded(lambda ledger: ledger.logprobs, np.float32, np.nan),
            versions=padded(lambda ledger: ledger.versions, np.int64, -1),
            lengths=lengths,
        )


def micro_batches(
    rows: Iterable[int], lengths: NDArray[np.int64], most_tokens: int
) -> list[list[int]]:
    """The `rows` in parts that go through the model at once: similar lengths together, and padded
    no part above `most_tokens`. A row that is longer than that is its own part.

    Example:
        >>> micro_batches(range(4), np.array([9, 2, 3, 8]), most_tokens=18)
        [[1, 2], [3, 0]]
    """
    parts: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (int(lengths[row]), row)):
        if parts and (len(parts[-1]) + 1) * int(lengths[row]) <= most_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts

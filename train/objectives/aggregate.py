"""From a loss for each token to one number: what divides the sum."""

from typing import TYPE_CHECKING

from ...tools.errors import UsageError
from .masked import masked, or_one, precise

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AGGREGATIONS", "agg_loss"]

AGGREGATIONS: dict[str, str] = {
    "token-mean": "sum over all tokens / tokens in the batch (DAPO, CISPO, GPPO, REINFORCE++)",
    "token-sum": "sum over all tokens",
    "seq-mean-token-sum": "sum over a response's tokens, mean over responses (RLOO)",
    "seq-mean-token-sum-norm": "the same / a constant, the longest allowed response (Dr. GRPO)",
    "seq-mean-token-mean": "mean over a response's tokens, mean over responses (GRPO, GSPO)",
}


def agg_loss(
    loss_mat: "Tensor",
    loss_mask: "Tensor",
    loss_agg_mode: str = "token-mean",
    dp_size: int = 1,
    batch_num_tokens: "float | Tensor | None" = None,
    global_batch_size: "float | Tensor | None" = None,
    loss_scale_factor: float | None = None,
) -> "Tensor":
    """A scalar from the losses (B, T) of tokens, by one of `AGGREGATIONS`.

    The mask m is in numerator and denominator; a fractional m weighs its token:
        token-mean               sum_it m_it l_it / sum_it m_it
        seq-mean-token-mean      1/N sum_i (sum_t m_it l_it / sum_t m_it)
        seq-mean-token-sum       1/N sum_i sum_t m_it l_it
        seq-mean-token-sum-norm  the same / loss_scale_factor
    where N counts the responses that have a token with m > 0. Without any token the loss is 0
    (in verl NaN).

    When a batch is worked through in parts (micro-batches, `dp_size` workers whose gradients are
    averaged), say what the whole batch has: `batch_num_tokens` and `global_batch_size` take the
    places of sum m and N, and the parts' losses add up to that of the whole. Where `dp_size` is
    above 1 they are needed (ValueError).

    `loss_scale_factor` should be given, and stay the same all through a run: without it the width
    T of this very batch is taken, as in verl, and the weight of a token changes with the padding.

    The signature is verl 0.9.1's. Raises UsageError for an unknown mode.
    """
    if loss_agg_mode not in AGGREGATIONS:
        raise UsageError(
            f"there is no loss aggregation {loss_agg_mode!r}; take one of {', '.join(AGGREGATIONS)}"
        )
    mask = precise(loss_mask)
    losses = masked(loss_mat, mask) * mask
    if loss_agg_mode == "token-sum":
        return losses.sum() * dp_size
    whole = batch_num_tokens if loss_agg_mode == "token-mean" else global_batch_size
    if whole is None and dp_size > 1:
        raise ValueError(
            f"{loss_agg_mode} over {dp_size} workers needs the size of the whole batch"
        )
    if loss_agg_mode == "token-mean":
        return losses.sum() / (or_one(mask.sum()) if whole is None else whole) * dp_size
    tokens = mask.sum(dim=-1)
    rows = losses.sum(dim=-1)
    if loss_agg_mode == "seq-mean-token-mean":
        rows = rows / or_one(tokens)
    loss = rows.sum() / (or_one((tokens > 0).sum()) if whole is None else whole) * dp_size
    if loss_agg_mode == "seq-mean-token-sum-norm":
        loss = loss / (mask.shape[-1] if loss_scale_factor is None else loss_scale_factor)
    return loss

"""Two programs, one policy: weights for what the engine sampled and the trainer computes again.

The engine (another kernel, another precision) and the trainer give the same token slightly
different probabilities, and over a response that adds up: the batch is off-policy without anybody's
doing. Both must be of the same distribution: the trainer's at the temperature of the sampling.
"""

from typing import TYPE_CHECKING

from ...tools.errors import UsageError
from .masked import masked, masked_mean, to_ratio

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["IMPORTANCE_LEVELS", "rollout_correction_weights"]

IMPORTANCE_LEVELS: dict[str, str] = {
    "token": "a weight for each token: biased, little variance",
    "sequence": "one weight a response, the product over its tokens: unbiased, much variance",
}


def rollout_correction_weights(
    log_ratio: "Tensor",
    response_mask: "Tensor",
    rollout_is: str = "token",
    rollout_is_threshold: float | tuple[float, float] = 2.0,
) -> "tuple[Tensor, dict[str, float]]":
    """Truncated importance weights (B, T) for a policy loss, without a gradient; 0 at mask 0.

        w_t = pi_old(a_t) / pi_engine(a_t), the same weights in two programs; `log_ratio` is log w
        token:     min(w_t, C)            sequence: min(prod_t w_t, C), the same at each token
        the loss of a token is multiplied by it: -w_t min(r_t A, clip(r_t) A)

    With (old, engine) log-probabilities (-1, -1), (-1, -3), (-3, -1) and C = 2: 1, 2, 0.135.
    With two bounds (low, high) a weight outside is not cut but set to 0: the token, or the
    response, is left out (IcePop). It stays in the divisor of a mean, which rises for the others
    only if the mask is changed.

    Source: truncated importance sampling, Yao et al. 2025, "Your efficient RL framework secretly
    brings you off-policy RL training"; its C is 2. verl: `rollout_correction`, the same (two bounds
    are written "low_high" there). TRL: `vllm_importance_sampling_cap`.
    When: always, when log-probabilities come from another program than gradients.

    Returned with them: `rollout_is/mean` and `max` of w before it is cut, and the share `cut`.
    """
    if rollout_is not in IMPORTANCE_LEVELS:
        raise UsageError(
            f"there is no importance level {rollout_is!r}; "
            f"take one of {', '.join(IMPORTANCE_LEVELS)}"
        )
    logs = masked(log_ratio.detach(), response_mask)
    if rollout_is == "sequence":
        logs = logs.sum(dim=-1, keepdim=True).expand(logs.shape)
    raw = masked(to_ratio(logs), response_mask)
    if isinstance(rollout_is_threshold, tuple):
        low, high = rollout_is_threshold
        weights = raw.masked_fill((raw < low) | (raw > high), 0.0)
    else:
        weights = raw.clamp(max=rollout_is_threshold)
    metrics = {
        "rollout_is/mean": masked_mean(raw, response_mask).item(),
        "rollout_is/max": raw.max().item() if raw.numel() else 0.0,
        "rollout_is/cut": masked_mean(weights != raw, response_mask).item(),
    }
    return weights, metrics

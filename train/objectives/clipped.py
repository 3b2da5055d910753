"""PPO's clipped loss, which GRPO, Dr. GRPO, DAPO and REINFORCE++ share."""

from typing import TYPE_CHECKING

from .base import ActorConfig, Loss, LossConfig, clip_metrics, clip_range, policy_loss
from .masked import log_ratios, masked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOG_RATIO_LIMIT", "clipped_loss"]

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are cut to +-20 (as in verl), so that a ratio is never infinite; the gradient beyond
is 0."""


def clipped_loss(
    old_log_prob: "Tensor",
    log_prob: "Tensor",
    advantages: "Tensor",
    response_mask: "Tensor",
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: "Tensor | None" = None,
) -> Loss:
    """The pessimistic one of two surrogates, for each token.

        r = pi / pi_old
        J = min(r A, clip(r, 1 - e_low, 1 + e_high) A)             loss = -J
        d J / d log pi = 0 where A > 0 and r > 1 + e_high, or A < 0 and r < 1 - e_low; else r A

    With `clip_ratio_c` = c (dual clip, arXiv 1912.09729): where A < 0, J = max(J, c A), so that a
    token that became much likelier although it was bad cannot blow up the step.

    Source: PPO, arXiv 1707.06347, equation 7. Default: e = 0.2 on either side, no dual clip.
    verl: `vanilla`, the same, but always with dual clip (c = 3). TRL: the same, dual clip is off
    unless `delta` is set.
    When: several updates on one batch; with a single one r = 1 and this is plain REINFORCE.
    """
    import torch

    if config is None:
        config = LossConfig()
    low, high = clip_range(config)
    advantages = masked(advantages, response_mask)
    log_ratio = log_ratios(log_prob, old_log_prob, response_mask)
    log_ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(low, high)
    losses = torch.maximum(plain, clipped)
    bounded = None
    if config.clip_ratio_c is not None:
        bound = -advantages * config.clip_ratio_c
        bounded = (advantages < 0) & (losses > bound)
        losses = torch.where(bounded, bound, losses)
    loss = policy_loss(losses, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, clip_metrics(log_ratio, response_mask, clipped > plain, bounded)

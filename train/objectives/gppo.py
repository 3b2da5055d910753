"""GPPO: PPO's clip, but a clipped token keeps a bounded gradient."""

from typing import TYPE_CHECKING

from .base import ActorConfig, Loss, LossConfig, Objective, clip_metrics, clip_range, policy_loss
from .clipped import LOG_RATIO_LIMIT
from .grpo import grpo_advantage
from .masked import log_ratios, masked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GPPO", "gppo_loss"]

_CLIPS = LossConfig(clip_ratio_low=0.2, clip_ratio_high=0.28)


def gppo_loss(
    old_log_prob: "Tensor",
    log_prob: "Tensor",
    advantages: "Tensor",
    response_mask: "Tensor",
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: "Tensor | None" = None,
) -> Loss:
    """The value of PPO's clipped loss, with a gradient where that has none.

        c = min(r, 1 + e_high) where A > 0; max(r, 1 - e_low) where A < 0
        J = min(r A, clip(r, (1 - e_low) r / sg(r), (1 + e_high) r / sg(r)) A), which is c A
        d J / d log pi = c A

    So a good token that became likely enough is still pushed up, with weight 1 + e_high, and a bad
    one that became unlikely still down, with 1 - e_low: errors are corrected faster. With
    `clip_ratio_c` dual clip works as in PPO's loss, and drops the gradient.

    Source: Klear-Reasoner, arXiv 2508.07629. Its released code has dual clip and a mean over all
    tokens. verl: none, so the plug-in brings it along. TRL: none.
    When: in place of DAPO's clip, where its clipped share is large.
    """
    import torch

    if config is None:
        config = _CLIPS
    low, high = clip_range(config)
    advantages = masked(advantages, response_mask)
    log_prob = masked(log_prob, response_mask)
    log_ratio = log_ratios(log_prob, old_log_prob, response_mask).detach()
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    weight = torch.where(advantages > 0, ratio.clamp(max=high), ratio.clamp(min=low))
    # exp(0): the value 1, with the gradient of log pi.
    losses = -weight * advantages * (log_prob - log_prob.detach()).exp()
    bounded = None
    if config.clip_ratio_c is not None:
        bound = -advantages * config.clip_ratio_c
        bounded = (advantages < 0) & (weight > config.clip_ratio_c)
        losses = torch.where(bounded, bound, losses)
    loss = policy_loss(losses, response_mask, loss_agg_mode, config, rollout_is_weights)
    clipped = (weight != ratio) & (advantages != 0)
    return loss, clip_metrics(log_ratio, response_mask, clipped, bounded)


GPPO = Objective(
    name="gppo",
    summary="PPO clip whose clipped tokens keep a bounded gradient: faster from errors",
    paper="2508.07629",
    advantage=grpo_advantage,
    loss=gppo_loss,
    loss_agg_mode="token-mean",
    config=_CLIPS,
)
"""GPPO with GRPO's advantages and DAPO's bounds."""

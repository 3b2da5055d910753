"""CISPO: clip the weight, never the gradient."""

from typing import TYPE_CHECKING

from .base import ActorConfig, Loss, LossConfig, Objective, clip_metrics, clip_range, policy_loss
from .clipped import LOG_RATIO_LIMIT
from .grpo import grpo_advantage
from .masked import log_ratios, masked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CISPO", "cispo_loss"]

_CLIPS = LossConfig(clip_ratio_low=1.0, clip_ratio_high=0.28)


def cispo_loss(
    old_log_prob: "Tensor",
    log_prob: "Tensor",
    advantages: "Tensor",
    response_mask: "Tensor",
    loss_agg_mode: str = "token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: "Tensor | None" = None,
) -> Loss:
    """REINFORCE with a clipped importance weight: no token's gradient is ever dropped.

        J = sg(clip(r, 1 - e_low, 1 + e_high)) A log pi
        d J / d log pi = clip(r, 1 - e_low, 1 + e_high) A

    PPO's clip drops rare tokens that matter ("wait", "however") after the first update, since their
    ratio moves most; here they go on counting, with a bounded weight.

    Source: MiniMax-M1, arXiv 2506.13585, equations 4 and 5. Default: no lower bound (e_low = 1), as
    there; the paper does not give e_high: 0.28 is DAPO's.
    verl: `cispo`, the same, with its default e_low = 0.2. TRL: clips at `epsilon_high` itself,
    which there is the cap (5.0, say) and not its distance from 1.
    When: many updates a batch.
    """
    if config is None:
        config = _CLIPS
    low, high = clip_range(config)
    log_ratio = log_ratios(log_prob, old_log_prob, response_mask)
    log_ratio = log_ratio.detach().clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    weight = ratio.clamp(low, high)
    losses = -weight * masked(advantages, response_mask) * masked(log_prob, response_mask)
    loss = policy_loss(losses, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, clip_metrics(log_ratio, response_mask, weight != ratio)


CISPO = Objective(
    name="cispo",
    summary="importance weight clipped at 1.28, gradient of no token dropped: many updates a batch",
    paper="2506.13585",
    advantage=grpo_advantage,
    loss=cispo_loss,
    loss_agg_mode="token-mean",
    config=_CLIPS,
    dynamic_sampling=True,
)
"""CISPO with DAPO's dynamic sampling, as published."""

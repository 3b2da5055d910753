"""GSPO: one ratio for a whole response."""

from typing import TYPE_CHECKING

from .base import ActorConfig, Loss, LossConfig, Objective, clip_metrics, clip_range, policy_loss
from .grpo import grpo_advantage
from .masked import log_ratios, masked, or_one, precise

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GSPO", "gspo_loss"]

_CLIPS = LossConfig(clip_ratio_low=3e-4, clip_ratio_high=4e-4)


def gspo_loss(
    old_log_prob: "Tensor",
    log_prob: "Tensor",
    advantages: "Tensor",
    response_mask: "Tensor",
    loss_agg_mode: str = "seq-mean-token-mean",
    config: ActorConfig | None = None,
    rollout_is_weights: "Tensor | None" = None,
) -> Loss:
    """Clip the geometric mean of a response's ratios, not each ratio.

        s_i = exp(1/L_i sum_t m_it log r_it), L_i = sum_t m_it
        J = 1/N sum_i min(s_i A_i, clip(s_i, 1 - e_low, 1 + e_high) A_i)
        d J_i / d log pi_t = s_i A_i / L_i, or 0 for the whole response where it is clipped

    Log-ratios [0.1, -0.05, 0.02] give s = 1.0236077. It is written per token,
    log s_it = sg(log s_i) + log pi_t - sg(log pi_t) with sg a stop-gradient, which has the same
    value and gradient under "seq-mean-token-mean" and takes advantages that differ by token
    (GSPO-token). log s is cut at 10.

    Source: arXiv 2507.18071, equations 5, 7 and 13. Default: e_low 3e-4, e_high 4e-4.
    verl: `gspo`, the same; with its default clip ratio of 0.2 nothing is ever clipped: set both.
    TRL: `importance_sampling_level="sequence"`.
    When: mixtures of experts, whose single ratios jump, and long responses. The mean is over the
    policy's tokens only: with a tool's output in it the ratio would be pulled towards 1.
    """
    import torch

    if config is None:
        config = _CLIPS
    low, high = clip_range(config)
    advantages = masked(advantages, response_mask)
    log_ratio = log_ratios(log_prob, old_log_prob, response_mask)
    mask = precise(response_mask)
    sequence = (log_ratio * mask).sum(dim=-1, keepdim=True) / or_one(mask.sum(dim=-1, keepdim=True))
    log_prob = masked(log_prob, response_mask)
    ratio = (sequence.detach() + log_prob - log_prob.detach()).clamp(max=10.0).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(low, high)
    losses = torch.maximum(plain, clipped)
    loss = policy_loss(losses, response_mask, loss_agg_mode, config, rollout_is_weights)
    return loss, clip_metrics(log_ratio, response_mask, clipped > plain)


GSPO = Objective(
    name="gspo",
    summary="one ratio a response (geometric mean), clipped within 0.0004: steady for MoE models",
    paper="2507.18071",
    advantage=grpo_advantage,
    loss=gspo_loss,
    loss_agg_mode="seq-mean-token-mean",
    config=_CLIPS,
)
"""GSPO as published."""

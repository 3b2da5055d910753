"""GSPO: one ratio for a whole response."""

from typing import TYPE_CHECKING

from .base import ClipRange, LossConfig, Objective, TokenLosses, verl_loss
from .grpo import grpo_advantage
from .masked import or_one, precise

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GSPO", "gspo_loss"]

_CLIPS = LossConfig(clip_ratio_low=3e-4, clip_ratio_high=4e-4)


@verl_loss("seq-mean-token-mean", _CLIPS)
def gspo_loss(
    log_ratio: "Tensor", advantages: "Tensor", log_prob: "Tensor", mask: "Tensor", bounds: ClipRange
) -> TokenLosses:
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
    weights = precise(mask)
    length = or_one(weights.sum(dim=-1, keepdim=True))
    sequence = (log_ratio * weights).sum(dim=-1, keepdim=True) / length
    ratio = (sequence.detach() + log_prob - log_prob.detach()).clamp(max=10.0).exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(bounds.low, bounds.high)
    return TokenLosses(plain.maximum(clipped), clipped > plain)


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

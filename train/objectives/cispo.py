"""CISPO: clip the weight, never the gradient."""

from typing import TYPE_CHECKING

from .base import ClipRange, LossConfig, Objective, TokenLosses, verl_loss
from .grpo import grpo_advantage
from .masked import to_ratio

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CISPO", "cispo_loss"]

_CLIPS = LossConfig(clip_ratio_low=1.0, clip_ratio_high=0.28)


@verl_loss("token-mean", _CLIPS)
def cispo_loss(
    log_ratio: "Tensor", advantages: "Tensor", log_prob: "Tensor", mask: "Tensor", bounds: ClipRange
) -> TokenLosses:
    """REINFORCE with a clipped importance weight: no token's gradient is ever dropped.

        J = sg(clip(r, 1 - e_low, 1 + e_high)) A log pi
        d J / d log pi = clip(r, 1 - e_low, 1 + e_high) A

    PPO's clip drops rare tokens that matter ("wait", "however") after the first update, since their
    ratio moves most; here they still count, with a bounded weight.

    Source: MiniMax-M1, arXiv 2506.13585, equations 4 and 5. Default: no lower bound (e_low = 1), as
    there; the paper does not give e_high: 0.28 is DAPO's.
    verl: `cispo`, the same, with its default e_low = 0.2. TRL: clips at `epsilon_high` itself,
    which there is the cap (5.0, say) and not its distance from 1.
    When: many updates a batch.
    """
    ratio = to_ratio(log_ratio.detach())
    weight = ratio.clamp(bounds.low, bounds.high)
    return TokenLosses(-weight * advantages * log_prob, clipped=weight != ratio)


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

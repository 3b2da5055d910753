"""GPPO: PPO's clip, but a clipped token keeps a bounded gradient."""

from typing import TYPE_CHECKING

from .base import ClipRange, LossConfig, Objective, TokenLosses, verl_loss
from .grpo import grpo_advantage
from .masked import to_ratio

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GPPO", "gppo_loss"]

_CLIPS = LossConfig(clip_ratio_low=0.2, clip_ratio_high=0.28)


@verl_loss("token-mean", _CLIPS)
def gppo_loss(
    log_ratio: "Tensor", advantages: "Tensor", log_prob: "Tensor", mask: "Tensor", bounds: ClipRange
) -> TokenLosses:
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
    ratio = to_ratio(log_ratio.detach())
    weight = ratio.clamp(max=bounds.high).where(advantages > 0, ratio.clamp(min=bounds.low))
    # exp(0): the value 1, with the gradient of log pi.
    losses = -weight * advantages * (log_prob - log_prob.detach()).exp()
    clipped, bounded = (weight != ratio) & (advantages != 0), None
    if bounds.dual is not None:
        bounded = (advantages < 0) & (weight > bounds.dual)
        losses = (-advantages * bounds.dual).where(bounded, losses)
    return TokenLosses(losses, clipped, bounded)


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

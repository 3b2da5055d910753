"""PPO's clipped loss, which GRPO, Dr. GRPO, DAPO and REINFORCE++ share."""

from typing import TYPE_CHECKING

from .base import ClipRange, LossConfig, TokenLosses, verl_loss
from .masked import to_ratio

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["clipped_loss"]


@verl_loss("token-mean", LossConfig())
def clipped_loss(
    log_ratio: "Tensor", advantages: "Tensor", log_prob: "Tensor", mask: "Tensor", bounds: ClipRange
) -> TokenLosses:
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
    ratio = to_ratio(log_ratio)
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(bounds.low, bounds.high)
    losses, bounded = plain.maximum(clipped), None
    if bounds.dual is not None:
        bound = -advantages * bounds.dual
        bounded = (advantages < 0) & (losses > bound)
        losses = bound.where(bounded, losses)
    return TokenLosses(losses, clipped > plain, bounded)

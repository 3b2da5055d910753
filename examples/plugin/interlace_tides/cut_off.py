"""An objective: REINFORCE with the ratio of probabilities as a weight that is cut off."""

from torch import Tensor

from interlace.train.objectives import Objective
from interlace.train.objectives.base import ClipRange, LossConfig, TokenLosses, verl_loss
from interlace.train.objectives.grpo import grpo_advantage

__all__ = ["cut_off"]


def cut_off(*, most: float = 2.0) -> Objective:
    """The objective with that largest weight: groups as GRPO compares them, this loss."""

    @verl_loss("token-mean", LossConfig())
    def loss(
        log_ratio: Tensor, advantages: Tensor, log_prob: Tensor, mask: Tensor, bounds: ClipRange
    ) -> TokenLosses:
        weight = log_ratio.detach().exp().clamp(max=most)
        return TokenLosses(-weight * advantages * log_prob)

    return Objective(
        name="cut_off",
        summary=f"REINFORCE with a weight cut off at {most}",
        paper="",
        advantage=grpo_advantage,
        loss=loss,
        loss_agg_mode="token-mean",
        config=LossConfig(),
    )

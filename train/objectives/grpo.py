"""GRPO: advantages by comparison within a group, no value model."""

from typing import TYPE_CHECKING, Any

from .base import AdvantageConfig, Advantages, LossConfig, Objective
from .clipped import clipped_loss
from .groups import Groups, group_statistics, to_tokens, token_returns

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GRPO", "grpo_advantage"]


def grpo_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: Groups,
    epsilon: float = 1e-6,
    norm_adv_by_std_in_grpo: bool = True,
    config: AdvantageConfig | None = None,
    **_: Any,
) -> Advantages:
    """How far a response's reward R lies above its group's mean, in standard deviations.

        A_i = (R_i - mean(R)) / (std(R) + epsilon), the same at each token of response i

    [1, 0, 0, 0] gives [1.5, -0.5, -0.5, -0.5]. A group with equal rewards gives exact zeros, and a
    group of one A = R (there is nothing to compare it with: make groups of two or more).

    Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2. The paper does not say which standard
    deviation it means; this one divides by G - 1, as verl and TRL do (with G: +-1.732, 0.577).
    verl: `grpo`, the same; there equal rewards can leave a rounding error of up to 0.01. TRL:
    epsilon 1e-4.
    When: the common choice for outcome rewards. It makes much of very easy and very hard tasks,
    whose deviation is small: see Dr. GRPO.
    """
    scores, std, _size = group_statistics(token_returns(token_level_rewards), index)
    if norm_adv_by_std_in_grpo:
        scores = scores / (std + epsilon)
    advantages = to_tokens(scores, response_mask)
    return advantages, advantages


GRPO = Objective(
    name="grpo",
    summary="group-normalised advantage, PPO clip, mean over each response, then over responses",
    paper="2402.03300",
    advantage=grpo_advantage,
    loss=clipped_loss,
    loss_agg_mode="seq-mean-token-mean",
    config=LossConfig(clip_ratio=0.2),
)
"""GRPO as published (without its KL term, which is `kl_penalty` with "k3" and a factor of 0.04).
In verl `adv_estimator=grpo` alone is another method: its losses are averaged over all tokens, as in
DAPO, unless `loss_agg_mode=seq-mean-token-mean` is set."""

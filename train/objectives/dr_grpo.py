"""Dr. GRPO: GRPO without its two biases, by difficulty and by length."""

from typing import TYPE_CHECKING, Any

from .base import AdvantageConfig, Advantages, LossConfig, Objective
from .clipped import clipped_loss
from .groups import Groups, group_statistics, to_tokens, token_returns

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DR_GRPO", "dr_grpo_advantage"]


def dr_grpo_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: Groups,
    config: AdvantageConfig | None = None,
    **_: Any,
) -> Advantages:
    """How far a response's reward lies above its group's mean.

        A_i = R_i - mean(R)

    [1, 0, 0, 0] gives [0.75, -0.25, -0.25, -0.25]. No division by the standard deviation, which
    weighs tasks that are nearly always or nearly never solved up.

    Source: arXiv 2503.20783, section 3.2. verl: `grpo` with `norm_adv_by_std_in_grpo=False`. TRL:
    `scale_rewards="none"`.
    """
    advantages = to_tokens(
        group_statistics(token_returns(token_level_rewards), index).centred, response_mask
    )
    return advantages, advantages


DR_GRPO = Objective(
    name="dr_grpo",
    summary="GRPO without the division by deviation and by length: no bias to long wrong answers",
    paper="2503.20783",
    advantage=dr_grpo_advantage,
    loss=clipped_loss,
    loss_agg_mode="seq-mean-token-sum-norm",
    config=LossConfig(clip_ratio=0.2),
)
"""Dr. GRPO: J = 1 / (N L_max) sum_i sum_t min(...). In GRPO a token of a long response weighs less
than one of a short response, so a wrong answer is punished less the longer it is; here each weighs
the same. Give L_max, the longest allowed response, as `loss_scale_factor` (in `global_batch_info`).
TRL: `loss_type="dr_grpo"`."""

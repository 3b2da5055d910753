"""RLOO: each response against the mean of the others, and plain REINFORCE."""

from typing import TYPE_CHECKING, Any

from .base import (
    AdvantageConfig,
    Advantages,
    ClipRange,
    LossConfig,
    Objective,
    TokenLosses,
    verl_loss,
)
from .groups import Groups, group_statistics, to_tokens, token_returns

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["RLOO", "reinforce_loss", "rloo_advantage"]


def rloo_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: Groups,
    config: AdvantageConfig | None = None,
    **_: Any,
) -> Advantages:
    """A response's reward less the mean of the *other* rewards of its group.

        A_i = R_i - mean_{j != i} R_j = G / (G - 1) (R_i - mean(R))

    [1, 0, 0, 0] gives [1, -1/3, -1/3, -1/3]. Unlike the group's mean, the baseline does not hold
    the response itself, so the gradient is unbiased. A group of one has A = R.

    Source: Ahmadian et al., arXiv 2402.14740; the estimator is Kool et al. 2019. verl: `rloo`, the
    same (`rloo_vectorized` gives 0 for a group of one). TRL: RLOOTrainer, the same.
    When: few updates a batch, small groups, or a gradient that shall be unbiased.
    """
    scores, _std, size = group_statistics(token_returns(token_level_rewards), index)
    advantages = to_tokens(scores * size / (size - 1).clamp(min=1), response_mask)
    return advantages, advantages


@verl_loss("seq-mean-token-sum", LossConfig())
def reinforce_loss(
    log_ratio: "Tensor", advantages: "Tensor", log_prob: "Tensor", mask: "Tensor", bounds: ClipRange
) -> TokenLosses:
    """The policy gradient as it is, without ratio and clip.

        J = A log pi,   d J / d log pi = A

    Right only for the policy that sampled the batch: one update a batch, or `rollout_is_weights`
    computed again. `old_log_prob` is read for `actor/ppo_kl` alone.

    Source: Williams 1992. verl: `gpg`, the same. TRL's RLOOTrainer clips a ratio instead.
    """
    return TokenLosses(-advantages * log_prob)


RLOO = Objective(
    name="rloo",
    summary="leave-one-out baseline, plain REINFORCE on whole responses: one update a batch",
    paper="2402.14740",
    advantage=rloo_advantage,
    loss=reinforce_loss,
    loss_agg_mode="seq-mean-token-sum",
    config=LossConfig(),
)
"""RLOO: J = 1/N sum_i A_i log pi(o_i), the log-probability of the whole response."""

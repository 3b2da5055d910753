"""REINFORCE++: returns of single tokens, normalised over the whole batch."""

from typing import TYPE_CHECKING, Any

from .base import AdvantageConfig, Advantages, LossConfig, Objective
from .clipped import clipped_loss
from .groups import Groups, group_statistics, to_tokens, token_returns
from .masked import precise, whiten

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "REINFORCE_PLUS_PLUS",
    "REINFORCE_PLUS_PLUS_BASELINE",
    "reinforce_plus_plus_advantage",
    "reinforce_plus_plus_baseline_advantage",
]


def reinforce_plus_plus_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: "Groups | None" = None,
    config: AdvantageConfig | None = None,
    **_: Any,
) -> Advantages:
    """The return from each token on, normalised over all tokens of the batch.

        G_t = r_t + gamma G_{t+1}
        A_t = (G_t - mean(G)) / std(G), mean and deviation over all tokens that count

    What the policy did not write takes no step of discount: G passes through a tool's output
    unchanged, so a long output does not make what came before it cheaper. A KL penalty goes into
    the rewards (`kl.penalised_rewards`). gamma is `config.gamma`, 1 without a config.

    Source: arXiv 2501.03262. verl: `reinforce_plus_plus`, the same, but a reward that is at a
    masked token (a response cut after a tool's output) is lost there; here the policy's token
    before it earned it. TRL: none.
    When: one response a task, many tasks; no groups are needed.
    """
    token_returns(token_level_rewards)  # refuses what is not a number
    rewards, counts = precise(token_level_rewards.detach()), response_mask > 0
    gamma = 1.0 if config is None else config.gamma
    g = rewards.new_zeros(rewards.shape)
    # The return from the policy's next token on, and what was earned since its last one.
    ahead = earned = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        earned = earned + rewards[:, t]
        g[:, t] = (earned + gamma * ahead).where(counts[:, t], g[:, t])
        ahead = g[:, t].where(counts[:, t], ahead)
        earned = earned.masked_fill(counts[:, t], 0.0)
    return whiten(g, counts), g


def reinforce_plus_plus_baseline_advantage(
    token_level_rewards: "Tensor",
    response_mask: "Tensor",
    index: Groups,
    config: AdvantageConfig | None = None,
    **_: Any,
) -> Advantages:
    """The reward less its group's mean, normalised over all tokens of the batch.

        A_i = (R_i - mean_group(R)), at each token, then less the mean and over the standard
        deviation of all tokens that count

    Source: arXiv 2501.03262, the variant with a baseline. verl: `reinforce_plus_plus_baseline`, the
    same. TRL: GRPOTrainer with `scale_rewards="batch"` comes near: it divides by the deviation of
    the rewards, not of the tokens.
    When: groups, but the deviation of four rewards is too noisy to divide by: the batch's is not. A
    long response counts in mean and deviation with each of its tokens.
    """
    scores = to_tokens(
        group_statistics(token_returns(token_level_rewards), index).centred, response_mask
    )
    advantages = whiten(scores, response_mask)
    return advantages, advantages


REINFORCE_PLUS_PLUS = Objective(
    name="reinforce_plus_plus",
    summary="token returns normalised over the batch, PPO clip: needs no groups",
    paper="2501.03262",
    advantage=reinforce_plus_plus_advantage,
    loss=clipped_loss,
    loss_agg_mode="token-mean",
    config=LossConfig(clip_ratio=0.2),
)
"""REINFORCE++ with PPO's clipped loss."""

REINFORCE_PLUS_PLUS_BASELINE = Objective(
    name="reinforce_plus_plus_baseline",
    summary="reward less the group's mean, normalised over the batch, PPO clip",
    paper="2501.03262",
    advantage=reinforce_plus_plus_baseline_advantage,
    loss=clipped_loss,
    loss_agg_mode="token-mean",
    config=LossConfig(clip_ratio=0.2),
)
"""REINFORCE++ with the group's mean as a baseline."""

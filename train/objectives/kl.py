"""KL divergence from a reference policy, estimated on the sampled tokens."""

from typing import TYPE_CHECKING

from ...tools.errors import UsageError
from .masked import log_ratios, masked, precise

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KL_ESTIMATORS", "kl_penalty", "penalised_rewards"]

KL_ESTIMATORS: dict[str, str] = {
    "k1": "log p - log q: unbiased, noisy, may be negative; for rewards, never as a loss",
    "k2": "(log p - log q)^2 / 2: biased, but its gradient is that of the divergence",
    "k3": "q/p - 1 - log(q/p): unbiased, low variance, never negative; GRPO's choice",
    "k1+": "the value of k1 with the gradient of k2",
    "k3+": "the value of k3 with the gradient of k2",
}


def kl_penalty(
    logprob: "Tensor",
    ref_logprob: "Tensor",
    kl_penalty: str = "k3",
    response_mask: "Tensor | None" = None,
) -> "Tensor":
    """KL(p || q) at each token, (B, T): p the policy, q the reference; by one of `KL_ESTIMATORS`.

    With d = log q - log p of the sampled token:
        k1 = -d          k2 = d^2 / 2          k3 = exp(d) - d - 1
    Means over samples of p: k1 and k3 are the divergence, k2 is close to it. As a *loss*, though,
    only k2 has the divergence's gradient (k1's has the mean 0, k3's is that of KL(q || p)); "k1+"
    and "k3+" take their own value and k2's gradient. As a penalty in the *reward* the value alone
    counts. In k3 d is cut to +-20 and the result at 10, as in verl: beyond there is no gradient.

    With a `response_mask`, tokens with mask 0 give 0 whatever is there; `agg_loss` sums up.

    Source: Schulman, "Approximating KL divergence", 2020; k3 as a loss: GRPO, arXiv 2402.03300,
    equation 4. The signature and the names are verl's. TRL: k3. Raises UsageError for other names.
    """
    if kl_penalty not in KL_ESTIMATORS:
        raise UsageError(
            f"there is no KL estimator {kl_penalty!r}; take one of {', '.join(KL_ESTIMATORS)}"
        )
    if response_mask is None:
        d = precise(ref_logprob) - precise(logprob)
    else:
        d = log_ratios(ref_logprob, logprob, response_mask)
    k2 = d.square() / 2
    if kl_penalty == "k2":
        return k2
    if kl_penalty.startswith("k1"):
        value = -d
    else:
        d = d.clamp(-20, 20)
        value = (d.exp() - d - 1).clamp(max=10)
    if kl_penalty.endswith("+"):
        return value.detach() + k2 - k2.detach()
    return value


def penalised_rewards(
    token_level_rewards: "Tensor",
    log_prob: "Tensor",
    ref_log_prob: "Tensor",
    response_mask: "Tensor",
    coefficient: float,
    estimator: str = "k1",
) -> "Tensor":
    """Rewards with the penalty in them: r_t - coefficient * KL_t at each token that counts, (B, T).

    Nothing here has a gradient. Source: REINFORCE++, arXiv 2501.03262; InstructGPT, 2203.02155.
    verl: `use_kl_in_reward`, the same. When: with returns of single tokens (REINFORCE++); with a
    group's advantages the penalties of a response are summed up and compared like its reward.
    """
    kl = kl_penalty(log_prob.detach(), ref_log_prob.detach(), estimator, response_mask)
    return precise(token_level_rewards) - coefficient * masked(kl, response_mask)

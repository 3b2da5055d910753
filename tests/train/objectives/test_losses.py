"""Policy losses: their gradients against those derived by hand, and what divides the sum."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from interlace.tools.errors import UsageError
from interlace.train.objectives import (
    AGGREGATIONS,
    POLICY_LOSSES,
    LossConfig,
    agg_loss,
    kl_penalty,
    penalised_rewards,
    rollout_correction_weights,
)
from interlace.train.objectives.grpo import grpo_advantage

LOW, HIGH = 0.8, 1.28
CLIPS = LossConfig(clip_ratio_low=0.2, clip_ratio_high=0.28)


# d J / d log pi of one token with ratio r and advantage A, written down from the papers.


def clipped(r: float, a: float) -> float:
    return 0.0 if (a > 0 and r > HIGH) or (a < 0 and r < LOW) else r * a


def gppo(r: float, a: float) -> float:
    return min(r, HIGH) * a if a > 0 else max(r, LOW) * a


def cispo(r: float, a: float) -> float:
    return max(LOW, min(HIGH, r)) * a


def reinforce(r: float, a: float) -> float:
    return a


BY_HAND: dict[str, Callable[[float, float], float]] = {
    "clipped": clipped,
    "gppo": gppo,
    "cispo": cispo,
    "reinforce": reinforce,
}


def token_weights(mask: torch.Tensor, mode: str, longest: int) -> torch.Tensor:
    """What a token's loss is multiplied with, by hand."""
    weights = torch.zeros_like(mask)
    responses = sum(bool(row.any()) for row in mask)
    for i, t in mask.nonzero().tolist():
        share = {
            "token-mean": 1 / mask.sum().item(),
            "token-sum": 1.0,
            "seq-mean-token-sum": 1 / responses,
            "seq-mean-token-sum-norm": 1 / responses / longest,
            "seq-mean-token-mean": 1 / responses / mask[i].sum().item(),
        }[mode]
        weights[i, t] = mask[i, t] * share
    return weights


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    """Five responses of up to seven tokens in float64: holes for tools, padding, one filtered out,
    a token with half a weight; ratios from 0.3 to 3 and advantages of either sign.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(5, 7, dtype=torch.float64)
    mask[0, 2:5] = 0
    mask[1, 4:] = 0
    mask[2] = 0
    mask[3, 1] = 0.5
    old = -3 * torch.rand(5, 7, generator=generator, dtype=torch.float64)
    gap = 2.2 * torch.rand(5, 7, generator=generator, dtype=torch.float64) - 1.1
    advantages = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    return {
        "old_log_prob": old,
        "log_prob": (old + gap).requires_grad_(),
        "advantages": advantages,
        "response_mask": mask,
    }


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", BY_HAND)
def test_gradients_are_those_derived_by_hand(name: str, mode: str) -> None:
    b = batch()
    weights = torch.rand(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    config = LossConfig(
        clip_ratio_low=0.2, clip_ratio_high=0.28, global_batch_info={"loss_scale_factor": 100}
    )
    loss, _ = POLICY_LOSSES[name](
        **b, loss_agg_mode=mode, config=config, rollout_is_weights=weights
    )
    (gradient,) = torch.autograd.grad(loss, b["log_prob"])
    ratio = (b["log_prob"] - b["old_log_prob"]).exp()
    expected = torch.zeros_like(gradient)
    for i, t in b["response_mask"].nonzero().tolist():
        slope = BY_HAND[name](ratio[i, t].item(), b["advantages"][i, t].item())
        expected[i, t] = -slope * weights[i, t] * token_weights(b["response_mask"], mode, 100)[i, t]
    assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("r", "a", "ppo", "gppo", "cispo"),
    [
        (1.5, 1, 0, 1.28, 1.28),
        (0.5, -1, 0, -0.8, -0.5),  # CISPO as published has no lower bound
        (0.5, 1, 0.5, 0.5, 0.5),
        (1.5, -1, -1.5, -1.5, -1.28),
    ],
)
def test_published_coefficients(r: float, a: float, ppo: float, gppo: float, cispo: float) -> None:
    for name, expected in (("clipped", ppo), ("gppo", gppo), ("cispo", cispo)):
        log_prob = torch.tensor([[-1 + math.log(r)]], dtype=torch.float64, requires_grad=True)
        one = torch.ones(1, 1, dtype=torch.float64)
        config = CLIPS if name == "clipped" else None  # the others' own numbers
        loss, _ = POLICY_LOSSES[name](-one, log_prob, a * one, one, config=config)
        loss.backward()  # type: ignore[no-untyped-call]
        assert log_prob.grad is not None
        assert_close(-log_prob.grad.item(), float(expected))


@pytest.mark.parametrize(
    ("name", "mode"), [("clipped", "token-mean"), ("gspo", "seq-mean-token-mean")]
)
@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_finite_differences_of_the_value(name: str, mode: str, seed: int) -> None:
    b = batch(seed)
    if name == "gspo":  # one advantage a response
        b["advantages"] = b["advantages"][:, :1].expand(-1, 7)
    loss = POLICY_LOSSES[name]
    old, advantages, mask = b["old_log_prob"], b["advantages"], b["response_mask"]

    def value(log_prob: torch.Tensor) -> torch.Tensor:
        return loss(old, log_prob, advantages, mask, mode, CLIPS)[0]

    # cispo, gppo and reinforce hold a stop-gradient: their value is not what they descend.
    assert torch.autograd.gradcheck(value, b["log_prob"])


def test_gspo_is_the_loss_of_whole_responses() -> None:
    b = batch()
    b["response_mask"] = (b["response_mask"] > 0).double()
    advantages = torch.tensor([1.0, -1.0, 2.0, -0.5, 0.7], dtype=torch.float64)
    b["advantages"] = advantages.unsqueeze(1).expand(-1, 7)
    loss, _ = POLICY_LOSSES["gspo"](**b, loss_agg_mode="seq-mean-token-mean", config=CLIPS)
    (gradient,) = torch.autograd.grad(loss, b["log_prob"])

    gaps = (b["log_prob"] - b["old_log_prob"]) * b["response_mask"]
    kept = b["response_mask"].any(dim=1)
    s = (gaps[kept].sum(dim=1) / b["response_mask"][kept].sum(dim=1)).exp()  # equation 7
    surrogate = torch.minimum(s * advantages[kept], s.clamp(LOW, HIGH) * advantages[kept])
    (expected,) = torch.autograd.grad(-surrogate.mean(), b["log_prob"])  # equation 5
    assert_close(loss, -surrogate.mean())
    assert_close(gradient, expected)


def test_gspos_ratio_is_the_mean_over_what_the_policy_wrote() -> None:
    log_prob = torch.tensor([[-0.9, 5.0, -1.05, -0.98]], dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1, 1]])
    loss, _ = POLICY_LOSSES["gspo"](
        torch.full((1, 4), -1.0), log_prob, torch.ones(1, 4), mask, config=CLIPS
    )
    assert_close(-loss.item(), 1.0236077, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["clipped", "gppo"])
def test_dual_clip_bounds_a_bad_token_that_became_likely(name: str) -> None:
    config = LossConfig(clip_ratio=0.2, clip_ratio_c=3.0)
    one = torch.ones(1, 2)
    log_prob = torch.tensor([[math.log(2.0), math.log(20.0)]], requires_grad=True)
    loss, metrics = POLICY_LOSSES[name](
        0 * one, log_prob, -one, one, loss_agg_mode="token-sum", config=config
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert_close(loss.item(), 2.0 + 3.0)
    assert_close(log_prob.grad, torch.tensor([[2.0, 0.0]]))
    assert metrics["actor/pg_clipfrac_lower"] == 0.5


def test_aggregations_of_a_batch_worked_out_by_hand() -> None:
    losses = torch.tensor([[1.0, 2.0, 3.0, 9.0], [4.0, 9.0, 9.0, 9.0], [9.0, 9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])  # the last one is filtered
    expected = {
        "token-mean": 10 / 4,
        "token-sum": 10,
        "seq-mean-token-sum": (6 + 4) / 2,
        "seq-mean-token-sum-norm": (6 + 4) / 2 / 8,
        "seq-mean-token-mean": (2 + 4) / 2,
    }
    for mode in AGGREGATIONS:
        assert agg_loss(losses, mask, mode, loss_scale_factor=8).item() == expected[mode]
    # A weight of a half: in numerator and denominator.
    weighed = mask * torch.tensor([1.0, 1.0, 0.5, 1.0])
    assert_close(agg_loss(losses, weighed, "token-mean").item(), 8.5 / 3.5)
    assert_close(agg_loss(losses, weighed, "seq-mean-token-mean").item(), (4.5 / 2.5 + 4) / 2)


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_micro_batches_add_up_to_the_whole(name: str, mode: str) -> None:
    b = batch()
    whole = {
        "batch_num_tokens": b["response_mask"].sum(),
        "global_batch_size": 4,
        "loss_scale_factor": 7,
    }
    config = LossConfig(clip_ratio=0.2, global_batch_info=whole)
    parts = [{key: value[rows] for key, value in b.items()} for rows in ([0, 1], [2], [3, 4])]
    losses = [POLICY_LOSSES[name](**part, loss_agg_mode=mode, config=config)[0] for part in parts]
    alone = LossConfig(clip_ratio=0.2, global_batch_info={"loss_scale_factor": 7})
    expected, _ = POLICY_LOSSES[name](**b, loss_agg_mode=mode, config=alone)
    assert_close(torch.stack(losses).sum(), expected)


def test_only_dr_grpos_divisor_lets_a_token_weigh_the_same_in_a_long_response() -> None:
    def first_token(mode: str, length: int) -> float:
        """How much the first token of a response weighs beside one of two tokens."""
        losses = torch.zeros(2, 50, requires_grad=True)
        mask = torch.zeros(2, 50)
        mask[0, :length], mask[1, :2] = 1, 1
        agg_loss(losses, mask, mode, loss_scale_factor=50).backward()  # type: ignore[no-untyped-call]
        assert losses.grad is not None
        return losses.grad[0, 0].item()

    assert first_token("seq-mean-token-sum-norm", 2) == first_token("seq-mean-token-sum-norm", 50)
    assert_close(first_token("seq-mean-token-mean", 2), 25 * first_token("seq-mean-token-mean", 50))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(UsageError, match="take one of token-mean"):
        agg_loss(one, one, "mean")
    with pytest.raises(UsageError, match="take one of k1"):
        kl_penalty(one, one, "k4")
    with pytest.raises(UsageError, match="take one of token, sequence"):
        rollout_correction_weights(one, one, "turn")
    with pytest.raises(UsageError, match="clip ratios must be above 0"):
        LossConfig(clip_ratio=-0.1)
    with pytest.raises(ValueError, match="2 workers"):
        agg_loss(one, one, "token-mean", dp_size=2)


# -- KL ------------------------------------------------------------------------------------------


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p.log() - q.log())).sum()


@pytest.mark.parametrize("kind", ["k1", "k2", "k3", "k1+", "k3+"])
def test_kl_estimators_in_expectation_over_all_tokens(kind: str) -> None:
    q = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    logits = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)
    p = logits.softmax(dim=0)
    penalties = kl_penalty(logits.log_softmax(dim=0), q.log(), kind)
    value = (p.detach() * penalties).sum()  # the mean over samples, each of a fixed probability
    (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)

    if kind != "k2":  # which is biased
        assert_close(value, divergence(p, q))
    of_p_from_q, of_q_from_p = (
        torch.autograd.grad(each, logits, retain_graph=True)[0]
        for each in (divergence(p, q), divergence(q, p))
    )
    expected = {"k1": torch.zeros_like(q), "k3": of_q_from_p}.get(kind, of_p_from_q)
    assert_close(gradient, expected)


def test_kl_in_the_reward_is_taken_off_where_the_policy_wrote() -> None:
    rewards = torch.tensor([[0.0, 0.0, 1.0]])
    log_prob = torch.tensor([[-1.0, float("nan"), -2.0]])
    reference = torch.tensor([[-1.5, 0.0, -1.0]])
    mask = torch.tensor([[1, 0, 1]])
    penalised = penalised_rewards(rewards, log_prob, reference, mask, coefficient=0.1)
    assert_close(penalised, torch.tensor([[-0.05, 0.0, 1.1]]))


# -- the engine's log-probabilities ----------------------------------------------------------------


def test_truncated_importance_weights() -> None:
    trainer = torch.tensor([[-1.0, -1.0, -3.0, 0.0]])
    engine = torch.tensor([[-1.0, -3.0, -1.0, float("nan")]])
    mask = torch.tensor([[1, 1, 1, 0]])
    weights, metrics = rollout_correction_weights(trainer - engine, mask)
    assert_close(weights, torch.tensor([[1.0, 2.0, math.exp(-2), 0.0]]))
    assert_close(metrics["rollout_is/max"], math.exp(2), rtol=1e-6, atol=0)
    assert_close(metrics["rollout_is/cut"], 1 / 3)

    of_response, _ = rollout_correction_weights(trainer - engine, mask, "sequence")
    assert_close(of_response, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))  # 0 + 2 - 2

    left_out, _ = rollout_correction_weights(trainer - engine, mask, "token", (0.5, 2.0))
    assert_close(left_out, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))


def test_importance_weights_give_the_gradient_on_the_trainers_distribution() -> None:
    # One token of three; the engine samples from mu, the trainer's policy is p. Summed over all
    # tokens with their chance under mu, the weighed gradient is the true one; without it is not.
    mu = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    logits = torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(dim=0).unsqueeze(1)  # three responses of one token
    reward = torch.tensor([[1.0], [0.0], [-1.0]], dtype=torch.float64)
    mask = mu.unsqueeze(1)  # each response as often as it is sampled
    old = log_p.detach()
    weights, _ = rollout_correction_weights(
        old - mu.log().unsqueeze(1), mask, rollout_is_threshold=100
    )
    loss, _ = POLICY_LOSSES["clipped"](
        old, log_p, reward, mask, "token-sum", rollout_is_weights=weights
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    expected_reward = (logits.softmax(dim=0) * reward[:, 0]).sum()
    (expected,) = torch.autograd.grad(-expected_reward, logits)
    assert_close(gradient, expected)


def test_the_sum_of_a_groups_gradient_is_reinforce_at_the_first_update() -> None:
    b = batch()
    b["log_prob"] = b["old_log_prob"].clone().requires_grad_()
    rewards = torch.tensor([[0.0], [1.0], [0.0], [1.0], [1.0]]).double().expand(-1, 7) / 7
    b["advantages"], _ = grpo_advantage(rewards, b["response_mask"], ["q"] * 5)
    gradients = []
    for name in ("clipped", "cispo", "gppo", "reinforce"):
        loss, metrics = POLICY_LOSSES[name](**b, loss_agg_mode="token-mean", config=CLIPS)
        gradients.append(torch.autograd.grad(loss, b["log_prob"])[0])
        assert metrics["actor/pg_clipfrac"] == metrics["actor/ppo_kl"] == 0
    for gradient in gradients[1:]:
        assert_close(gradient, gradients[0])

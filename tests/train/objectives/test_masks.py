"""What the policy did not write gives no gradient, whatever stands there."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from interlace.train.objectives import (
    AGGREGATIONS,
    POLICY_LOSSES,
    LossConfig,
    agg_loss,
    kl_penalty,
    rollout_correction_weights,
)

NAN, INF = float("nan"), float("inf")
JUNK = st.sampled_from([NAN, INF, -INF, 1e30, -1e30, 0.0, 88.0])
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
DUAL = LossConfig(clip_ratio=0.2, clip_ratio_c=3.0)

masks = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, 1.0, 0.5]), min_size=4, max_size=4), min_size=1, max_size=4
)


def filled(mask: torch.Tensor, junk: list[float], seed: int) -> list[torch.Tensor]:
    """Log-probabilities (old, new), advantages and importance weights, with junk at mask 0."""
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for shift, value in zip((-2.0, -2.0, 0.0, 1.0), junk, strict=True):
        real = torch.randn(mask.shape, generator=generator) * 0.5 + shift
        tensors.append(torch.where(mask > 0, real, torch.full_like(real, value)))
    return tensors


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", POLICY_LOSSES)
@settings(relaxed, max_examples=15)
@given(rows=masks, junk=st.lists(JUNK, min_size=4, max_size=4), seed=st.integers(0, 9))
def test_junk_at_masked_tokens_changes_not_one_bit_and_gets_exactly_zero_gradient(
    name: str, mode: str, rows: list[list[float]], junk: list[float], seed: int
) -> None:
    mask = torch.tensor(rows)
    results = []
    for values in (junk, [0.0] * 4):
        old, new, advantages, weights = filled(mask, values, seed)
        new.requires_grad_()
        loss, metrics = POLICY_LOSSES[name](old, new, advantages, mask, mode, DUAL, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        assert new.grad is not None
        assert new.grad.isfinite().all()
        assert not new.grad[mask == 0].any()
        results.append((loss.detach(), new.grad, metrics))
    (loss, gradient, metrics), (clean_loss, clean_gradient, clean_metrics) = results
    assert torch.equal(loss, clean_loss)
    assert torch.equal(gradient, clean_gradient)
    assert metrics == clean_metrics


@pytest.mark.parametrize("kind", ["k1", "k2", "k3", "k3+"])
@relaxed
@given(rows=masks, junk=JUNK)
def test_so_do_kl_penalties_and_importance_weights(
    kind: str, rows: list[list[float]], junk: float
) -> None:
    mask = torch.tensor(rows)
    new, reference, *_ = filled(mask, [junk, 0.0, 0.0, 0.0], 1)
    new.requires_grad_()
    agg_loss(kl_penalty(new, reference, kind, mask), mask, "token-mean").backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert new.grad.isfinite().all()
    assert not new.grad[mask == 0].any()
    for level in ("token", "sequence"):
        weights, _ = rollout_correction_weights(new - reference, mask, level)
        assert weights.isfinite().all()
        assert not weights.requires_grad
        assert not weights[mask == 0].any()


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_batch_with_nothing_to_train_on_has_loss_zero(name: str, mode: str) -> None:
    mask = torch.zeros(2, 3)
    log_prob = torch.full((2, 3), -1.0, requires_grad=True)
    loss, _ = POLICY_LOSSES[name](log_prob.detach(), log_prob, torch.ones(2, 3), mask, mode)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert log_prob.grad is not None
    assert not log_prob.grad.any()


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_gradient_at_a_tools_token_is_zero_though_its_advantage_is_not(name: str) -> None:
    old = torch.full((1, 4), -1.0)
    new = torch.tensor([[-0.9, -0.9, -0.9, -0.9]], requires_grad=True)
    mask = torch.tensor([[True, False, False, True]])
    loss, _ = POLICY_LOSSES[name](old, new, torch.ones(1, 4), mask, config=DUAL)
    loss.backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert (new.grad != 0).tolist() == mask.tolist()


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_bfloat16_is_worked_out_in_float32(name: str, mode: str) -> None:
    # 300 tokens: a count in bfloat16 would stop at 256.
    generator = torch.Generator().manual_seed(0)
    old = (torch.randn(2, 300, generator=generator) - 2).bfloat16()
    new = (old.float() + 0.3 * torch.randn(2, 300, generator=generator)).bfloat16()
    advantages = torch.randn(2, 300, generator=generator).bfloat16()
    mask = torch.ones(2, 300).bfloat16()
    half = new.clone().requires_grad_()
    single = new.float().requires_grad_()
    loss, _ = POLICY_LOSSES[name](old, half, advantages, mask, mode, DUAL)
    exact, _ = POLICY_LOSSES[name](
        old.float(), single, advantages.float(), mask.float(), mode, DUAL
    )
    assert loss.dtype is torch.float32
    assert torch.equal(loss, exact)
    loss.backward()  # type: ignore[no-untyped-call]
    exact.backward()  # type: ignore[no-untyped-call]
    assert half.grad is not None
    assert single.grad is not None
    assert_close(half.grad, single.grad.bfloat16())

"""What verl has too gives verl's own numbers. Runs where the extra `verl` is installed."""

import importlib.util
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from interlace.train.objectives import (
    ADVANTAGES,
    AGGREGATIONS,
    KL_ESTIMATORS,
    POLICY_LOSSES,
    agg_loss,
    kl_penalty,
    rollout_correction_weights,
)

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

with warnings.catch_warnings():  # its imports warn of what is deprecated in others
    warnings.simplefilter("ignore")
    core: Any = importlib.import_module("verl.trainer.ppo.core_algos")
    correction: Any = importlib.import_module("verl.trainer.ppo.rollout_corr_helper")
    configs: Any = importlib.import_module("verl.workers.config")

THEIR_LOSS = {"clipped": "vanilla", "reinforce": "gpg", "gspo": "gspo", "cispo": "cispo"}


def batch(seed: int) -> dict[str, torch.Tensor]:
    """Eight responses to three tasks, with holes where tools spoke; the last one is left out."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(8, 9)
    mask[:, 3:5] = 0
    mask[0, 6:] = 0
    mask[7] = 0
    old = -2 * torch.rand(8, 9, generator=generator)
    return {
        "old_log_prob": old,
        "log_prob": (old + 0.6 * torch.randn(8, 9, generator=generator)).requires_grad_(),
        "advantages": torch.randn(8, 9, generator=generator),
        "response_mask": mask,
        "rollout_is_weights": 2 * torch.rand(8, 9, generator=generator),
    }


def actor_config(**options: Any) -> Any:
    return configs.FSDPActorConfig(
        strategy="fsdp",
        rollout_n=4,
        ppo_mini_batch_size=8,
        ppo_micro_batch_size_per_gpu=8,
        **options,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("name", THEIR_LOSS)
def test_losses_metrics_and_gradients_are_verls(name: str, mode: str, seed: int) -> None:
    b = batch(seed)
    config = actor_config(clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=2.5)
    config.global_batch_info.update(dp_size=2, batch_num_tokens=90, global_batch_size=16)
    ours, our_metrics = POLICY_LOSSES[name](**b, loss_agg_mode=mode, config=config)
    (our_gradient,) = torch.autograd.grad(ours, b["log_prob"])
    loss = core.get_policy_loss_fn(THEIR_LOSS[name])
    theirs, their_metrics = loss(**b, loss_agg_mode=mode, config=config)
    (their_gradient,) = torch.autograd.grad(theirs, b["log_prob"])
    assert_close(ours, theirs)
    assert_close(our_gradient, their_gradient)
    for key, value in their_metrics.items():
        assert our_metrics[key] == pytest.approx(value, abs=1e-6), key


@pytest.mark.parametrize("mode", AGGREGATIONS)
@pytest.mark.parametrize("factor", [None, 1024])
def test_aggregations_are_verls(mode: str, factor: int | None) -> None:
    b = batch(0)
    given = (b["advantages"], b["response_mask"], mode)
    ours = agg_loss(*given, loss_scale_factor=factor)
    assert_close(ours, core.agg_loss(*given, loss_scale_factor=factor))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_and_returns_are_verls(name: str, seed: int) -> None:
    mask = batch(seed)["response_mask"]
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(8, 9, generator=generator) * mask
    index = np.array(["a", "b", "a", "a", "b", "alone", "a", "b"], dtype=object)
    config = SimpleNamespace(gamma=0.9)
    options: dict[str, Any] = {"config": config}
    if name == "dr_grpo":
        options["norm_adv_by_std_in_grpo"] = False
    theirs = core.get_adv_estimator_fn("grpo" if name == "dr_grpo" else name)(
        token_level_rewards=rewards.clone(), response_mask=mask, index=index, **options
    )
    ours = ADVANTAGES[name](rewards, mask, index, config=config)
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KL_ESTIMATORS)
def test_kl_estimators_are_verls(kind: str) -> None:
    b = batch(0)
    for values, by in ((kl_penalty, "ours"), (core.kl_penalty, "theirs")):
        b[by] = values(b["log_prob"], b["old_log_prob"], kind)
    assert_close(b["ours"], b["theirs"])
    gradients = [torch.autograd.grad(b[by].sum(), b["log_prob"])[0] for by in ("ours", "theirs")]
    assert_close(*gradients)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("ours", "theirs"), [(2.0, 2.0), ((0.5, 2.0), "0.5_2.0")])
def test_importance_weights_are_verls(level: str, ours: Any, theirs: Any) -> None:
    b = batch(0)
    log_ratio = (b["log_prob"] - b["old_log_prob"]).detach()
    if level == "sequence":
        log_ratio *= 0.4  # where every response is dropped, verl divides by zero
    weights, metrics = rollout_correction_weights(log_ratio, b["response_mask"], level, ours)
    expected, _ = correction.compute_rollout_correction_weights(
        log_ratio, b["response_mask"], level, theirs
    )
    assert_close(weights, expected)
    assert metrics["rollout_is/cut"] > 0

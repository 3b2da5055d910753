"""verl's own trainer, two steps on a CPU with our loop, tools, rewards and nano policy.

For `make test-verl`: minutes, in an environment that has verl. tests/verl_cpu/ says what of verl is
patched for want of an accelerator; nothing of that is in the product.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
from doubles import NANO
from verl_run import CONFIGS, Ran, check, main_ppo, run

from interlace.rollout.trajectory import StopReason

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)


def faults(ran: Ran) -> tuple[int, int, int]:
    """Calls that were stopped at their deadline, that died, and episodes our side failed."""
    calls = [call for episode in ran.episodes for call in episode.trajectory.calls]
    errors = [call.error.value for call in calls if call.error is not None]
    failed = sum(episode.stop is StopReason.INFRASTRUCTURE for episode in ran.episodes)
    return errors.count("timeout"), errors.count("died"), failed


def test_two_steps_with_python_and_its_faults(tmp_path: Path) -> None:
    ran = run(tmp_path, main_ppo(tmp_path, "cpu", "arithmetic"))
    check(ran)
    assert faults(ran) == (1, 1, 1)
    right = [call for e in ran.episodes for call in e.trajectory.calls if call.error is None]
    assert len(right) >= 10


def test_two_steps_with_sql_in_reex_sqls_format_and_objectives_that_verl_lacks(
    tmp_path: Path,
) -> None:
    place = "actor_rollout_ref.rollout.custom.interlace"
    settings = [
        f"{place}.format=reex_sql",
        f"{place}.tools=null",
        f"{place}.reward=reex_sql",
        "algorithm.adv_estimator=dr_grpo",
        "actor_rollout_ref.actor.policy_loss.loss_mode=gppo",
        "algorithm.rollout_correction.rollout_is=token",
    ]
    command = [str(Path(sys.executable).with_name("interlace")), "train", "--engine", "verl"]
    command += ["--config", str(CONFIGS / "cpu.yaml"), "--model", str(NANO), "--out", str(tmp_path)]
    command += ["--tasks", "database:train:16", "--held-out", "database:test:4"]
    ran = run(tmp_path, [*command, *(part for each in settings for part in ("--set", each))])
    check(ran)
    assert faults(ran) == (1, 0, 2)
    right = [call for e in ran.episodes for call in e.trajectory.calls if call.error is None]
    assert len(right) >= 10
    assert ran.metrics[1]["rollout_corr/rollout_is_eff_sample_size"] == pytest.approx(1.0, abs=1e-3)

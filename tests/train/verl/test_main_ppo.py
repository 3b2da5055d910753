"""verl's own trainer, two steps on a CPU with our loop, tools, rewards and nano policy.

For `make test-verl`: minutes, in an environment that has verl. tests/verl_cpu/ says what of verl is
patched for want of an accelerator; nothing of that is in the product.
"""

import importlib.util
from pathlib import Path

import pytest
from support.verl_run import Ran, check, main_ppo, run

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

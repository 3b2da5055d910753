"""verl's asynchronous trainers, two steps on a CPU: for `make test-verl`.

In the real runs an engine's weights go over nccl; here through a file, or from process to process.
"""

import importlib.util
from pathlib import Path

import pytest
from support.verl_run import check_rows, main_ppo, run

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

ALONE = {"VERL_USE_EXTERNAL_MODULES": "verl_cpu_platform"}


@pytest.mark.parametrize("mode", ["colocate", pytest.param("separate", marks=pytest.mark.slow)])
def test_two_steps_that_go_on_while_episodes_are_under_way(tmp_path: Path, mode: str) -> None:
    """More episodes are begun than a step takes; those broken off go on with the next weights."""
    ran = run(tmp_path, main_ppo(tmp_path, mode, "arithmetic"), ALONE)
    check_rows(ran, rows=2 * 4 * 4)
    assert {note["step"] for note in ran.synced} == {0, 1, 2}
    assert {note["changed"] for note in ran.synced if note["step"] == 0} == {0.0}
    assert min(note["changed"] for note in ran.synced if note["step"]) > 0.0
    for step in (1, 2):
        metrics = ran.metrics[step]
        assert metrics["actor/grad_norm"] > 0
        assert metrics["interlace/episodes"] == 16
        # Whole episodes are left out by how far trainer and engine are apart.
        assert 0 <= metrics["actor/rollout_corr/rollout_rs_masked_fraction"] < 1
    # The second step's episodes were begun before its weights were there.
    assert ran.metrics[2]["training/off_policy/trajectory_staleness_worst/max"] >= 1

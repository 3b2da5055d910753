"""verl's own vLLM rollout, on vllm-cpu, with our loop: two steps of its trainer.

For `make test-verl-vllm`, in an environment that has verl and vllm-cpu. It shows what our own
server in tests/verl_cpu/ can't: that vLLM itself, started and fed with weights by verl, gives our
loop the tokens, stops and log-probabilities that it asks for.
"""

import importlib.util
from pathlib import Path

import pytest
from support.verl_run import check_steps, main_ppo, run

from interlace.rollout.trajectory import FinishReason, StopReason

for package in ("verl", "vllm"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

VLLM = {
    "VERL_USE_EXTERNAL_MODULES": "verl_cpu_platform,verl_cpu_vllm",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_TARGET_DEVICE": "cpu",
}


def test_two_steps_with_vllm_as_verl_starts_it(tmp_path: Path) -> None:
    command = main_ppo(tmp_path, "vllm", "arithmetic")
    ran = run(tmp_path, command, {**VLLM, "PYTHONPATH": named(tmp_path)})
    check_steps(ran, rows=2 * 2 * 4)
    turns = [turn for episode in ran.episodes for turn in episode.trajectory.turns]
    calls = [call for episode in ran.episodes for call in episode.trajectory.calls]
    assert len([call for call in calls if call.error is None]) >= 5
    assert {FinishReason.STOP, FinishReason.EOS} <= {turn.finish for turn in turns}
    assert all(episode.stop is not StopReason.INFRASTRUCTURE for episode in ran.episodes)
    assert sum(turn.cached for turn in turns) > 0  # a trajectory's requests met their own prefix


def named(folder: Path) -> str:
    """A search path on which vllm-cpu is also known as vllm: by that name verl asks for it."""
    from importlib.metadata import version

    info = folder / "named" / f"vllm-{version('vllm-cpu')}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}\n"
    (info / "METADATA").write_text(text)
    return str(info.parent)

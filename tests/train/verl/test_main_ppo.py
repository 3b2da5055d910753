"""verl's own trainer, two steps on a CPU with our loop, tools, rewards and nano policy.

For `make test-verl`: minutes, in an environment that has verl. tests/verl_cpu/ says what of verl is
patched for want of an accelerator; nothing of that is in the product.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doubles import NANO

from interlace.rollout.store import read_episodes
from interlace.rollout.trajectory import Episode, StopReason
from interlace.train.sources import find_tasks
from interlace.train.verl.data import write_dataset

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

TESTS = Path(__file__).parents[2]
CONFIGS = TESTS / "verl_cpu"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run of verl's trainer left behind."""

    episodes: list[Episode]
    """What our loop rolled out, that which was left out included."""
    rows: list[dict[str, Any]]
    """What verl's sampler handed to the trainer."""
    metrics: dict[int, dict[str, float]]
    """What verl logged, by step."""
    synced: list[dict[str, Any]]
    """Each time the server was given weights."""


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (CONFIGS, TESTS))),
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu_platform,verl_cpu_faults",
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",  # which of verl's classes; that the device is a CPU is above
        "VERL_FILE_LOGGER_PATH": str(folder / "metrics.jsonl"),
        "SYNCED": str(folder / "synced.jsonl"),
        "SAMPLED": str(folder / "sampled.jsonl"),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        # How long its parts wait for each other: a machine may be slow.
        "RAY_gcs_server_request_timeout_seconds": "300",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_health_check_timeout_ms": "60000",
        "RAY_health_check_failure_threshold": "20",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run(folder: Path, command: Sequence[str]) -> Ran:
    """Run a command, and read what verl's trainer left in the folder."""
    log = folder / "log.txt"
    with log.open("w") as output:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env=environment(folder),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=900,  # a minute or two on a machine that has nothing else to do
            check=False,
        )
    assert done.returncode == 0, "\n".join(log.read_text().splitlines()[-60:])
    return Ran(
        episodes=[e for file in (folder / "episodes").iterdir() for e in read_episodes(file)],
        rows=_lines(folder / "sampled.jsonl"),
        metrics={line["step"]: line["data"] for line in _lines(folder / "metrics.jsonl")},
        synced=_lines(folder / "synced.jsonl"),
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(ran: Ran) -> None:
    """What holds of every run."""
    trained = [row for row in ran.rows if row["kind"] == "train"]
    assert {row["step"] for row in trained} == {1, 2}
    assert len(trained) == 2 * 4 * 4
    for row in trained:
        _check_row(row, ran.episodes)
    first, second = ran.metrics[1], ran.metrics[2]
    for step in (first, second):
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["actor/grad_norm"] > 0
    assert first["actor/kl_loss"] == 0.0
    assert second["actor/kl_loss"] > 0.0
    # The weights come over before the first step and after each; only training changes them.
    changed = [note["changed"] for note in ran.synced]
    assert changed[0] == 0.0 and len(changed) == 3 and min(changed[1:]) > 0.0


def _check_row(row: dict[str, Any], episodes: list[Episode]) -> None:
    """The trainer's row is a ledger's, up to the last token that the policy said."""
    whole = row["prompts"] + row["responses"]
    begin = len(row["prompts"])
    found = [e for e in episodes if e.trajectory.ledger.ids[: len(whole)].tolist() == whole]
    assert found, "the trainer was handed tokens that no ledger has"
    ledger = found[0].trajectory.ledger
    assert begin == ledger.prompt_length
    mask = ledger.response_mask[begin : len(whole)].tolist()
    assert [bool(value) for value in row["response_mask"]] == mask and mask[-1]
    assert not ledger.response_mask[len(whole) :].any()
    # Attempts may say the same; then their numbers differ by the rounding of another batch.
    (episode, *_) = [e for e in found if _logprobs(e, begin, mask) == row["rollout_log_probs"]]
    total = episode.rewards["total"]
    assert row["rm_scores"] == pytest.approx([0.0] * (len(mask) - 1) + [total])


def _logprobs(episode: Episode, begin: int, mask: list[bool]) -> list[float]:
    drawn = episode.trajectory.ledger.logprobs[begin : begin + len(mask)].tolist()
    return [value if policy else 0.0 for value, policy in zip(drawn, mask, strict=True)]


def faults(ran: Ran) -> tuple[int, int, int]:
    """Calls that were stopped at their deadline, that died, and episodes our side failed."""
    calls = [call for episode in ran.episodes for call in episode.trajectory.calls]
    errors = [call.error.value for call in calls if call.error is not None]
    failed = sum(episode.stop is StopReason.INFRASTRUCTURE for episode in ran.episodes)
    return errors.count("timeout"), errors.count("died"), failed


def test_two_steps_with_python_and_its_faults(tmp_path: Path) -> None:
    for split, count in (("train", 16), ("test", 4)):
        tasks = find_tasks(f"arithmetic:{split}:{count}")
        write_dataset(tasks, tmp_path / f"{split}.parquet", split=split, source="arithmetic")
    command = [sys.executable, "-m", "verl.trainer.main_ppo"]
    command += ["--config-dir", str(CONFIGS), "--config-name", "cpu"]
    overrides = [
        f"actor_rollout_ref.model.path={NANO}",
        f"data.train_files={tmp_path / 'train.parquet'}",
        f"data.val_files={tmp_path / 'test.parquet'}",
        f"actor_rollout_ref.rollout.custom.interlace.episodes={tmp_path / 'episodes'}",
        f"hydra.run.dir={tmp_path / 'hydra'}",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
    ]
    ran = run(tmp_path, [*command, *overrides])
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

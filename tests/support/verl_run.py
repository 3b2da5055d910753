"""Running verl's own trainer on a CPU, and what holds of every such run."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.ledger import Ledger
from interlace.rollout.trajectory import Episode
from interlace.train.data.sources import find_tasks
from interlace.train.verl.compose import RECIPES
from interlace.train.verl.data import write_dataset
from support.fakes import NANO

TESTS = Path(__file__).parents[1]
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
        "INTERLACE_TEST_SYNCED": str(folder / "synced.jsonl"),
        "INTERLACE_TEST_SAMPLED": str(folder / "sampled.jsonl"),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        # How long its parts wait for each other: a machine may be slow.
        "RAY_gcs_server_request_timeout_seconds": "300",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_health_check_timeout_ms": "60000",
        "RAY_health_check_failure_threshold": "20",
        "RAY_worker_niceness": "0",  # or everybody else goes first
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def main_ppo(folder: Path, config: str, tasks: str) -> list[str]:
    """verl's own command, for a file of tests/verl_cpu/ and tasks that are written for it."""
    for split, count in (("train", 16), ("test", 4)):
        file = folder / f"{split}.parquet"
        write_dataset(find_tasks(f"{tasks}:{split}:{count}"), file, split=split, source=tasks)
    command = [sys.executable, "-m", "verl.trainer.main_ppo"]
    command += ["--config-dir", str(CONFIGS), "--config-name", config]
    command.append(f"hydra.searchpath=['file://{RECIPES}']")
    return [
        *command,
        f"actor_rollout_ref.model.path={NANO}",
        f"data.train_files={folder / 'train.parquet'}",
        f"data.val_files={folder / 'test.parquet'}",
        f"actor_rollout_ref.rollout.custom.interlace.episodes={folder / 'episodes'}",
        f"hydra.run.dir={folder / 'hydra'}",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
    ]


def run(folder: Path, command: Sequence[str], more: Mapping[str, str] | None = None) -> Ran:
    """Run a command, and read what verl's trainer left in the folder. `more` is added to its
    environment; a search path to the one that is there.
    """
    log, variables = folder / "log.txt", environment(folder)
    for name, value in (more or {}).items():
        old = variables["PYTHONPATH"] if name == "PYTHONPATH" else ""
        variables[name] = os.pathsep.join(filter(None, (old, value)))
    # A folder of its own, or Ray would join whatever other one runs on this machine; a short name,
    # since its sockets lie in it.
    temporary = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with log.open("w") as output, temporary as ray:
        variables.setdefault("RAY_TMPDIR", ray)
        done = subprocess.run(
            list(command),
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=1800,  # two minutes on a machine that has nothing else to do
            check=False,
        )
    assert done.returncode == 0, "\n".join(log.read_text().splitlines()[-60:])
    return Ran(
        episodes=[e for file in (folder / "episodes").iterdir() for e in read_episodes(file)],
        rows=_lines(folder / "sampled.jsonl"),
        metrics={line["step"]: line["data"] for line in _lines(folder / "metrics.jsonl")},
        synced=_lines(folder / "synced.jsonl") if (folder / "synced.jsonl").exists() else [],
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def check(ran: Ran) -> None:
    """What holds of every run of single agents on our own server."""
    check_steps(ran, rows=2 * 4 * 4)
    # The weights come over before the first step and after each; only training changes them.
    changed = [note["changed"] for note in ran.synced]
    assert changed[0] == 0.0 and len(changed) == 3 and min(changed[1:]) > 0.0


def check_rows(ran: Ran, rows: int) -> None:
    """What holds of every run: the rows of both steps are the ledgers'."""
    trained = [row for row in ran.rows if row["kind"] == "train"]
    assert {row["step"] for row in trained} == {1, 2}
    assert len(trained) == rows
    for row in trained:
        _check_row(row, ran.episodes)


def check_steps(ran: Ran, rows: int) -> None:
    """... and of every synchronous one: both sides agree on them. In the second step too, whose
    weights the server was given: the KL says that they are others.
    """
    check_rows(ran, rows)
    first, second = ran.metrics[1], ran.metrics[2]
    for step in (first, second):
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["actor/grad_norm"] > 0
    assert first["actor/kl_loss"] == 0.0
    assert second["actor/kl_loss"] > 0.0


def _check_row(row: dict[str, Any], episodes: list[Episode]) -> None:
    """The trainer's row is a ledger's, up to the last token that the policy said."""
    whole = row["prompts"] + row["responses"]
    begin = len(row["prompts"])
    found = [
        (episode, ledger)
        for episode in episodes
        for trajectory in episode.trajectories
        for ledger in trajectory.ledgers
        if ledger.ids[: len(whole)].tolist() == whole
    ]
    assert found, "the trainer was handed tokens that no ledger has"
    ledger = found[0][1]
    assert begin == ledger.prompt_length
    mask = ledger.response_mask[begin : len(whole)].tolist()
    assert [bool(value) for value in row["response_mask"]] == mask and mask[-1]
    assert not ledger.response_mask[len(whole) :].any()
    # Attempts may say the same; then their numbers differ by the rounding of another batch.
    totals = [
        episode.rewards["total"]
        for episode, ledger in found
        if _logprobs(ledger, begin, mask) == row["rollout_log_probs"]
    ]
    assert any(
        row["rm_scores"] == pytest.approx([0.0] * (len(mask) - 1) + [total]) for total in totals
    )


def _logprobs(ledger: Ledger, begin: int, mask: list[bool]) -> list[float]:
    drawn = ledger.logprobs[begin : begin + len(mask)].tolist()
    return [value if policy else 0.0 for value, policy in zip(drawn, mask, strict=True)]

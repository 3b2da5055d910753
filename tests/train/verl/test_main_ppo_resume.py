"""verl's trainer through `interlace train`, over a Ray started beforehand: a step, then another.

For `make test-verl`, in an environment that has verl.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.fakes import NANO
from support.verl_run import CONFIGS, check_rows, environment, run

from interlace.train.preflight.model_shapes import find_shape

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

STARTED_HERE = ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard")
"""What Ray may only be told where it is started."""


@contextmanager
def ray_elsewhere(folder: Path) -> Iterator[str]:
    """The address of a Ray that knows nothing of this run: another folder, a bare environment."""
    folder.mkdir()
    ports = iter(_free_ports(4))
    temporary = TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)  # sockets: be short
    address = f"127.0.0.1:{next(ports)}"
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}",
        f"--ray-client-server-port={next(ports)}", f"--dashboard-agent-listen-port={next(ports)}",
        f"--dashboard-agent-grpc-port={next(ports)}", "--include-dashboard=false",
        f"--temp-dir={temporary.name}", "--num-cpus=16", "--num-gpus=1",
        "--object-store-memory=300000000",
    ]  # fmt: skip
    known = ("RAY_", "HOME", "PATH", "LANG")
    variables = {k: v for k, v in environment(folder).items() if k.startswith(known)}
    with (folder / "ray.txt").open("w") as log:
        started = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield address
        finally:
            started.terminate()
            started.wait()
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)  # what it left behind
            temporary.cleanup()


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


def test_a_step_and_then_another_of_a_run_that_goes_on(tmp_path: Path) -> None:
    """SQL in ReEx-SQL's format, with objectives that verl lacks. The metrics lie in --out and not
    where Ray was started; the second run goes on from the first one's weights, with other tasks.
    """
    place = "actor_rollout_ref.rollout.custom.interlace"
    settings = [
        f"{place}.format=reex_sql",
        f"{place}.tools=null",
        f"{place}.reward=reex_sql",
        "algorithm.adv_estimator=dr_grpo",
        "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm",
        "actor_rollout_ref.actor.policy_loss.loss_mode=gppo",
        "trainer.val_before_train=false",
        *(f"~ray_kwargs.ray_init.{name}" for name in STARTED_HERE[1:]),
        "ray_kwargs.ray_init.num_cpus=null",
    ]
    command = [str(Path(sys.executable).with_name("interlace")), "train", "--engine", "verl"]
    command += ["--config", str(CONFIGS / "cpu.yaml"), "--model", str(NANO), "--out", str(tmp_path)]
    command += ["--tasks", "database:train:16", "--held-out", "database:test:4"]
    command += [part for each in settings for part in ("--set", each)]
    with ray_elsewhere(tmp_path / "elsewhere") as address:
        more = {"RAY_ADDRESS": address}
        first = run(tmp_path, [*command, "--steps", "1"], more)
        assert set(first.metrics) == {1}
        assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"ray.txt"}
        assert _checkpoints(tmp_path) == {"global_step_1"}
        files = (tmp_path / "checkpoints" / "global_step_1").rglob("*")
        held = sum(file.stat().st_size for file in files if file.is_file())
        trained = find_shape(str(NANO)).parameters
        assert held == pytest.approx(12 * trained, rel=0.05)  # what the plan reckons with
        done = subprocess.run(
            [*command, "--steps", "1", "--resume"],
            env=environment(tmp_path), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and "1 steps are done of 1" in done.stderr
        second = run(tmp_path, [*command, "--steps", "2", "--resume"], more)
    assert _checkpoints(tmp_path) == {"global_step_1", "global_step_2"}
    told = [json.loads(line) for line in (tmp_path / "metrics-2.jsonl").read_text().splitlines()]
    assert [line["step"] for line in told] == [2]
    check_rows(second, rows=2 * 4 * 4)
    for metrics in (first.metrics[1], told[0]["data"]):
        assert metrics["training/rollout_probs_diff_max"] < 1e-5
        assert metrics["rollout_corr/rollout_is_eff_sample_size"] == pytest.approx(1.0, abs=1e-3)
        assert metrics["actor/grad_norm"] > 0
    # The server of the second run began with the weights that the first one ended with.
    changed = [(note["step"], note["changed"]) for note in second.synced]
    (_, untrained), (_, by_first), (_, from_checkpoint), (_, by_second) = changed
    assert untrained == 0.0 and min(by_first, by_second) > 0.0
    assert from_checkpoint == pytest.approx(by_first, rel=1e-6)
    # The order of the tasks goes on where it was: no task comes twice within one pass.
    drawn = {
        step: {row["task"] for row in second.rows if (row["step"], row["kind"]) == (step, "train")}
        for step in (1, 2)
    }
    assert {len(tasks) for tasks in drawn.values()} == {4}
    assert not drawn[1] & drawn[2]


def _checkpoints(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").glob("global_step_*")}

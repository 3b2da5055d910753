"""`make demo-verl`: two steps of verl's own trainer on this CPU, told in a few lines."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.verl_run import CONFIGS, environment

NANO = Path(__file__).parents[2] / "rollout" / "engines" / "nano"

STORY = """\
verl's own trainer runs two steps on this CPU. It draws four word problems a step; interlace's loop
lets the nano model try each four times, with real Python calls; verl computes advantages, updates
the weights (FSDP) and hands them back to the engine. Ray and FSDP start first: a minute or two.
"""
STEP = """\
step {step}: {interlace/episodes:.0f} attempts, {interlace/reward/correct:.0%} right, \
{interlace/reward/calls:.2f} calls and {interlace/response_tokens:.0f} tokens each, \
{interlace/left_out:.0f} left out
        trainer and engine at most {training/rollout_probs_diff_max:.1e} apart; \
gradient {actor/grad_norm:.2f}, entropy {actor/entropy:.2f}, \
{timing_s/step:.1f} s
"""
"""One step's metrics, by verl's names and ours."""


def main() -> int:
    """Run it and print the story; the exit code is the run's."""
    out = Path(tempfile.mkdtemp(prefix="interlace-demo-verl-"))
    print(STORY, flush=True)
    command = [
        str(Path(sys.executable).with_name("interlace")), "train", "--engine", "verl",
        "--config", str(CONFIGS / "demo.yaml"), "--model", str(NANO),
        "--tasks", "arithmetic:train:16", "--held-out", "arithmetic:test:8",
        "--steps", "2", "--out", str(out),
    ]  # fmt: skip
    variables = {**environment(out), "VERL_USE_EXTERNAL_MODULES": "verl_cpu_platform"}
    began, log = time.monotonic(), out / "log.txt"
    ray = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with log.open("w") as file, ray as folder:
        variables["RAY_TMPDIR"] = folder  # or Ray would join whatever other one runs here
        code = subprocess.run(
            command, cwd=out, env=variables, stdout=file, stderr=file, check=False
        ).returncode
    if code:
        print("\n".join(log.read_text().splitlines()[-20:]))
        print(f"the run ended with exit code {code}; all it said is in {log}")
        return code
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    held_out = []
    for line in lines:
        step, metrics = line["step"], line["data"]
        if step:
            print(STEP.format_map({**metrics, "step": step}), end="")
        right = [value for name, value in metrics.items() if name.startswith("val-core/")]
        held_out += [f"{value:.0%} after step {step}" for value in right[:1]]
    print(f"held out: {', '.join(held_out)} (eight problems, two attempts at each)\n")
    print(f"{time.monotonic() - began:.0f} seconds; all of it is in {out}:")
    print("  metrics.jsonl   everything that verl logs, and interlace/...: what the episodes did")
    print(f"  episodes/       interlace show {next((out / 'episodes').iterdir())}")
    print("  checkpoints/    weights, optimizer, position in the tasks: --resume goes on from here")
    print("  log.txt         what verl printed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line on the real vLLM: a run that is stopped, and completed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from support.fakes import NANO

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.trajectory import StopReason

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]
CUT_OFF = (None, StopReason.CANCELLED, StopReason.INFRASTRUCTURE)


def alive(session: int) -> list[str]:
    """The commands of the processes of a session that have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended
            continue
        if int(of) == session and state != "Z":
            found.append(command)
    return found


def test_a_rollout_stopped_by_ctrl_c_leaves_nothing_and_is_completed(tmp_path: Path) -> None:
    tasks, log = tmp_path / "tasks.jsonl", tmp_path / "t.jsonl"
    rows = [
        {"question": f"What is {812 + n} * {77 + n}?", "answer": str((812 + n) * (77 + n))}
        for n in range(8)
    ]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [*COMMAND, "rollout", str(tasks), "-m", str(NANO), "--engine", "vllm"]
    command += ["--out", str(log), "--n", "8", "--seed", "0", "--concurrency", "4"]

    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            while process.poll() is None:
                if log.exists() and log.read_bytes().count(b"\n") >= 4:
                    break
                time.sleep(0.02)
            kept = log.read_bytes()
            kept = kept[: kept.rindex(b"\n") + 1]
            os.killpg(process.pid, signal.SIGINT)  # to all, as a terminal does
            _, said = process.communicate(timeout=240)
        finally:
            process.kill()
    patience = time.monotonic() + 60
    assert process.returncode == 130, said
    assert "--resume continues" in said and "Traceback" not in said
    while left := alive(process.pid):  # vLLM's processes end by themselves, a moment later
        assert time.monotonic() < patience, left
        time.sleep(0.05)
    assert log.read_bytes().startswith(kept)
    before = {episode.id for episode in read_episodes(log) if episode.stop not in CUT_OFF}
    assert 4 <= len(before) < 64

    done = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["episodes"] == summary["expected"] == 64
    assert summary["new"] == 64 - len(before) and summary["error"] is None
    assert summary["correct"] > 0.5
    whole = Counter(e.id for e in read_episodes(log) if e.stop not in CUT_OFF)
    assert len(whole) == 64 and set(whole.values()) == {1}
    assert log.read_bytes().startswith(kept)

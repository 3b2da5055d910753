"""What verl's trainer is started with, and that it never outlives who started it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from interlace.rollout.task import Task
from interlace.tools.errors import DataError, ToolUnavailable
from interlace.train.verl import launch
from interlace.train.verl.ending import ENDED
from interlace.train.verl.launch import Launch
from interlace.train.verl.plan import Plan, count_rows


def test_the_environment_travels_in_the_jobs_own_so_that_a_ray_started_beforehand_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setenv("LS_COLORS", "no business of Ray's")
    job = {"runtime_env": {"env_vars": {"MINE": "1"}, "working_dir": "gcs://x"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    made = launch._environment({"VERL_FILE_LOGGER_PATH": "/out/metrics.jsonl"})
    runtime = json.loads(made["RAY_JOB_CONFIG_JSON_ENV_VAR"])["runtime_env"]
    variables = runtime["env_vars"]
    wanted = {"HF_HOME": "/models", "WANDB_API_KEY": "secret", "MINE": "1"}
    assert wanted.items() <= variables.items()
    assert variables["VERL_FILE_LOGGER_PATH"] == made["VERL_FILE_LOGGER_PATH"]
    assert "LS_COLORS" not in variables and "PATH" not in variables
    assert runtime["working_dir"] == "gcs://x"  # a job of `ray job submit` keeps what it has


PARENT = """
    import sys
    from interlace.train.verl.launch import _wait_for
    print("begun", flush=True)
    _wait_for([sys.executable, "-c", sys.argv[1]], {})
"""
CHILD = """
    import os, signal
    print(os.getpid(), flush=True)
    signal.pause()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's kernel")
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_trainer_ends_with_who_started_it_however_that_ends(kind: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), textwrap.dedent(CHILD)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "begun\n"
    child = int(parent.stdout.readline())
    parent.send_signal(kind)
    try:
        parent.communicate(timeout=200)  # its end is reached when the child too has ended
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        raise


def launched(out: Path, *tasks: Task, resume: bool = False) -> Launch:
    trainer = SimpleNamespace(default_local_dir=str(out / "checkpoints"))
    plan = Plan(steps=2, lines=[], lacking=[])
    data = {"train": ("mine", list(tasks))} if tasks else {}
    config = SimpleNamespace(trainer=trainer)
    return Launch(Path("mine.yaml"), (), out, config, plan, data, resume)


def test_a_run_is_done_only_once_its_last_step_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever exit code verl's trainer has; why it failed is told where somebody noted it."""

    def trainer(code: int, saved: int | None = None, why: str = "") -> None:
        def wait_for(command: Sequence[str], environment: Mapping[str, str]) -> int:
            if saved is not None:
                (tmp_path / "checkpoints").mkdir(exist_ok=True)
                file = tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt"
                file.write_text(str(saved))
            if why:
                Path(environment[ENDED]).write_text(why)
            return code

        monkeypatch.setattr(launch, "_wait_for", wait_for)

    trainer(1)
    with pytest.raises(ToolUnavailable, match="exit code 1: what it printed above"):
        launched(tmp_path).run()
    trainer(1, why="step 1 has nothing to learn from")
    with pytest.raises(ToolUnavailable, match="exit code 1: step 1 has nothing to learn from"):
        launched(tmp_path).run()
    trainer(0, saved=1)
    with pytest.raises(ToolUnavailable, match="step 1 as its last checkpoint, before step 2"):
        launched(tmp_path).run()
    trainer(0, saved=2)
    assert launched(tmp_path).run() == 2


def test_a_run_does_not_go_on_with_other_tasks_than_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_wait_for", lambda *_: 1)
    tasks = [Task("a", "1 + 1?", "2"), Task("b", "1 + 2?", "3")]
    for resume in (False, True):
        with pytest.raises(ToolUnavailable):  # it got as far as verl's trainer
            launched(tmp_path, *tasks, resume=resume).run()
    with pytest.raises(DataError, match="mine holds other tasks than those that the run began"):
        launched(tmp_path, tasks[1], resume=True).run()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train.parquet"]


def test_names_of_tasks_are_short_in_metrics() -> None:
    """verl puts them into a metric's name."""
    assert launch._short("gsm8k:/home/ann/data/test.jsonl") == "gsm8k"
    assert launch._short("/home/ann/data/mine.jsonl") == "mine"
    assert launch._short("arithmetic:test:200") == launch._short("arithmetic") == "arithmetic"


def test_rows_are_counted_as_verl_reads_them(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\n\n{"a": 2}\n')
    whole = tmp_path / "b.json"
    whole.write_text('[{"a": 1}, {"a": 2}, {"a": 3}]')
    assert (count_rows(lines), count_rows(whole)) == (2, 3)
    for name, text in (("c.csv", "a\n1\n"), ("d.parquet", "no Parquet"), ("e.json", "[1")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            count_rows(tmp_path / name)
    with pytest.raises(DataError, match=r"there is no .*f\.parquet"):
        count_rows(tmp_path / "f.parquet")

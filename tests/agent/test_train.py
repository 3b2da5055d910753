"""`interlace train` as scripts meet it: real processes, the bundled model, the real interpreter."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import warm
from typer.testing import CliRunner

from interlace.agent.cli.main import app
from interlace.rollout.episode_log import read_episodes
from interlace.train.config import TrainConfig, read_config
from interlace.train.local.record import read_metrics

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()", "train"]
PATIENCE = 180  # seconds; on a machine with nothing else to do, each command takes ten
SMALL = [
    *("--tasks", "arithmetic", "--held-out", "arithmetic:test:2", "--objective", "grpo"),
    *("--set", "tasks_per_step=2", "--set", "group_size=2", "--set", "max_tokens=96"),
    *("--set", "plot=true", "--set", "tensorboard=true"),
]


def interlace(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    settings = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *map(str, arguments)]
    done = warm.run(command, capture_output=True, env=settings, timeout=PATIENCE)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    code, out, err = interlace(*SMALL, "--steps", "2", "--out", folder, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["out"], told["steps"]) == (str(folder), 2)
    assert "resuming continues from the same state with new noise" in err
    assert "step 1: " in err and "step 2: " in err
    return folder


def test_a_run_leaves_all_that_one_may_want_to_see_of_it(folder: Path) -> None:
    metrics = read_metrics(folder)
    assert [each["step"] for each in metrics] == [0, 1, 2]
    assert {"held_out/accuracy"} <= metrics[0].keys() & metrics[2].keys()
    for step in (1, 2):
        episodes = list(read_episodes(folder / "episodes" / f"{step:05}.jsonl"))
        assert len(episodes) == 4 and all("total" in each.rewards for each in episodes)
    assert len(list(read_episodes(folder / "episodes" / "held-out-00002.jsonl"))) == 2
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").iterdir())
    assert read_config(folder / "config.yaml", {}).config.group_size == 2


def test_a_run_goes_on_only_when_asked_and_further_than_planned(folder: Path) -> None:
    code, _, err = interlace(*SMALL, "--steps", "3", "--out", folder)
    assert code == 2 and "holds a run already: --resume continues it" in err
    code, _, err = interlace("--resume", "--out", folder, "--lora-rank", "4")
    assert code == 9 and "of another run, whose lora_rank is 0 and not 4" in err
    lower = ("--steps", "3", "--learning-rate", "1e-6", "--set", "micro_tokens=4096")
    code, _, err = interlace("--resume", "--out", folder, *lower)
    assert code == 0, err
    assert "learning_rate is 1e-06 from here on; it was 1e-05" in err
    assert "# from step 3 on: learning_rate 1e-06" in (folder / "config.yaml").read_text()
    assert [each["step"] for each in read_metrics(folder)] == [0, 1, 2, 3]


def test_sigterm_saves_the_step_and_ends_with_143(tmp_path: Path) -> None:
    """As Slurm and Kubernetes end a job."""
    out = tmp_path / "run"
    settings = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *SMALL, "--steps", "50", "--out", str(out), "--set", "save_every=50"]
    with warm.Popen(command, stderr=subprocess.PIPE, env=settings) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 1:"):
                process.send_signal(signal.SIGTERM)
                break
        err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 143 and f"interlace train --resume --out {out} continues" in err
    done = json.loads((out / "checkpoint" / "trainer.json").read_text())["done"]
    assert done == read_metrics(out)[-1]["step"] >= 1
    code, _, err = interlace("--resume", "--out", out, "--steps", str(done + 1))
    assert code == 0, err


def test_a_dry_run_prints_every_setting_with_where_it_is_from_and_does_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"steps: 7\nout: {tmp_path / 'run'}\n")
    code, out, _ = interlace(file, "--lora-rank", "8", "--dry-run")
    lines = dict(line.split(":", 1) for line in out.splitlines())
    assert code == 0 and list(lines) == list(TrainConfig.model_fields)
    origins = {name: line.rpartition("  # ")[2] for name, line in lines.items()}
    assert [origins[name] for name in ("steps", "lora_rank", "seed")] == [
        str(file),
        "flag",
        "default",
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("held_out: nofile", "unknown tasks 'nofile'; choose from arithmetic, database"),
        ("tasks: nofile.parquet", "can't read nofile.parquet"),
        ("tools: [nothing]", "nothing"),
        ("format: search_r1", "search_r1"),
        ("format: hermse", "format (run.yaml): unknown format 'hermse'; choose from "),
        ("tasks: bird:ROWS", "have db_id and no database: name the folder with --databases"),
        ("tasks: bird:ROWS\nreward: reex_sql", "have db_id and no database"),
        ("tasks: FEW", "a step needs 16 tasks (tasks_per_step), there are 1"),
        ("tasks: FEW\ntasks_per_step: 1\nreward: reex_sql", "these tasks bring none"),
        ("steps: 3\nseed: 1\nsteps: 4", "steps stands on line 1 and again on line 3"),
        ("betas: [0.9]", "betas (run.yaml): has too few values, as in [0.9, 0.999]"),
        ("learning_rate: .inf", "must be a number that is finite, not inf"),
        ("lora_alpha: .nan", "must be a number that is finite, not nan"),
        ("temperatur: 1", "did you mean temperature?"),
        ("[" * 3000, "its brackets are nested too deeply"),
    ],
)
def test_a_dry_run_names_what_would_fail_later(
    settings: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"db_id": "port", "question": "Ships?", "evidence": "", "SQL": "select 1"}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (tmp_path / "few.jsonl").write_text('{"question": "1 + 1?", "answer": 2}')
    (tmp_path / "run.yaml").write_text(
        settings.replace("ROWS", "rows.json").replace("FEW", "few.jsonl")
    )
    done = CliRunner().invoke(app, ["train", "run.yaml", "--dry-run"])
    assert done.exit_code in (2, 9), done.output
    assert said in done.stderr and "bug" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "stepps=3"], "stepps (flag): there is no such setting: did you mean steps?"),
        (["--set", "steps"], "write NAME=VALUE"),
        (["--resume", "--out", "nowhere"], "nowhere holds no run to continue"),
        (["--tasks", "arithmetic:tset"], "names no tasks"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(arguments: list[str], said: str) -> None:
    code, out, err = interlace(*arguments)
    assert code == 2 and said in " ".join(err.split()) and not out

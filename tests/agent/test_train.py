"""`interlace train` as scripts meet it: real processes, the bundled model, the real interpreter."""

import json
import os
import sys
from pathlib import Path

import pytest
import warm

from interlace.rollout.store import read_episodes
from interlace.train.config import TrainConfig, read_config
from interlace.train.local.record import read_metrics

COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()", "train"]
PATIENCE = 240  # seconds; on a machine with nothing else to do, each command takes ten
SMALL = [
    *("--tasks", "arithmetic", "--held-out", "arithmetic:test:2", "--objective", "grpo"),
    *("--set", "tasks_per_step=2", "--set", "group_size=2", "--set", "response_tokens=96"),
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
    assert "resuming goes on from the same state with new noise" in err
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
    assert code == 2 and "holds a run already: --resume goes on with it" in err
    code, _, err = interlace("--resume", "--out", folder, "--set", "group_size=3")
    assert code == 9 and "of another run, whose group_size is 2 and not 3" in err
    code, _, err = interlace("--resume", "--out", folder, "--steps", "3")
    assert code == 0, err
    assert [each["step"] for each in read_metrics(folder)] == [0, 1, 2, 3]


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
    ("arguments", "said"),
    [
        (["--set", "stepps=3"], "stepps (flag): Extra inputs are not permitted"),
        (["--set", "steps"], "write NAME=VALUE"),
        (["--resume", "--out", "nowhere"], "nowhere holds no run to go on with"),
        (["--tasks", "arithmetic:tset"], "names no tasks"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(arguments: list[str], said: str) -> None:
    code, out, err = interlace(*arguments)
    assert code == 2 and said in " ".join(err.split()) and not out

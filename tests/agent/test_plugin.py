"""The example of a package that brings parts of its own: installed, and each used by name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import warm

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.models.files import find_model

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]

SAYS = """
from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.models.files import find_model
from interlace.rollout.tokenizer import Tokenizer

def says(*texts):
    return ScriptedEngine(Tokenizer.load(find_model("nano")), list(texts) * 20)

def calculates():
    return says("<calc>print(17 * 23)</calc>", "<answer>391</answer>")

def asks():
    call = '{"name": "tide", "arguments": {"harbour": "Cor", "hour": 15}}'
    return says(f"<tool_call>\\n{call}\\n</tool_call>", "It is 3.6 m high.")

def five():
    return says("<answer>5.05 m</answer>")
"""
"""Models that know what to say, so that it can be seen what became of it."""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on Python's path, as `pip install` of the example leaves it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("build", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    where = ["--no-build-isolation", "--target", str(folder / "packages"), str(folder / "source")]
    subprocess.run([*pip, *where], check=True, capture_output=True)
    return folder / "packages"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(SAYS)
    shutil.copy(PLUGIN / "tides.json", tmp_path)
    return tmp_path


def interlace(here: Path, installed: Path, *arguments: str, code: int = 0) -> str:
    """The command's stdout, or its stderr where it is to fail."""
    path = os.pathsep.join([str(installed), *filter(None, sys.path)])
    environment = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = warm.run(
        [*COMMAND, *arguments], capture_output=True, cwd=here, env=environment, timeout=300
    )
    assert done.returncode == code, (arguments, done.stderr)
    return done.stderr if code else done.stdout


def test_a_tool_and_a_format(here: Path, installed: Path) -> None:
    told = interlace(here, installed, "tools", "tide")
    assert told.startswith("tide: The height of the tide in a harbour") and "hour (int)" in told
    asked = ("run", "How high?", "--json", "--quiet", "--model")
    said = json.loads(interlace(here, installed, *asked, "models.py:asks", "--tool", "tide"))
    assert said["calls"][0]["output"] == "3.6 m" and "3.6" in said["answer"]
    given = ("models.py:calculates", "--format", "calculator")
    said = json.loads(interlace(here, installed, *asked, *given))
    assert (said["answer"], said["format"], said["calls"][0]["output"]) == (
        "391",
        "calculator",
        "391",
    )
    assert "</calc>" in interlace(
        here, installed, "doctor", "--tokenizer", str(find_model("nano")), "--format", "calculator"
    )


def test_tasks_an_adapter_a_generator_a_checker_and_a_strategy(here: Path, installed: Path) -> None:
    for tasks, number, right in (
        ("harbours@hour=3", 4, 1),
        ("tide_table:tides.json", 3, 1),
        ("heights:test:5:1", 5, 0),
    ):
        out = Path("runs", tasks.partition(":")[0])
        settings = ("--model", "models.py:five", "--format", "retool", "--tool", "none")
        ways = ("--checker", "near", "--strategy", "agree@most=3", "--concurrency", "1")
        found = interlace(
            here, installed, "eval", tasks, *settings, *ways, "--json", "--out", str(out)
        )
        assert json.loads(found)["accuracy"]["value"] == pytest.approx(right / number)
        episodes = list(read_episodes(here / out / "episodes.jsonl"))
        assert len(episodes) == number
        for episode in episodes:
            assert episode.trajectory.strategy == {"name": "agree", "attempts": 2}


def test_an_engine(here: Path, installed: Path) -> None:
    given = ("heights:train:3", "--model", "dice:nano@context=300", "--max-tokens", "40")
    interlace(here, installed, "rollout", *given, "--out", "t.jsonl", "--quiet")
    episodes = list(read_episodes(here / "t.jsonl"))
    assert [episode.trajectory.model for episode in episodes] == ["dice:nano@context=300"] * 3
    for episode in episodes:
        drawn = episode.trajectory.ledger.logprobs[episode.trajectory.ledger.response_mask]
        assert len(drawn) > 1 and (drawn == drawn[0]).all()


SMALL = [
    "steps=1",
    "tasks_per_step=2",
    "group_size=2",
    "max_tokens=48",
    "dynamic_sampling=false",
]


def test_a_reward_an_objective_and_a_checker_train(here: Path, installed: Path) -> None:
    names = ("--reward", "brief@tokens=30", "--objective", "cut_off@most=3", "--checker", "near")
    sizes = [word for each in SMALL for word in ("--set", each)]
    given = ("--tasks", "heights", "--held-out", "harbours", *names, *sizes)
    said = interlace(here, installed, "train", *given, "--out", "run", "--json", "--quiet")
    metrics = json.loads(said)["metrics"]
    assert "reward/brief" in metrics, metrics
    settings = (here / "run" / "config.yaml").read_text()
    assert "brief@tokens=30" in settings and "cut_off@most=3" in settings


def test_an_attempt_and_a_credit_train_a_team(here: Path, installed: Path) -> None:
    names = ("--set", "attempt=relay", "--credit", "last_turn")
    sizes = [word for each in SMALL for word in ("--set", each)]
    given = ("--tasks", "heights", *names, *sizes)
    interlace(here, installed, "train", *given, "--out", "run", "--quiet")
    episodes = list(read_episodes(next((here / "run" / "episodes").glob("*.jsonl"))))
    assert {len(episode.trajectories) for episode in episodes} == {2}


def test_a_name_that_two_packages_register_is_an_error_that_names_both(
    here: Path, installed: Path
) -> None:
    other = here / "other_tides-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other-tides\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[interlace.plugins]\nengine.dice = x:y\n")
    said = interlace(here, installed, "run", "?", "--model", "dice", code=2)
    for package in ("interlace-tides", "other-tides"):
        assert package in said
    assert "both register the engine 'dice'" in said and said.count("\n") == 1

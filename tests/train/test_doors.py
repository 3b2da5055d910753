"""A stranger's reward, checker, objective, credit, tool, format and tasks train a model: named in a
command or a file, or given in Python. A run's folder and a file of tasks may name none of them.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import warm
from support.attempts import attempt
from support.fakes import answer
from support.tiny_models import byte_tokenizer, checkpoint
from typer.testing import CliRunner

from interlace import Task, tool
from interlace.agent.cli.main import app
from interlace.rollout.episode_log import EpisodeLog, read_episodes
from interlace.rollout.formats.hermes import Hermes
from interlace.rollout.trajectory import Episode, Speaker, TeamCall
from interlace.tools.errors import DataError, UsageError
from interlace.train.config import Resolved, TrainConfig, read_config
from interlace.train.local.record import Record, read_metrics
from interlace.train.local.rl import Trainer
from interlace.train.local.training_setup import make_setup
from interlace.train.objectives import OBJECTIVES, find_objective
from interlace.train.rewards import Checker, find_rewards
from interlace.train.rewards.team_credit import find_credit
from interlace.train.verl.launch import own_names
from interlace.train.verl.settings import PLACE, read_settings

PARTS = '''
"""A stranger's parts."""

from dataclasses import replace

import interlace
from interlace.rollout.formats.hermes import Hermes
from interlace.rollout.trajectory import Speaker, TeamCall
from interlace.train.objectives import OBJECTIVES
from interlace.train.rewards import RewardPart, Rewards

open(__file__ + ".ran", "w").close()


def low(episode, task, *, below=128):
    """Prefers low bytes."""
    ids = [id for span in episode.trajectory.ledger for id in span.ids.tolist()]
    return sum(id < below for id in ids) / len(ids)


def low_and_right(checker, tokenizer):
    return [RewardPart("correct", checker.correct), RewardPart("low", low, weight=0.1)]


right_alone = RewardPart("right", lambda episode, task: float(episode.answer == task.answer))


class Length:
    """A reward with a state of its own."""

    def __init__(self, unit=1):
        self.unit = unit

    def __call__(self, episode, task):
        return episode.trajectory.sampled_tokens / self.unit


def near(task, a, b, *, by=0.01):
    try:
        return abs(float(a) - float(b)) <= by
    except ValueError:
        return False


def careful(clip=0.1):
    base = OBJECTIVES["grpo"]
    return replace(base, name="careful", config=replace(base.config, clip_ratio_high=clip))


fixed = careful(0.3)


def by_role(speaker):
    return speaker.role


class Own(Hermes):
    name = "own"


@interlace.tool
def tide(place: str) -> str:
    """The height of the tide."""
    return "3 m"


tasks = [{"question": "?" * n, "answer": "1"} for n in range(1, 5)]


async def pair(episode, policy, open):
    """Two roles, one after the other."""
    for number, role in enumerate(("writer", "reader")):
        name = f"{episode.id}/{role}"
        async with open(policy, name=name, seed=None) as rollout:
            rollout.trajectory.team = TeamCall(Speaker(role, role, 0, number))
            episode.trajectories.append(rollout.trajectory)
            await rollout.ask(episode.task.question)


def broken(episode, task):
    return 1 / 0


number = 5
'''
COMMAND = [sys.executable, "-c", "from interlace.agent.cli.main import main; main()"]
SMALL = ["--set", "tasks_per_step=2", "--set", "group_size=4", "--set", "max_tokens=12"]
TASK = Task("t", "How many?", "7")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a stranger's module and a tiny model."""
    (tmp_path / "strange_parts.py").write_text(PARTS)
    checkpoint(tmp_path / "model", max_position_embeddings=2048)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("strange_parts", None)


def interlace(*arguments: str | Path) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command, a process of its own."""
    settings = os.environ | {"NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, *map(str, arguments)]
    done = warm.run(command, capture_output=True, env=settings, timeout=300)
    return done.returncode, done.stdout, done.stderr


def dry_run(*arguments: str) -> tuple[int, str]:
    """The exit code and what is said of `interlace train --dry-run`, in this process."""
    done = CliRunner().invoke(app, ["train", "--dry-run", "--model", "model", *arguments])
    return done.exit_code, " ".join(done.stderr.split())


# -- what a name stands for -----------------------------------------------------------------------


def test_a_reward_is_a_function_or_parts_or_makes_them(here: Path) -> None:
    tokenizer = byte_tokenizer(here)
    episode = attempt(TASK, answer("7"))
    for name, parts in {
        "strange_parts.py:low": ["low", "correct"],
        "strange_parts:low@below=64": ["low", "correct"],
        "strange_parts.py:low_and_right": ["correct", "low"],
        "strange_parts.py:right_alone": ["right", "correct"],
        "strange_parts.py:Length@unit=2": ["Length", "correct"],
        "retool": ["outcome", "calls", "tool_errors", "void_turns", "forged", "correct"],
    }.items():
        with Checker() as checker:
            rewards = find_rewards(name, checker, tokenizer, response_tokens=99)
            assert [part.name for part in rewards.parts] == parts
            assert rewards.score(episode).parts["correct"] == 1.0
    with Checker() as checker:
        broken = find_rewards("strange_parts.py:broken", checker, tokenizer, response_tokens=99)
        with pytest.raises(UsageError, match=r"the reward broken failed: ZeroDivisionError"):
            broken.score(episode)


def test_a_checker_is_a_function_of_two_answers(here: Path) -> None:
    with Checker(default="strange_parts.py:near@0.5") as checker:
        assert checker.right(TASK, "7.4") and not checker.right(TASK, "7.6")
        assert not checker.right(TASK, "seven")
        words = replace(TASK, answer="The Beatles", data={"checker": "em"})
        assert checker.right(words, "beatles")  # what a task says of itself comes first
    with Checker(default=lambda task, a, b: a[0] == b[0]) as checker:
        assert checker.right(TASK, "71")


def test_an_objective_is_one_or_is_made_from_parameters(here: Path) -> None:
    assert find_objective("strange_parts.py:careful@clip=0.2").config.clip_ratio_high == 0.2
    assert find_objective("strange_parts:fixed").name == "careful"
    with pytest.raises(UsageError, match="takes neither a source nor parameters"):
        find_objective("strange_parts:fixed@clip=0.2")


def test_credit_is_the_place_of_a_trajectory(here: Path) -> None:
    group = []
    for sample in range(2):
        episode = attempt(TASK, answer("7"))
        episode.sample, episode.rewards = sample, {"total": float(sample)}
        for each in episode.trajectories:
            each.team = TeamCall(Speaker("writer", "Ann", 0))
        group.append(episode)
    (parts,) = find_credit("strange_parts.py:by_role")(group)
    assert [part.rewards["total"] for part in parts] == [0.0, 1.0]


def test_an_installed_package_may_be_named_by_a_task_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = here / "site" / "strange-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    kinds = {"reward.curt": "low", "checker.near": "near", "objective.own": "careful"}
    points = "".join(f"{name} = strange_parts:{thing}\n" for name, thing in kinds.items())
    (package / "entry_points.txt").write_text(f"[interlace.plugins]\n{points}credit.role_ = "
                                              "strange_parts:by_role\n")  # fmt: skip
    monkeypatch.syspath_prepend(here / "site")
    monkeypatch.syspath_prepend(here)
    with Checker() as checker:
        assert checker.right(replace(TASK, data={"checker": "near"}), "7.001")
    config = TrainConfig(
        reward="curt@below=3", checker="near", objective="own@clip=0.2", credit="role_",
        attempt="strange_parts:pair",
    )  # fmt: skip
    assert config.to_objective().config.clip_ratio_high == 0.2
    with pytest.raises(UsageError, match=r"choose from correct, .*curt, or name your own"):
        read_config(None, {"reward": "luck"})


# -- commands -------------------------------------------------------------------------------------


def test_one_of_each_kind_trains_a_model_from_a_file_in_another_folder(here: Path) -> None:
    """Paths in a configuration are relative to it; a resumed run asks for all of them again."""
    recipes = here / "recipes"
    recipes.mkdir()
    (recipes / "own.py").write_text(PARTS)
    named = {
        "reward": "own.py:low@below=64", "checker": "own.py:near", "objective": "own.py:careful",
        "format": "own.py:Own", "tools": ["own.py:tide"], "tasks": "own.py:tasks",
    }  # fmt: skip
    small = {"tasks_per_step": 2, "group_size": 4, "max_tokens": 12, "model": "model"}
    (recipes / "run.yaml").write_text(json.dumps(named | small))
    code, _, err = interlace("train", "recipes/run.yaml", "--steps", "1", "--out", "run")
    assert code == 0, err
    assert "careful" in err
    episodes = [e for file in Path("run/episodes").iterdir() for e in read_episodes(file)]
    assert {e.trajectory.format for e in episodes} == {"own"}
    assert all(0 < e.rewards["low"] < 1 and e.rewards["correct"] == 0 for e in episodes)
    assert {e.task.question for e in episodes} <= {"?" * n for n in range(1, 5)}

    (recipes / "own.py.ran").unlink()
    code, out, err = interlace("train", "--resume", "--out", "run", "--steps", "2")
    assert code == 2 and not out and "name it again with" in err
    again = re.findall(r"--set ('[^']*'|\S+)", err)
    assert len(again) == len(named) and not (recipes / "own.py.ran").exists()
    given = [part for each in again for part in ("--set", each.strip("'"))]
    code, _, err = interlace("train", "--resume", "--out", "run", "--steps", "2", *given)
    assert code == 0, err
    assert len(read_metrics(Path("run"))) == 2


def test_a_team_of_ones_own_trains_with_ones_own_credit(here: Path) -> None:
    code, _, err = interlace(
        "train", *SMALL, "--model", "model", "--set", "format=retool", "--steps", "1",
        "--tasks", "strange_parts:tasks", "--reward", "strange_parts:low",
        "--set", "attempt=strange_parts:pair", "--credit", "strange_parts.py:by_role",
        "--set", "learns=[writer]", "--objective", "grpo", "--out", "run",
    )  # fmt: skip
    assert code == 0, err
    (metrics,) = read_metrics(Path("run"))
    assert metrics["updates"] == 1 and metrics["grad_norm"] > 0


def test_an_evaluation_goes_by_ones_own_checker(here: Path) -> None:
    task = {"id": "a", "question": "What is 17 * 23?", "answer": "391.4"}
    Path("tasks.jsonl").write_text(json.dumps(task) + "\n")
    right = {}
    for by in ("0.5", "0.3"):
        code, out, err = interlace(
            "eval", "tasks.jsonl", "--checker", f"strange_parts.py:near@by={by}", "--json"
        )
        assert code == 0, err
        right[by] = json.loads(out)["accuracy"]["value"]
    assert right == {"0.5": 1.0, "0.3": 0.0}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--reward luck", 2, "unknown reward 'luck'; choose from correct"),
        ("--reward strange_parts:number", 2, "the reward number is 5: give a function"),
        ("--reward strange_parts:near", 2, "must be a function of (episode, task)"),
        ("--reward correct@1", 2, "correct takes no parameter"),
        ("--checker strange_parts:low", 2, "must be a function of (task, a, b)"),
        ("--checker math:strict", 2, "takes no 'strict' after a colon"),
        ("--objective strange_parts:number", 2, "name an Objective"),
        ("--objective strange_parts:careful@clib=1", 2, "unknown parameter"),
        ("--credit nobody --set attempt=strange_parts:pair", 2, "unknown credit 'nobody'"),
        ("--set attempt=strange_parts:number", 2, "must be a function"),
        ("--credit role", 2, "attempt names the team"),
        ("--set format=nope", 2, "unknown format 'nope'"),
        ("--set tools=[strange_parts:ebb]", 2, "has no attribute 'ebb'"),
        ("--set tasks=none.jsonl", 9, "can't read none.jsonl"),
        ("--set reward=5", 2, "must be text, not 5"),
    ],
)
def test_a_dry_run_finds_what_the_run_would_miss(
    here: Path, arguments: str, code: int, said: str
) -> None:
    found, err = dry_run(*arguments.split())
    assert found == code and said in err and "bug" not in err, err


def test_a_dry_run_takes_what_is_there(here: Path) -> None:
    assert dry_run("--reward", "strange_parts:low", "--set", "tools=[strange_parts:tide]")[0] == 0


def test_verls_settings_take_the_same_names_and_load_them(here: Path) -> None:
    """A recipe's paths are relative to it: verl's processes work elsewhere."""
    settings = {"format": "strange_parts.py:Own", "reward": "strange_parts:low@below=64"}
    team = {"attempt": "strange_parts:pair", "credit": "strange_parts:by_role"}
    assert read_settings({"interlace": settings | team}).credit == "strange_parts:by_role"
    for setting, said in {
        "tools": (["strange_parts:ebb"], r"interlace\.tools\.0: the tool .* no attribute 'ebb'"),
        "reward": ("luck", "interlace.reward: unknown reward 'luck'"),
        "checker": ("strange_parts:low", r"must be a function of \(task, a, b\)"),
    }.items():
        with pytest.raises(UsageError, match=said[1]):
            read_settings({"interlace": settings | {setting: said[0]}})
    nested: Any = settings
    for key in reversed(PLACE.split(".")):
        nested = {key: nested}
    recipe = here / "recipe.yaml"
    recipe.write_text(json.dumps({"defaults": ["retool_7b", "_self_"]} | nested))
    assert own_names(recipe) == [f"{PLACE}.format='{here / 'strange_parts.py'}:Own'"]


# -- in Python ------------------------------------------------------------------------------------


def brief(episode: Episode, task: Task) -> float:
    return float(len(episode.answer or "") < 9)


def first_letter(task: Task, a: str, b: str) -> bool:
    return a[:1] == b[:1]


@tool
def ebb(place: str) -> str:
    """The next ebb."""
    return "at noon"


class Plain(Hermes):
    name = "plain"


def test_things_themselves_are_settings_and_config_yaml_has_their_names(here: Path) -> None:
    mine = replace(OBJECTIVES["grpo"], name="mine", dynamic_sampling=False)
    config = TrainConfig(
        model="model", out="run", steps=1, tasks_per_step=2, group_size=2, max_tokens=12,
        tasks=[Task(str(n), "?" * n, "7") for n in range(1, 4)], held_out=lambda: [TASK],
        reward=brief, checker=first_letter, objective=mine, tools=[ebb, "python"], format=Plain,
        device="cpu",
    )  # fmt: skip
    settings = Resolved(config, dict.fromkeys(TrainConfig.model_fields, "given"))
    with (
        make_setup(config) as setup,
        Record(Path("run"), settings=settings.to_yaml()) as record,
    ):
        assert list(setup.policy.tools) == ["ebb", "python"]
        assert setup.policy.format.name == "plain"
        trainer = Trainer(config, setup)
        assert trainer.update_config.objective.name == "mine"
        trainer.train(record)
    (_, metrics) = read_metrics(Path("run"))
    assert metrics["step"] == 1
    written = Path("run/config.yaml").read_text()
    assert f"reward: '{__name__}:brief'" in written
    assert "objective: '<Objective, given in Python>'" in written
    assert f"'{__name__}:ebb'" in written
    with pytest.raises(UsageError, match=r"yaml: tasks, objective were given in Python"):
        read_config(Path("run/config.yaml"), {"held_out": None})


def test_a_trainer_takes_another_objective(here: Path) -> None:
    config = TrainConfig(model="model", out="run", format="retool", clip_ratio_high=0.5)
    mine = replace(OBJECTIVES["grpo"], name="mine")
    with make_setup(config) as setup:
        objective = Trainer(config, setup, objective=mine).update_config.objective
    assert (objective.name, objective.config.clip_ratio_high) == ("mine", 0.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reward": first_letter}, "must be a function of .episode, task."),
        ({"reward": [brief]}, "a RewardPart or a list of them"),
        ({"objective": 5}, "Input should be a valid string"),
        ({"checker": "fuzzy"}, "unknown checker 'fuzzy'"),
    ],
)
def test_what_can_not_be_a_part_is_refused_when_the_configuration_is_made(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(**settings)


# -- who may name code ----------------------------------------------------------------------------


def test_a_file_of_tasks_names_no_code(here: Path) -> None:
    """Neither where it is trained on, nor evaluated, nor rolled out."""
    task = {"id": "a", "question": "1 + 1?", "answer": "2", "checker": "strange_parts.py:near"}
    Path("tasks.jsonl").write_text(json.dumps(task) + "\n")
    ran = here / "strange_parts.py.ran"
    with Checker() as checker, pytest.raises(DataError, match="would load code"):
        checker.right(Task("a", "1 + 1?", "2", {"checker": "strange_parts:near"}), "2")
    for command in (["eval", "tasks.jsonl"], ["rollout", "tasks.jsonl", "--out", "t.jsonl"]):
        code, _, err = interlace(*command)
        assert code == 9 and "would load code" in err, err
    assert not ran.exists()


def test_a_log_names_no_code(here: Path) -> None:
    episode = attempt(TASK, answer("7"))
    episode.trajectory.format = episode.trajectory.model = "strange_parts.py:Own"
    episode.settings = {"format": "strange_parts.py:Own", "tools": ["strange_parts.py:tide"]}
    with EpisodeLog(Path("log.jsonl")) as log:
        log.append(episode)
    assert interlace("show", "log.jsonl")[0] == 0
    code, _, err = interlace("eval", "log.jsonl", "--compare", "log.jsonl")
    assert code == 0, err
    assert not (here / "strange_parts.py.ran").exists()

"""The training loop: it learns, the engine follows, and nothing that was saved is ever lost."""

import asyncio
import itertools
import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import warm
from support.fakes import Echo, code
from support.toy_training import brevity, load, run, settings, setup

from interlace.rollout.engines import ScriptedEngine
from interlace.rollout.episode_log import read_episodes
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.errors import DataError, ModelError, ToolUnavailable
from interlace.train.local.record import Record, read_metrics
from interlace.train.local.rl import Trainer, TrainingSetup
from interlace.train.local.training_setup import load_trainable
from interlace.train.local.update import TrainBatch, UpdateConfig, compute_logprobs
from interlace.train.rewards import RewardPart, Rewards

SCRIPT = Path(__file__).parents[2] / "support/toy_training.py"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "checkpoint" / "model.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    mine, other = weights(a), weights(b)
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(settings(folder, steps=8))
    return folder


def test_what_is_rewarded_becomes_more(whole: Path) -> None:
    rewards = [metrics["reward/low"] for metrics in read_metrics(whole)]
    assert len(rewards) == 8
    assert np.mean(rewards[-2:]) > np.mean(rewards[:2]) + 0.1


def test_every_episode_is_kept_and_was_sampled_with_the_weights_of_its_step(whole: Path) -> None:
    for step in (1, 2, 8):
        episodes = list(read_episodes(whole / "episodes" / f"{step:05}.jsonl"))
        assert len(episodes) == 2 * 4
        for episode in episodes:
            assert set(episode.rewards) == {"low", "correct", "total"}
            versions = episode.trajectory.ledger.versions
            assert set(versions[versions >= 0].tolist()) == {step - 1}
    # One update a step: the engine and the trainer see the same policy.
    assert all(metrics["engine_gap"] < 1e-4 for metrics in read_metrics(whole))


def test_a_checkpoint_is_a_model(whole: Path) -> None:
    from interlace.rollout.engines import TransformersEngine

    engine = TransformersEngine.load(whole / "checkpoint", device="cpu")
    asyncio.run(engine.aclose())


def test_a_killed_run_that_goes_on_ends_in_the_same_bits(whole: Path, tmp_path: Path) -> None:
    """Killed with -9 after step 5, of which step 4 was saved."""
    shutil.copytree(whole.parent / "model", tmp_path / "model")
    folder = tmp_path / "run"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), str(folder), "8"]
    with warm.Popen(command, env=environment) as process:
        while not (folder / "metrics.jsonl").exists() or len(read_metrics(folder)) < 5:
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.01)
        process.kill()
    assert json.loads((folder / "checkpoint" / "trainer.json").read_text())["done"] in (4, 6)
    run(settings(folder, steps=8))
    assert_same_weights(folder, whole)
    assert [metrics["step"] for metrics in read_metrics(folder)] == list(range(1, 9))
    assert (folder / "replaced" / "metrics.jsonl").exists()
    for mine, other in zip(read_metrics(folder), read_metrics(whole), strict=True):
        assert {k: v for k, v in mine.items() if "seconds" not in k} == {
            k: v for k, v in other.items() if "seconds" not in k
        }


def test_a_run_with_adapters_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    def go(name: str, steps: int) -> Path:
        config = settings(tmp_path / name, steps=steps, lora_rank=4, precision="bfloat16")
        with setup(config) as made, Record(Path(config.out)) as record:
            made.model = load_trainable(tmp_path / "model", config)
            Trainer(config, made).train(record)
        return tmp_path / name / "checkpoint"

    whole, _, resumed = go("whole", 4), go("broken", 2), go("broken", 4)
    for file in ("adapters.safetensors", "model.safetensors", "optimizer.safetensors"):
        assert (whole / file).read_bytes() == (resumed / file).read_bytes(), file


def test_ctrl_c_finishes_the_step_and_saves_it(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", steps=50)

    def press(step: int, episode: Episode) -> None:
        if not pressed:
            pressed.append(step)
            signal.raise_signal(signal.SIGINT)

    pressed: list[int] = []
    with setup(config) as made, Record(tmp_path / "run") as record:
        trainer = Trainer(config, made)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(record, episode=press)
    assert len(read_metrics(tmp_path / "run")) == 1
    state = json.loads((tmp_path / "run" / "checkpoint" / "trainer.json").read_text())
    assert (state["done"], state["position"]) == (1, 2)


def test_another_runs_checkpoint_is_refused(whole: Path) -> None:
    with pytest.raises(DataError, match="of another run"):
        run(settings(whole, learning_rate=1.0, steps=9))


def test_losses_that_are_not_numbers_stop_the_run_but_never_reach_the_weights(
    tmp_path: Path,
) -> None:
    config = settings(tmp_path / "run", patience=2, save_every=1, pack_prefixes=False)
    passes = itertools.count(1)

    def break_down(module: torch.nn.Module, given: object, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * float("nan") if next(passes) > 1 else hidden

    with setup(config) as made, Record(tmp_path / "run") as record:
        made.model.base_model.get_submodule("norm").register_forward_hook(break_down)
        with pytest.raises(ModelError, match="2 updates in a row were not numbers"):
            Trainer(config, made).train(record)
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    assert [metrics["refused"] for metrics in read_metrics(tmp_path / "run")] == [0, 1]


def test_an_update_without_room_ends_the_run_in_one_sentence(tmp_path: Path) -> None:
    """A pass that asks torch for a petabyte; the step before is saved."""
    config = settings(tmp_path / "run", save_every=1, pack_prefixes=False)
    passes = itertools.count(1)

    def take(module: torch.nn.Module, given: object, hidden: torch.Tensor) -> None:
        if next(passes) > 1:
            torch.empty(1 << 50)

    with setup(config) as made, Record(tmp_path / "run") as record:
        made.model.base_model.get_submodule("norm").register_forward_hook(take)
        with pytest.raises(ModelError, match=r"no memory for the update of step 2.*micro_tokens"):
            Trainer(config, made).train(record)
    assert len(read_metrics(tmp_path / "run")) == 1
    assert weights(tmp_path / "run")


def test_what_failed_on_our_side_is_left_out_and_not_a_zero(tmp_path: Path) -> None:
    """Every other episode's tool breaks. Nothing is learnt from those, and the others' mean is
    that of the others alone.
    """
    config = settings(tmp_path / "run", steps=1)
    asked = iter(range(1000))

    def script(request: Any) -> str:
        return code("bug") if next(asked) % 2 else "no call <answer>\\boxed{1}</answer>"

    with setup(config) as made, Record(Path(config.out)) as record:
        engine = ScriptedEngine(made.policy.engine.tokenizer, script)
        limits = replace(made.policy.limits, max_tokens=200)
        policy = Policy(engine, made.policy.format, [Echo()], limits=limits)
        ones = Rewards(RewardPart("correct", lambda episode, task: 1.0))
        trainer = Trainer(config, replace(made, policy=policy, rewards=ones))
        trainer.train(record)
    (metrics,) = read_metrics(tmp_path / "run")
    assert (metrics["episodes"], metrics["unscored"], metrics["reward/correct"]) == (8, 4, 1.0)


def test_a_step_that_failed_as_a_whole_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    config = settings(tmp_path / "run")
    with setup(config) as made, Record(Path(config.out)) as record:
        engine = ScriptedEngine(made.policy.engine.tokenizer, lambda request: OSError("no socket"))
        policy = Policy(engine, made.policy.format)
        with pytest.raises(ToolUnavailable, match="no socket"):
            Trainer(config, replace(made, policy=policy)).train(record)


def test_groups_that_teach_nothing_are_replaced_by_others(tmp_path: Path) -> None:
    """Of all tasks, only two lead to right and wrong answers."""
    config = settings(tmp_path / "run", steps=1, dynamic_sampling=True, refills=3)

    def judge(episode: Episode, task: Task) -> float:
        return float(task.id in ("t1", "t5") and episode.sample == 0)

    rewards = Rewards(RewardPart("low", brevity), RewardPart("correct", judge, 0.0))
    with setup(config, rewards=rewards) as made, Record(Path(config.out)) as record:
        Trainer(config, made).train(record)
    (metrics,) = read_metrics(tmp_path / "run")
    rolled_out = {e.group for e in read_episodes(tmp_path / "run" / "episodes" / "00001.jsonl")}
    assert metrics["episodes"] == 4 * len(rolled_out)
    assert metrics["uninformative_groups"] == len(rolled_out - {"t1", "t5"}) > 0
    assert metrics["updates"] == 1


@pytest.fixture
def little_room() -> Iterator[Any]:
    """Files can't grow above a size: what a full disk does, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_whole(
    whole: Path, tmp_path: Path, little_room: Any
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.copytree(whole.parent / "model", tmp_path / "model")
    config = settings(folder, steps=10)
    with setup(config) as made, Record(folder) as record:
        little_room(200_000)  # room for a line of metrics, not for the model
        with pytest.raises(DataError, match="the last one that was saved is whole"):
            Trainer(config, made).train(record)
    little_room(resource.RLIM_INFINITY)
    assert_same_weights(folder, whole)
    assert not (folder / "checkpoint.writing").exists()
    run(config)
    assert len(read_metrics(folder)) == 10


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_rank": 4},
        {"epochs": 2, "minibatches": 2, "kl_weight": 0.1},
        {"lora_rank": 4, "kl_weight": 0.1, "gradient_checkpointing": True, "precision": "bfloat16"},
    ],
    ids=str,
)
def test_after_a_step_the_engine_samples_what_the_trainer_learnt(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = settings(tmp_path / "run", steps=2, **changes)
    with setup(config) as made:
        model = load_trainable(tmp_path / "model", config)
        made = replace(made, model=model)
        if config.kl_weight and not config.lora_rank:
            made.reference = load(tmp_path / "model")
        with Record(Path(config.out)) as record:
            trainer = Trainer(config, made)
            trainer.train(record)
        assert all(metrics["refused"] == 0 for metrics in read_metrics(Path(config.out)))
        group = asyncio.run(_one_group(made))
        whole: Any = model
        whole.float()
        rows = TrainBatch.of([group], [[1.0, 0.0]], trainer.update_config.objective)
        mine = compute_logprobs(model, rows, UpdateConfig(trainer.update_config.objective))
        counts = rows.weights > 0
        torch.testing.assert_close(mine[counts], rows.engine[counts], rtol=0, atol=1e-4)
        started = load(tmp_path / "model").state_dict()
    moved = [
        not torch.equal(value, started[name]) for name, value in weights(trainer.folder).items()
    ]
    assert any(moved)


async def _one_group(made: TrainingSetup) -> list[Episode]:
    runner = Runner(made.policy, concurrency=1)
    async for group in runner.groups([Task("new", "Well?")], n=2, seed=1):
        return group
    raise AssertionError("unreachable")

"""Every way to end leaves a checkpoint to go on from, and what a message advises then works."""

import itertools
import json
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_training import TASKS, brevity, run, settings, setup

from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode
from interlace.tools.errors import DataError, InterlaceError, ModelError, ToolUnavailable
from interlace.train.data.stream import TaskStream
from interlace.train.local.checkpoint import write_checkpoint
from interlace.train.local.record import Record, read_metrics
from interlace.train.local.rl import Trainer
from interlace.train.rewards import RewardPart, Rewards, Unscored


def checkpoint_of(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    path = folder / "checkpoint"
    return json.loads((path / "trainer.json").read_text()), load_file(path / "model.safetensors")


def go(
    folder: Path, *, parts: Any = None, changed: Any = (), hook: Any = None, **config: Any
) -> Trainer:
    """A run in `folder`, whose settings are written as the command writes them."""
    resolved = settings(folder, save_every=50, **config)
    text = "".join(f"{k}: {json.dumps(v)}\n" for k, v in resolved.model_dump(mode="json").items())
    with setup(resolved, **(parts or {})) as made, Record(folder, settings=text) as record:
        trainer = Trainer(resolved, made, changed=changed)
        if hook is not None:
            hook(trainer)
        trainer.train(record, tell=said.append)
    return trainer


said: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    said.clear()


# -- ends ----------------------------------------------------------------------------------------


def nan_from_step_3(trainer: Trainer) -> None:
    model: Any = trainer.setup.model

    def break_down(module: torch.nn.Module, given: object, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * float("nan") if trainer.done >= 2 else hidden

    model.base_model.get_submodule("norm").register_forward_hook(break_down)


def bad_weights_in_step_3(trainer: Trainer) -> None:
    """A step of the optimizer that leaves numbers behind for as long as it goes well."""
    step = trainer.optimizer.step

    def leap(*given: Any) -> None:
        step(*given)
        if trainer.done >= 2:
            with torch.no_grad():
                next(trainer.setup.model.parameters()).mul_(1e38).mul_(1e38)

    trainer.optimizer.step = leap  # type: ignore[method-assign,assignment]


def no_memory_in_step_3(trainer: Trainer) -> None:
    model: Any = trainer.setup.model

    def fill(module: torch.nn.Module, given: object) -> None:
        if trainer.done >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.base_model.get_submodule("norm").register_forward_pre_hook(fill)


def full_disk_in_step_3(trainer: Trainer) -> None:
    def fail(episode: Episode, task: Task) -> float:
        if trainer.done >= 2:
            raise DataError("can't write episodes: No space left on device")
        return brevity(episode, task)

    trainer.setup.rewards = Rewards(RewardPart("low", fail), RewardPart("correct", brevity, 0.0))


def nothing_scored_in_step_3(trainer: Trainer) -> None:
    def judge(episode: Episode, task: Task) -> float:
        if trainer.done >= 2:
            raise Unscored("the judge is away")
        return brevity(episode, task)

    trainer.setup.rewards = Rewards(RewardPart("low", judge), RewardPart("correct", brevity, 0.0))


def five_tasks() -> Iterator[Task]:
    return (replace(task, id=f"{n}") for n, task in zip(range(5), itertools.cycle(TASKS)))


ENDS: dict[str, tuple[Any, type[InterlaceError], str, int]] = {
    "not numbers": (nan_from_step_3, ModelError, r"--learning-rate (\S+)\)", 2),
    "weights that are not": (bad_weights_in_step_3, ModelError, r"--learning-rate (\S+)\)", 0),
    "no memory": (no_memory_in_step_3, ModelError, r"--set micro_tokens=(\d+)\)", 2),
    "a judge that is away": (nothing_scored_in_step_3, ToolUnavailable, "is whole, resume", 2),
    "a full disk": (full_disk_in_step_3, DataError, "No space left", 2),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_ends_a_run_leaves_a_checkpoint_and_its_advice_works(end: str, tmp_path: Path) -> None:
    """Nothing was saved on the way, since `save_every` is 50."""
    hook, kind, says, done = ENDS[end]
    folder = tmp_path / "run"
    with pytest.raises(kind, match=says) as caught:
        go(folder, hook=hook, steps=4, patience=1)
    state, weights = checkpoint_of(folder)
    assert state["done"] == done
    assert all(value.isfinite().all() for value in weights.values())
    advised = re.search(says, str(caught.value))
    assert advised is not None
    if "learning-rate" in says:
        changes = {"learning_rate": float(advised[1])}
    else:
        changes = {"micro_tokens": int(advised[1])} if advised.groups() else {}
    # As the command does it: what was typed is what may change.
    go(folder, steps=4, changed=changes, **changes)
    assert [metrics["step"] for metrics in read_metrics(folder)] == [1, 2, 3, 4]
    if "learning_rate" in changes:
        config = (folder / "config.yaml").read_text()
        assert f"# from step {done + 1} on: learning_rate 0.0006, before 0.006\n" in config
        assert any("learning_rate is 0.0006 from here on" in sentence for sentence in said)


def test_tasks_that_are_used_up_end_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(DataError, match="the tasks are used up: a step needs 2 more, 1 are left"):
        go(folder, steps=9, parts={"tasks": TaskStream(five_tasks(), 0)})
    assert checkpoint_of(folder)[0]["done"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_it_and_then_ends_the_run(
    number: signal.Signals, tmp_path: Path
) -> None:
    class Ended(BaseException):
        pass

    def end(*_: object) -> None:
        raise Ended

    def press(trainer: Trainer) -> None:
        fill = trainer.setup.rewards.score_all

        def pressing(episodes: Any) -> Any:
            if not pressed:
                pressed.append(number)
                signal.raise_signal(number)
            return fill(episodes)

        trainer.setup.rewards.score_all = pressing  # type: ignore[method-assign,assignment]

    pressed: list[int] = []
    before = signal.signal(signal.SIGTERM, end)  # what the command line does
    try:
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Ended):
            go(tmp_path / "run", steps=50, hook=press)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert checkpoint_of(tmp_path / "run")[0]["done"] == 1
    assert len(read_metrics(tmp_path / "run")) == 1


def test_weights_that_are_no_numbers_replace_no_checkpoint(tmp_path: Path) -> None:
    run(settings(tmp_path / "run", steps=1))
    good = checkpoint_of(tmp_path / "run")[1]
    with setup(settings(tmp_path / "run")) as made:
        optimizer = torch.optim.AdamW(made.model.parameters())
        with torch.no_grad():
            next(made.model.parameters()).fill_(float("inf"))
        with pytest.raises(ModelError, match="weights are not numbers"):
            write_checkpoint(tmp_path / "run", made.model, optimizer, {})
    for name, value in checkpoint_of(tmp_path / "run")[1].items():
        assert torch.equal(value, good[name])


def test_a_checkpoint_that_can_not_be_read_is_removed_as_advised(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go(folder, steps=1)
    (folder / "checkpoint" / "trainer.json").write_text("{")
    with pytest.raises(DataError, match="remove it to start anew"):
        go(folder, steps=2)
    shutil.rmtree(folder / "checkpoint")
    go(folder, steps=2)
    assert [metrics["step"] for metrics in read_metrics(folder)] == [1, 2]


def test_a_run_in_which_nothing_was_learnt_says_so(tmp_path: Path) -> None:
    same = Rewards(RewardPart("correct", lambda episode, task: 1.0))
    for dynamic in (True, False):  # no update, or one without a gradient
        said.clear()
        config = {"steps": 2, "dynamic_sampling": dynamic}
        trainer = go(tmp_path / str(dynamic) / "run", parts={"rewards": same}, **config)
        assert trainer.updates == 0
        assert said and "no step made an update: in steps 1 to 2" in said[0]


# -- what may differ -----------------------------------------------------------------------------


def test_what_changes_no_result_may_change_and_what_does_must_be_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go(folder, steps=1)
    go(folder, steps=2, micro_tokens=64, concurrency=2, patience=9, evaluate_every=3)
    assert not said
    with pytest.raises(DataError, match="whose group_size is 4 and not 3: say --set group_size=3"):
        go(folder, steps=3, group_size=3)
    go(folder, steps=3, group_size=3, changed=["group_size"])
    state, _ = checkpoint_of(folder)
    assert state["changes"] == [{"step": 3, "name": "group_size", "was": 4, "now": 3}]
    go(folder, steps=4, group_size=3)  # which now is the run's, as its config.yaml says
    assert "# from step 3 on: group_size 3, before 4" in (folder / "config.yaml").read_text()
    with pytest.raises(DataError, match="whose seed is 0 and not 1: go on with that"):
        go(folder, steps=5, group_size=3, seed=1, changed=["seed"])


def test_tasks_that_have_changed_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    go(folder, steps=1)
    others = [*TASKS[:-1], replace(TASKS[-1], answer="7")]
    with pytest.raises(DataError, match=r"these tasks are others by their hash; .* --tasks"):
        go(folder, steps=2, parts={"tasks": TaskStream(others, 0)})
    go(folder, steps=2, parts={"tasks": TaskStream(others, 0)}, changed=["tasks"])
    assert "# from step 2 on: tasks" in (folder / "config.yaml").read_text()


def test_a_steps_metrics_say_how_tools_were_used_and_how_far_the_policy_went(
    tmp_path: Path,
) -> None:
    go(tmp_path / "run", steps=1)
    (metrics,) = read_metrics(tmp_path / "run")
    wanted = {"calls", "with_a_call", "failed", "void_turns", "forged", "turn_tokens"}
    assert {f"use/{name}" for name in wanted} <= metrics.keys()
    assert 0 < metrics["use/turn_tokens"] <= metrics["use/turn_tokens/max"] <= 12
    assert metrics["use/calls"] == 0 and metrics["use/void_turns"] > 0
    assert metrics["use/other_logprob"] < 0 and "use/call_logprob" not in metrics
    # One update on what was just sampled: the ratio is 1 but for rounding.
    assert 0.99 < metrics["ratio/min"] <= metrics["ratio/max"] < 1.01
    assert metrics["ratio/above_2"] == metrics["ratio/below_half"] == 0

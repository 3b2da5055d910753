"""How often a step of verl's draws anew, and what its metrics tell: over a queue in memory.

The queue stands in for TransferQueue and the trainer for verl's, whose real ones are in
test_main_ppo.py; verl's own samplers below ours are real.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

if importlib.util.find_spec("verl") is None:
    pytest.skip("verl is not installed", allow_module_level=True)

with warnings.catch_warnings():  # its imports warn of what is deprecated in others
    warnings.simplefilter("ignore")
    queue: Any = importlib.import_module("transfer_queue")
    sampler: Any = importlib.import_module("interlace.train.verl.sampler")

pytestmark = pytest.mark.filterwarnings("ignore")

N = 4
"""Attempts at a task."""
Group: TypeAlias = "list[float | None]"
"""Whether each attempt is right; None: it failed on our side."""


def fields(correct: float, calls: float = 1.0) -> dict[str, Any]:
    turn = {"tokens": 10, "calls": 1, "seconds": 0.1}
    tool = {"calls": 1, "errors": 1, "timeouts": 1, "seconds": 0.5}
    return {
        "reward_extra_info": {"correct": correct, "calls": calls, "pred": "4"},
        "interlace": {
            "stop": "answered",
            "turns": [turn, turn],
            "tools": {"python": tool},
            "tags": {"logprob": -1.0, "tokens": 4},
            "tokens": 40,
            "shared": 10,
        },
    }


class Trainer:
    """Rolls out at once: each drawn group is the next of `script`, its last one again and again."""

    def __init__(self, *script: Group) -> None:
        self.script, self.drawn, self.step = list(script), 0, 1
        self.partitions: dict[str, dict[str, Any]] = {"train": {}, "val": {}}
        self.told: list[dict[str, Any]] = []

    def draw(self, count: int, partition: str = "train") -> int:
        for _ in range(count):
            group = self.script[min(self.drawn, len(self.script) - 1)]
            uid, self.drawn = f"u{self.drawn}", self.drawn + 1
            status = "failure" if None in group else "finished"
            tag = {"is_prompt": True, "status": status, "global_steps": self.step}
            self.partitions[partition][uid] = (tag, {})
            for session, correct in enumerate(group):
                if correct is not None:
                    key, row = f"{uid}_{session}_0", {"extra_fields": fields(correct)}
                    self.partitions[partition][key] = ({"status": "success"}, row)
        return count

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *_: Any) -> None:
        self.told.append(metrics)

    def _val_metrics_update(self) -> dict[str, Any]:
        return {"val-core/nano/acc/mean@4": 0.5}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    made = Trainer()

    def listed() -> dict[str, Any]:
        return {
            partition: {key: tag for key, (tag, _) in items.items()}
            for partition, items in made.partitions.items()
        }

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, Any]:
        items = made.partitions[partition_id]
        return {name: [items[key][1][name] for key in keys] for name in select_fields}

    def clear(keys: list[str], partition_id: str) -> None:
        for key in keys:
            made.partitions[partition_id].pop(key, None)

    monkeypatch.setattr(queue, "kv_list", listed)
    monkeypatch.setattr(queue, "kv_batch_get", get)
    monkeypatch.setattr(queue, "kv_clear", clear)
    yield made


def made(trainer: Trainer, mode: str = "sync", *, filters: bool = True, refills: int = 3) -> Any:
    kind = sampler.Sampler if mode == "sync" else sampler.AsyncSampler
    return kind(
        trainer_mode=mode,
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        refill_fn=trainer.draw,
        sampler_kwargs={
            "batch_size": 2,
            "group_size": N,
            "tries": N,
            "refills": refills,
            "filter_groups": {"enable": filters, "metric": "correct"},
        },
    )


RIGHT: Group = [1.0] * N
WRONG: Group = [0.0] * N
MIXED: Group = [1.0, 0.0, 0.0, 0.0]
FAILED: Group = [None] * N
ALONE: Group = [None, None, None, 1.0]
PART: Group = [None, 1.0, 0.0, 0.0]
MODES = ["sync", "colocate_async"]


@pytest.mark.parametrize("mode", MODES)
def test_tasks_nobody_solves_end_the_run_after_its_refills_with_a_sentence(
    mode: str,
    trainer: Trainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INTERLACE_VERL_ENDED", str(tmp_path / "ended.txt"))
    trainer.script = [WRONG]
    ours = made(trainer, mode)
    trainer.draw(2)
    with pytest.raises(RuntimeError, match=r"nothing to learn from: 8 groups were all right or"):
        ours.sample(global_steps=1, partition_id="train", batch_size=2)
    assert trainer.drawn == 2 + 3 * 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].split(" (")[0] for line in lines] == [" 2 tasks are drawn anew"] * 3
    ended = tmp_path / "ended.txt"
    assert ended.read_text().startswith("step 1 has nothing to learn from")
    assert "a cold start first" in ended.read_text()
    trainer.script = [FAILED]
    trainer.draw(2)
    with pytest.raises(RuntimeError, match=r"32 episodes failed .* The log above says why"):
        made(trainer, mode).sample(global_steps=2, partition_id="train", batch_size=2)


@pytest.mark.parametrize("mode", MODES)
def test_a_step_takes_what_it_has_once_its_refills_are_spent(mode: str, trainer: Trainer) -> None:
    trainer.script = [MIXED, RIGHT, WRONG]
    ours = made(trainer, mode)
    trainer.draw(2)
    batch, _ = ours.sample(global_steps=1, partition_id="train", batch_size=2)
    assert {key.split("_")[0] for key in batch.keys} == {"u0"}
    assert trainer.drawn == 2 + 3 * 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [WRONG, RIGHT, FAILED, ALONE])
def test_a_group_that_teaches_nothing_is_replaced_by_one_other(
    bad: Group, mode: str, trainer: Trainer
) -> None:
    trainer.script = [bad, MIXED]
    ours = made(trainer, mode)
    trainer.draw(2)
    batch, _ = ours.sample(global_steps=1, partition_id="train", batch_size=2)
    assert {key.split("_")[0] for key in batch.keys} == {"u1", "u2"}
    assert trainer.drawn == 3


def test_without_a_filter_only_what_failed_on_our_side_is_replaced(trainer: Trainer) -> None:
    trainer.script = [WRONG, FAILED, PART]
    ours = made(trainer, filters=False)
    trainer.draw(2)
    batch, _ = ours.sample(global_steps=1, partition_id="train", batch_size=2)
    assert {key.split("_")[0] for key in batch.keys} == {"u0", "u2"}


def test_groups_that_are_too_old_are_drawn_anew_beside_the_refills(trainer: Trainer) -> None:
    trainer.script = [MIXED]
    ours = made(trainer, "colocate_async", refills=0)
    trainer.draw(2)
    trainer.step = 20
    batch, metrics = ours.sample(global_steps=20, partition_id="train", batch_size=2)
    assert {key.split("_")[0] for key in batch.keys} == {"u2", "u3"}
    assert metrics["training/off_policy/evicted_samples"] == 2


def test_a_steps_metrics_say_what_its_episodes_did_and_what_was_left_out(trainer: Trainer) -> None:
    trainer.script = [WRONG, PART, MIXED]
    ours = made(trainer)
    trainer.draw(2)
    batch, metrics = ours.sample(global_steps=1, partition_id="train", batch_size=2)
    batch.keys.append("pad0_0_0")  # as verl fills a batch up
    batch.tags.append({"is_padding": True})
    trainer._compute_metrics(batch, metrics)
    (told,) = trainer.told
    assert told["interlace/episodes"] == 7
    assert told["interlace/reward/correct"] == pytest.approx(2 / 7)
    assert told["interlace/reward/calls"] == 1.0
    assert told["interlace/uninformative_groups"] == 1
    assert told["interlace/refilled_tasks"] == 1
    assert told["interlace/left_out"] == 1
    assert told["interlace/stop/answered"] == 1.0 and told["interlace/stop/timeout"] == 0.0
    assert told["interlace/turns"] == 2 and told["interlace/turn_tokens"] == 10
    assert told["interlace/timeouts"] == 1 and told["interlace/tag_logprob"] == -0.25
    assert told["interlace/tokens_computed_again"] == 0.25
    assert "interlace/reward/pred" not in told


def test_a_validation_says_how_many_of_its_episodes_failed(
    trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer.script = [MIXED, PART, FAILED]
    ours = made(trainer)
    trainer.draw(3, partition="val")
    ours.sample(global_steps=1, partition_id="val", batch_size=3)
    metrics = trainer._val_metrics_update()
    assert metrics["interlace/validation/failed_episodes"] == 1 + N
    assert metrics["val-core/nano/acc/mean@4"] == 0.5
    assert "5 episodes failed on our side" in capsys.readouterr().out
    assert trainer._val_metrics_update()["interlace/validation/failed_episodes"] == 0

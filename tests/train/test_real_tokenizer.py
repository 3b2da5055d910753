"""A real model from end to end: SmolLM2 learns from traces with the Python tool."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.ledger import Ledger, Source
from interlace.rollout.models.smollm2 import smollm2_path
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Episode
from interlace.tools.python import PythonTool
from interlace.train.coldstart.checks import check_traces
from interlace.train.coldstart.gsm8k import trace_of
from interlace.train.coldstart.traces import trace_format
from interlace.train.config import TrainConfig
from interlace.train.data.task_sets import write_tasks
from interlace.train.local.record import Record, read_metrics
from interlace.train.local.rl import Trainer
from interlace.train.local.sft import SFTConfig, SFTReport, sft
from interlace.train.local.training_setup import load_trainable, make_setup
from interlace.train.rewards import Checker, RewardPart, Rewards

pytestmark = pytest.mark.slow

THINGS = ("bolts", "apples", "coins", "stamps", "bricks", "pens", "maps", "keys")


def tasks(first: int = 0) -> list[Task]:
    """Word problems with solutions in GSM8K's shape; another `first`, other numbers."""
    made = []
    for n, thing in enumerate(THINGS, first):
        boxes, each, more = n + 3, 2 * n + 5, n + 4
        inside, total = boxes * each, boxes * each + more
        made.append(
            Task(
                thing,
                f"Ann has {boxes} boxes of {each} {thing}, and {more} loose ones. How many "
                f"{thing} has she?",
                str(total),
                {
                    "solution": f"The boxes hold {boxes}*{each}=<<{boxes}*{each}={inside}>>"
                    f"{inside} {thing}.\nAltogether she has {inside}+{more}="
                    f"<<{inside}+{more}={total}>>{total} {thing}."
                },
            )
        )
    return made


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return smollm2_path()


@pytest.fixture(scope="module")
def traces(smollm2: Path) -> list[Episode]:
    checked = asyncio.run(
        check_traces(
            [(task, trace_of(task) or "") for task in tasks()],
            trace_format("retool"),
            PythonTool(),
            Checker(),
            Tokenizer.load(smollm2),
            model="smollm2",
            origin="gsm8k",
        )
    )
    assert len(checked.kept) == len(THINGS)
    return checked.kept


def text(ledger: Ledger, tokenizer: Tokenizer, counts: bool) -> str:
    return tokenizer.decode(ledger.ids[(ledger.loss_weights > 0) == counts])


def test_what_is_learnt_is_what_the_policy_is_to_say(smollm2: Path, traces: list[Episode]) -> None:
    tokenizer = Tokenizer.load(smollm2)
    for episode in traces:
        ledger = episode.trajectory.ledger
        learnt, shown = (text(ledger, tokenizer, counts) for counts in (True, False))
        first, second = (call.output for call in episode.trajectory.calls)
        trace = trace_of(episode.task) or ""
        policy = trace
        for output in (first, second):
            policy = policy.replace(f"\n<interpreter>\n{output}\n</interpreter>\n", "")
        assert learnt.replace("\n", "") == f"{policy}<|im_end|>".replace("\n", "")
        assert "<interpreter>" in shown and "<interpreter>" not in learnt
        assert shown.count(f"\n{first}\n") >= 1 and episode.task.question in shown
        assert all((s.weight > 0) == (s.source is Source.POLICY) for s in ledger)


@pytest.fixture(scope="module")
def tuned(
    smollm2: Path, traces: list[Episode], tmp_path_factory: pytest.TempPathFactory
) -> tuple[SFTReport, Path]:
    """Ten steps on the traces, and the model that came of it."""
    folder = tmp_path_factory.mktemp("tuned")
    model = load_trainable(smollm2, TrainConfig(model="smollm2", device="cpu"))
    ledgers = [episode.trajectory.ledger for episode in traces]
    config = SFTConfig(steps=10, batch_size=4, learning_rate=4e-5, warmup=1, save_every=10)
    return sft(model, ledgers, config, folder, source=smollm2), folder / "checkpoint"


def test_ten_steps_make_the_loss_fall(tuned: tuple[SFTReport, Path], smollm2: Path) -> None:
    report, checkpoint = tuned
    assert np.mean(report.losses[-2:]) < 0.5 * np.mean(report.losses[:2])
    question = tasks()[0].question
    assert Tokenizer.load(checkpoint).encode(question) == Tokenizer.load(smollm2).encode(question)


def variety(episode: Episode, task: Task) -> float:
    """A reward that differs within a group whatever the model can do: the share of even ids."""
    ledger = episode.trajectory.ledger
    return float((ledger.ids[ledger.response_mask] % 2 == 0).mean())


def test_two_steps_of_reinforcement_learning_with_the_python_tool(
    tuned: tuple[SFTReport, Path], tmp_path: Path
) -> None:
    write_tasks(tasks(first=40), tmp_path / "tasks.jsonl")
    config = TrainConfig(
        model=str(tuned[1]),
        tasks=str(tmp_path / "tasks.jsonl"),
        objective="grpo",
        tasks_per_step=2,
        group_size=4,
        max_tokens=200,
        steps=2,
        learning_rate=1e-5,
        out=str(tmp_path / "run"),
        device="cpu",
    )
    with make_setup(config) as setup, Record(tmp_path / "run") as record:
        setup.rewards = Rewards(
            RewardPart("even", variety),
            *(replace(part, weight=0.0) for part in setup.rewards.parts),
        )
        before = {name: value.clone() for name, value in setup.model.state_dict().items()}
        Trainer(config, setup).train(record)
        moved = [not value.equal(before[n]) for n, value in setup.model.state_dict().items()]
    assert any(moved)
    metrics = read_metrics(tmp_path / "run")
    assert [each["step"] for each in metrics] == [1, 2]
    assert all(each["updates"] == 1 and each["grad_norm"] > 0 for each in metrics)
    # What the engine and the trainer compute of one token is the same but for rounding.
    assert all(each["engine_gap"] < 0.01 for each in metrics)
    versions, called = set(), 0
    for step in (1, 2):
        for episode in read_episodes(tmp_path / f"run/episodes/{step:05}.jsonl"):
            ledger = episode.trajectory.ledger
            called += len(episode.trajectory.calls)
            versions |= set(ledger.versions[ledger.response_mask].tolist())
            assert not ledger.loss_weights[~ledger.response_mask].any()
    assert called and len(versions) == 2  # the second step samples with the first one's weights

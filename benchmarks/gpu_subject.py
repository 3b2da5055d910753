"""A model on the card, in training and in the engine, for the rows of `gpu.py`.

Models have the published sizes and random weights, from a folder that is written on the spot.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from math import log
from pathlib import Path
from typing import Any, TypeVar

import torch
from engine import Load, at_once, byte_tokenizer, interleaved, random_model
from gpu_plan import Plan

from interlace.rollout.engines import Engine
from interlace.rollout.engines.local.load_checkpoint import pick_device
from interlace.rollout.trajectory import Episode
from interlace.tools.function import FunctionTool
from interlace.train.config import TrainConfig
from interlace.train.local.checkpoint import save_weights
from interlace.train.local.lora import merged_weights
from interlace.train.local.rl import Trainer, TrainingSetup
from interlace.train.local.training_setup import make_setup
from interlace.train.local.update import TrainBatch, update

__all__ = ["Subject", "write_model"]

T = TypeVar("T")


class Subject:
    """A model in training and in the engine, as `interlace train` has them; made when asked for."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.device = pick_device(plan.device)
        self.folder = folder / plan.name
        self.load = Load(plan.sequences[-2], plan.prompt, plan.sampled, plan.turns, plan.forced)
        self._stack = ExitStack()
        self._before = _resident() if self.device.type == "cpu" else 0

    @cached_property
    def config(self) -> TrainConfig:
        """The settings of a run: those of examples/presets/qwen3_0.6b_24gb.yaml, in our sizes."""
        plan = self.plan
        longest = max(plan.lengths[1], plan.prompt + plan.sampled + plan.turns * plan.forced)
        return TrainConfig(
            model=str(self.folder),
            device=plan.device,
            format="hermes",
            precision="bfloat16",
            gradient_checkpointing=True,
            concurrency=plan.sequences[-1],
            max_tokens=longest,
            micro_tokens=plan.micro_tokens,
            learning_rate=1e-6,
        )

    @cached_property
    def setup(self) -> TrainingSetup:
        """What a run is made of."""
        write_model(self)
        tool = FunctionTool(at_once, name="tool")
        return self._stack.enter_context(make_setup(self.config, [tool]))

    @cached_property
    def trainer(self) -> Trainer:
        """The trainer, with its optimizer."""
        return Trainer(self.config, self.setup)

    @property
    def engine(self) -> Engine:
        """The engine that samples for the trainer."""
        return self.setup.policy.engine

    def roll_out(self, load: Load, tool: Callable[[], Any] = at_once) -> list[Episode]:
        """Sequences in turns, with a tool's output between."""
        return asyncio.run(interleaved(self.engine, load, 0, tool))

    def step(self, rows: TrainBatch) -> None:
        """An update, which must be a number."""
        trainer = self.trainer
        done = update(self.setup.model, trainer.optimizer, rows, trainer.update_config)
        assert not done.refused, "the gradient is not a number"

    def hand_over(self, engine: Engine | None = None) -> None:
        """The trainer's weights into an engine."""
        given: Any = engine or self.engine
        asyncio.run(given.update_weights(merged_weights(self.setup.model)))

    def timed(self, work: Callable[[], T]) -> tuple[T, float]:
        """What `work` gives, and the seconds until the card has done it."""
        self.wait()
        began = time.perf_counter()
        result = work()
        self.wait()
        return result, time.perf_counter() - began

    def median(self, work: Callable[[], object]) -> float:
        """Seconds of `work`, after once to warm up."""
        work()
        return statistics.median(self.timed(work)[1] for _ in range(self.plan.runs))

    def wait(self) -> None:
        """Until the card has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        """Give back what nobody uses; memory's highest mark begins here."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> float:
        """GB in use at the highest: of tensors on a card, on a CPU of what the process has more
        than before it had a model.
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return (_resident("VmHWM") - self._before) / 1e9


def write_model(subject: Subject) -> Path:
    """A checkpoint with random weights in bfloat16, unless it is there already.

    Layers keep the variance of what they are given, and the last norm is scaled so that what is
    sampled has an entropy of about 3 nats: ln V - s^2 / 2 for V logits that spread by s. With the
    usual small weights any two programs agree, on tokens that are equally likely or repeated.
    """
    shape, folder = subject.plan.shape, subject.folder
    if not (folder / "tokenizer.json").exists():
        model = random_model(shape, device=str(subject.device), positions=40_960)
        with torch.no_grad():
            for weight in model.model.layers.parameters():
                if weight.ndim == 2:
                    weight.normal_(0, weight.shape[1] ** -0.5)
            spread = (2 * (log(shape.vocabulary) - 3)) ** 0.5
            usual = model.config.initializer_range * shape.hidden**0.5
            model.model.norm.weight.fill_(spread / usual)
        folder.mkdir(exist_ok=True)
        save_weights(model.to(torch.bfloat16), folder)
        byte_tokenizer(folder, shape.vocabulary)
    return folder


def _resident(name: str = "VmRSS") -> int:
    """Bytes of this process that are in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc says nothing of {name}")

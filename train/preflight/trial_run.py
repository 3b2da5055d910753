"""A training run in small, on the machine it is for: what no estimate can know.

    sample     two episodes of a few tokens, by the engine that the run will have
    agree      the trainer gives the tokens about the probabilities that the engine gave
    update     a gradient and a step of the optimizer on them, and the new weights into the engine
    fill       an update with as many tokens as go through the model at once: does it fit?

The model is loaded for it, changed, and thrown away; nothing is written.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...rollout.engines.vllm.engine import VllmEngine
from ...rollout.ledger import Ledger, Source, Span
from ...rollout.many.runner import Runner
from ...rollout.models.files import find_model
from ...rollout.policy import Policy
from ...rollout.task import Task
from ...rollout.trajectory import Episode, StopReason, Trajectory
from ...tools.errors import InterlaceError, ModelError, ToolUnavailable
from ..config import TrainConfig
from ..data.generators.catalog import GENERATORS
from ..local.lora import merged_weights
from ..local.rl import Trainer, TrainingSetup
from ..local.training_setup import make_policy, make_setup
from ..local.update import TrainBatch, compute_logprobs, update
from .finding import Finding, where

__all__ = ["Trial", "try_out"]

_TOKENS = 96
"""The most tokens of a response that is sampled."""
_PROMPT = 64
"""Tokens of a made-up prompt."""
_FAR = 0.02
"""Where the probabilities of engine and trainer differ by more on average, something is wrong:
bfloat16 alone gives less (docs/verl.md)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The run to try. `keys` are the settings' names in the file, if they differ."""

    config: TrainConfig
    file: Path
    keys: Mapping[str, str] = field(default_factory=dict)
    vllm: Mapping[str, Any] | None = None
    """Sample with vLLM, made with these options; None: with the transformers engine."""
    note: str = ""
    """What is not as it will be."""

    def change(self, setting: str) -> str:
        """The setting as the file has it, and its line."""
        key = self.keys.get(setting, setting)
        return key + where(self.file, key)


def try_out(trial: Trial) -> Iterator[Finding]:
    """Try it, step by step, until one fails; each is a finding. Never raises for what fails."""
    with ExitStack() as stack:
        trying = _Trying(trial, stack)
        steps = {
            "sampling": (trying.sample, "concurrency"),
            "agreement": (trying.agree, "micro_tokens"),
            "update": (trying.update, "micro_tokens"),
            "full update": (trying.fill, "micro_tokens"),
        }
        for what, (step, setting) in steps.items():
            finding = _attempt(trial, what, step, setting)
            yield finding
            if finding.ok is False:
                return


def _attempt(
    trial: Trial, what: str, step: Callable[[], tuple[bool | None, str]], setting: str
) -> Finding:
    import torch

    began = time.perf_counter()
    try:
        ok, text = step()
    except torch.OutOfMemoryError:
        text = f"out of memory: {trial.change(setting)} changes it"
        return Finding(what, False, text, ModelError.exit_code)
    except InterlaceError as error:
        return Finding(what, False, f"{error}; {trial.change('model')}", error.exit_code)
    except Exception as error:  # boundary: whatever a card, a driver or a library says
        said = (str(error).strip() or "nothing").splitlines()[0]
        text = f"{type(error).__name__}: {said}; {trial.change('model')}"
        return Finding(what, False, text, ModelError.exit_code)
    return Finding(what, ok, f"{text}, in {time.perf_counter() - began:.1f} seconds")


class _Trying:
    """The steps, and what they hand on."""

    def __init__(self, trial: Trial, stack: ExitStack) -> None:
        self.trial = trial
        self.stack = stack
        self.config = trial.config.model_copy(
            update={
                "held_out": None,
                "tasks_per_step": 1,
                "group_size": 2,
                "max_turns": min(2, trial.config.max_turns),
                "max_tokens": min(_TOKENS, trial.config.max_tokens),
                "overlong_buffer": 0,
                "concurrency": 2,
            }
        )
        self.setup: TrainingSetup
        self.trainer: Trainer
        self.rows: TrainBatch
        self.episodes: list[Episode] = []

    def sample(self) -> tuple[bool | None, str]:
        """Two episodes of one task."""
        if self.trial.vllm is None:
            self._load()
            setup = self.setup
            (task,) = setup.tasks.draw(1)
            asyncio.run(self._roll_out(setup.policy, task, setup))
        else:
            self._sample_with_vllm(self.trial.vllm)
        failed = [e.error for e in self.episodes if e.stop is StopReason.INFRASTRUCTURE]
        if failed:
            raise ToolUnavailable(str(failed[0]))
        tokens = sum(e.trajectory.sampled_tokens for e in self.episodes)
        calls = sum(len(e.trajectory.calls) for e in self.episodes)
        by = "transformers" if self.trial.vllm is None else "vLLM"
        return True, f"{tokens} tokens in 2 episodes with {calls} tool calls, by {by}"

    def agree(self) -> tuple[bool | None, str]:
        """The trainer's probabilities of the tokens that were sampled."""
        if self.trial.vllm is not None:
            self._load()
        recipe = self.trainer.update_config
        # What they are worth plays no part here: one counts as right, so that there is a gradient.
        self.rows = TrainBatch.of([self.episodes], [[0.0, 1.0]], recipe.objective)
        counts = self.rows.weights > 0
        mine = compute_logprobs(self.setup.model, self.rows, recipe)[counts].exp()
        apart = (mine - self.rows.engine[counts].exp()).abs()
        text = f"engine and trainer are {float(apart.mean()):.1e} apart in a token's probability"
        if float(apart.mean()) > _FAR:
            return (
                None,
                f"{text}: more than rounding, {self.trial.change('precision')} is one cause",
            )
        return True, text

    def update(self) -> tuple[bool | None, str]:
        """A step of the optimizer, and the new weights into the engine."""
        self._step(self.rows)
        if self.trial.vllm is None:
            engine: Any = self.setup.policy.engine
            asyncio.run(engine.update_weights(merged_weights(self.setup.model)))
            return True, f"two episodes, and the new weights into the engine{self.trial.note}"
        return True, f"two episodes{self.trial.note}"

    def fill(self) -> tuple[bool | None, str]:
        """As many tokens at once as there will be: made-up ones, in rows as long as they get."""
        import torch

        config, policy = self.trial.config, self.setup.policy
        most = min(_PROMPT + config.max_tokens, policy.engine.context_length)
        count = max(2, config.micro_tokens // most)
        rng = np.random.default_rng(0)
        made = [_made_up(rng, number, most, policy) for number in range(count)]
        scores = [float(number % 2) for number in range(count)]
        rows = TrainBatch.of([made], [scores], self.trainer.update_config.objective)
        device = self.setup.model.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        norm = self._step(rows)
        text = f"{count * most} tokens in rows of {most}, a gradient of norm {norm:.3g}"
        if device.type == "cuda":
            taken = torch.cuda.max_memory_reserved(device) / 1e9
            card = torch.cuda.get_device_properties(device).total_memory / 1e9
            text += f", {taken:.1f} GB of {card:.1f} taken{self.trial.note}"
        return True, text

    # -- parts ----------------------------------------------------------------------------------

    def _load(self) -> None:

        self.setup = self.stack.enter_context(make_setup(self.config))
        self.trainer = Trainer(self.config, self.setup)

    def _sample_with_vllm(self, options: Mapping[str, Any]) -> None:

        folder = find_model(self.config.model)
        engine = VllmEngine.load(folder, device=self.config.device, max_batch=2, options=options)
        try:
            policy = make_policy(self.config, engine, self.config.to_tools() or ())
            asyncio.run(self._roll_out(policy, GENERATORS["arithmetic"](0, "train")[0], None))
        finally:
            asyncio.run(engine.aclose())

    async def _roll_out(self, policy: Policy, task: Task, setup: TrainingSetup | None) -> None:
        async with AsyncExitStack() as stack:
            if setup is not None and setup.resource is not None:
                await stack.enter_async_context(setup.resource)
            tools_for = None if setup is None else setup.tools_for
            runner = Runner(policy, tools_for=tools_for, concurrency=2)
            groups = await stack.enter_async_context(aclosing(runner.groups([task], n=2, seed=0)))
            self.episodes = [episode async for group in groups for episode in group]

    def _step(self, rows: TrainBatch) -> float:
        """An update; its gradient's norm. Raises ModelError where it is not a number."""
        done = update(self.setup.model, self.trainer.optimizer, rows, self.trainer.update_config)
        if done.refused:
            raise ModelError("the gradient is not a number")
        return done.metrics["grad_norm"]


def _made_up(rng: np.random.Generator, number: int, length: int, policy: Policy) -> Episode:
    """An episode of a prompt and one long turn, of tokens drawn at random."""
    ids = rng.integers(0, len(policy.engine.tokenizer), length, dtype=np.int32)
    prompt = min(_PROMPT, length // 2)
    said = Span.policy(ids[prompt:], logprobs=np.full(length - prompt, -1.0, np.float32))
    ledger = Ledger([Span.given(Source.PROMPT, ids[:prompt]), said])
    trajectory = Trajectory("made up", policy.format.name, ledgers=[ledger])
    return Episode(str(number), Task("made up", ""), "made up", number, [trajectory])

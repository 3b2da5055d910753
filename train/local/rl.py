"""Reinforcement learning on one machine, in plain PyTorch: the loop a newcomer reads first.

A step:
    roll out     groups of episodes, through the runner that serves everybody
    reward       each episode; what failed on our side is left out, never counted as 0
    compare      each episode with its group: the advantages of its tokens
    update       a loss on the policy's own tokens, its gradient, the optimizer
    hand over    the new weights to the engine
Then its metrics and episodes are on disk. Formulas: `train/objectives`, docs/objectives.md.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...rollout.engines.base import Trainable
from ...rollout.episode_log import EpisodeLog
from ...rollout.many.runner import Attempt, Runner
from ...rollout.many.strategies import Strategy
from ...rollout.policy import Policy
from ...rollout.task import Task
from ...rollout.trajectory import Episode
from ...tools import Tool
from ...tools.errors import InterlaceError, ModelError, ToolUnavailable, UsageError
from ..config import TrainConfig
from ..data.collect import fingerprint_tools
from ..data.stream import TaskStream
from ..monitor import mean_tag_logprob
from ..objectives import Objective, informative
from ..rewards import CORRECT, TOTAL, Rewards
from ..rewards.team_credit import Credit
from ..rewards.tree_credit import score_leaves
from .checkpoint import Change, read_checkpoint, write_checkpoint
from .interrupt import end_as_asked, noting_signals
from .logprobs import check_packing
from .lora import has_lora, merged_weights, without_lora
from .metrics import describe, share_right
from .record import Record
from .resume import FIXED, advice, contents, fewer_tokens, identity, lower, nothing_learnt
from .room import needing_memory
from .update import TrainBatch, UpdateConfig, UpdateResult, compute_logprobs, update

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Collected", "Trainer", "TrainingSetup"]


@dataclass(slots=True)
class Collected:
    """A step's episodes."""

    groups: list[list[Episode]] = field(default_factory=list)
    """Groups to train on: episodes that could be rewarded, two or more of each task."""
    episodes: list[Episode] = field(default_factory=list)
    """All of them."""
    unscored: list[str] = field(default_factory=list)
    """Why episodes were left out, one sentence each."""
    uninformative: int = 0
    """Groups left out because all in them are right, or all wrong."""
    reward_seconds: float = 0.0


@dataclass(slots=True)
class TrainingSetup:
    """A model to train, tasks and rewards."""

    model: "PreTrainedModel"
    """The weights in training: its own copy, handed to the engine after each step."""
    policy: Policy
    rewards: Rewards
    """One part is named `CORRECT`."""
    tasks: TaskStream
    held_out: Sequence[Task] = ()
    tools_for: Callable[[Task], Sequence[Tool]] | None = None
    """Where tasks bring their own tools."""
    attempt: Attempt | None = None
    """Makes an episode of several rollouts, such as a team's `attempt`; None: one rollout."""
    strategy: Strategy | None = None
    """Grows trees, in training alone: each leaf is rewarded."""
    credit: Credit | None = None
    """Takes a group of a team's episodes or of a tree's leaves apart: see
    `train/rewards/team_credit.py`, `tree_credit.py`."""
    resource: AbstractAsyncContextManager[Any] | None = None
    """Resources of the tools: entered before the first episode, left after the last."""
    reference: "PreTrainedModel | None" = None
    """For a KL penalty; with LoRA the model without its adapters takes its place."""
    tokenizer_from: Path | None = None
    """The folder whose tokenizer goes into the checkpoints."""


class Trainer:
    """Trains a policy. `train()` runs to the last step and may be called again to resume.

    Example:
        with make_setup(config) as setup, Record(Path(config.out)) as record:
            Trainer(config, setup).train(record)
    """

    def __init__(
        self,
        config: TrainConfig,
        setup: TrainingSetup,
        *,
        objective: Objective | None = None,
        changed: Collection[str] = (),
    ) -> None:
        """`objective` takes the place of the configuration's. `changed` names the settings that may
        differ from those of the run that is resumed: config.yaml notes them with the step.
        """
        import torch

        if objective is not None:
            config = config.model_copy(update={"objective": objective})
        # Naming tools or tasks accepts the databases and corpora that lie there now.
        changed = {*changed, "files"} if {"tools", "tasks"} & {*changed} else changed
        self.config, self.setup, self.changed = config, setup, changed
        self.folder = Path(config.out)
        self.done = 0
        """Completed steps."""
        self.updates = 0
        """Updates that `train()` has made and that had a gradient."""
        self.update_config = UpdateConfig.of(config)
        self._unpacked: str | None = None
        if config.pack_prefixes:
            try:
                check_packing(setup.model)
            except ModelError as error:
                self._unpacked = str(error)
                self.update_config = replace(self.update_config, pack_prefixes=False)
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in setup.model.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        concurrency = 1 if config.deterministic else config.concurrency
        how: Any = {"tools_for": setup.tools_for, "attempt": setup.attempt}
        how["concurrency"] = concurrency
        self._runner = Runner(setup.policy, strategy=setup.strategy, **how)
        self._greedy = Runner(setup.policy.with_sampling(temperature=0.0), **how)
        self._refused = 0  # updates in a row
        self._within = False  # a step whose updates have begun
        self._position = 0  # in the tasks, at the end of the last step
        self._saved: int | None = None  # the step of the checkpoint
        self._changes: list[Change] = []
        self._identity = identity(config, setup.tasks, setup.held_out) | contents(
            setup.tokenizer_from,
            fingerprint_tools(
                setup.policy.tools.values(), chain(setup.tasks.listed, setup.held_out)
            ),
        )
        self._loop: asyncio.Runner

    @property
    def exact(self) -> bool:
        """True if a resumed run ends bit-identical to an uninterrupted one."""
        return self.config.deterministic and self.setup.model.device.type == "cpu"

    def train(
        self,
        record: Record,
        *,
        progress: Callable[[int, dict[str, float]], None] | None = None,
        episode: Callable[[int, Episode], None] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Train to the last step, from the checkpoint in the run's folder if there is one.

        `progress(step, metrics)` is called after each step, `episode(step, episode)` after each
        episode, `tell` with a sentence on what a person should know. Ctrl-C and SIGTERM end the
        step, save a checkpoint and then end the run. Raises ModelError where updates or weights are
        not numbers or memory is out, ToolUnavailable where a whole step failed on our side,
        DataError where the disk is full: each leaves a whole checkpoint to resume from.
        """
        self._on_episode = episode or (lambda step, episode: None)
        tell = tell or (lambda sentence: None)
        if self._unpacked is not None:
            tell(self._unpacked)

        def report(step: int, metrics: dict[str, float]) -> None:
            record.log(step, metrics)
            if progress is not None:
                progress(step, metrics)

        with noting_signals() as noted, asyncio.Runner() as self._loop:
            self._resume(record, tell)
            began = self.done
            stack = AsyncExitStack()
            if self.setup.resource is not None:
                self._loop.run(stack.enter_async_context(self.setup.resource))
            try:
                if not self.done and self.setup.held_out:
                    report(0, self._loop.run(self._evaluate(record, 0)))
                while self.done < self.config.steps and not noted:
                    metrics = self._step(record)
                    report(self.done, metrics)
                    last = self.done == self.config.steps
                    if last or noted or self.done % self.config.save_every == 0:
                        self.save()
            except InterlaceError:
                if self._saved != self.done and not self._within:
                    with suppress(InterlaceError):  # a full disk, say: the one before is whole
                        self.save()
                raise
            finally:
                self._loop.run(stack.aclose())
        if self.done > began and not self.updates:
            tell(nothing_learnt(began + 1, self.done))
        end_as_asked(noted)

    # -- one step -------------------------------------------------------------------------------

    def _step(self, record: Record) -> dict[str, float]:
        """Run one step and return its metrics."""
        import torch

        step, began = self.done + 1, time.perf_counter()
        torch.manual_seed(_seed(self.config.seed, step))
        with record.episodes(step) as log:
            collected = self._loop.run(self._roll_out(step, log))
        metrics = describe(collected.episodes, collected.unscored, collected.uninformative)
        policy = self.setup.policy
        metrics |= mean_tag_logprob(
            collected.episodes, policy.engine.tokenizer, policy.format.control_tags
        )
        rolled_out = time.perf_counter()
        with needing_memory(step, fewer_tokens(self.config)):
            rows = self._advantages(collected.groups)
            compared = self._clock()
            metrics |= self._update(rows, self.config.rate(self.done))
            updated = self._clock()
        self._loop.run(self._hand_over())
        handed_over = self._clock()
        self.done, self._position, self._within = step, self.setup.tasks.position, False
        metrics |= {
            "seconds/rollout": rolled_out - began - collected.reward_seconds,
            "seconds/reward": collected.reward_seconds,
            "seconds/advantage": compared - rolled_out,
            "seconds/update": updated - compared,
            "seconds/hand_over": handed_over - updated,
            "seconds": handed_over - began,
        }
        if self.setup.held_out and (
            step == self.config.steps or step % self.config.evaluate_every == 0
        ):
            metrics |= self._loop.run(self._evaluate(record, step))
        return metrics

    def _clock(self) -> float:
        """Seconds, once the device has finished its queue: CUDA kernels run asynchronously."""
        import torch

        device = self.setup.model.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    async def _roll_out(self, step: int, log: EpisodeLog) -> Collected:
        """The step's groups; uninformative ones are replaced, up to `refills` times."""
        config, collected = self.config, Collected()
        dynamic = self.update_config.objective.dynamic_sampling
        for refill in range(1 + (config.refills if dynamic else 0)):
            missing = config.tasks_per_step - len(collected.groups)
            if not missing:
                break
            tasks = self.setup.tasks.draw(missing)
            seed = _seed(config.seed, step, refill)
            found: dict[str, list[Episode]] = {}
            running = self._runner.groups(tasks, n=config.group_size, seed=seed)
            async with aclosing(running) as groups:
                async for group in groups:
                    found[group[0].group] = await self._score(step, group, log, collected)
            for task in tasks:  # in the order drawn, not in that of their ends
                scored = found[task.id]
                right = [episode.rewards[CORRECT] for episode in scored]
                differ = len(right) > 1 and bool(informative(right, [0] * len(right)).all())
                if dynamic and not differ:
                    collected.uninformative += len(scored) > 1
                elif len(scored) > 1:
                    collected.groups.append(scored)
        if not any(episode.rewards for episode in collected.episodes):
            raise ToolUnavailable(
                f"no episode of step {step} could be rewarded: {collected.unscored[0]}; the last "
                "checkpoint is whole, resume when this is mended"
            )
        return collected

    async def _score(
        self, step: int, group: list[Episode], log: EpisodeLog, collected: Collected
    ) -> list[Episode]:
        """Reward a group and log it. Returns its episodes, of trees their leaves, that have a
        reward.
        """
        clock = time.perf_counter()
        rewards, responses = self.setup.rewards, list(group)
        if self.setup.strategy is None:
            scores = await asyncio.to_thread(rewards.score_all, group)
        else:
            leaves, scores = await asyncio.to_thread(score_leaves, rewards, group)
            responses = [*leaves]
        collected.reward_seconds += time.perf_counter() - clock
        collected.episodes += group
        collected.unscored += [score.problem for score in scores if score.problem is not None]
        for episode in group:
            log.append(episode)
            self._on_episode(step, episode)
        return [episode for episode in responses if episode.rewards]

    def _advantages(self, groups: list[list[Episode]]) -> TrainBatch | None:
        """The batch of an update: tokens with their advantages and their log-probabilities under
        the old and the reference policy. None if no group is left.
        """
        config, model, credit = self.config, self.setup.model, self.setup.credit
        if credit is not None:
            groups = [part for group in groups for part in credit(group)]
        if not groups:
            return None
        scores = [[episode.rewards[TOTAL] for episode in group] for group in groups]
        rows = TrainBatch.of(
            groups,
            scores,
            self.update_config.objective,
            without_void_turns=config.without_void_turns,
        )
        if config.epochs * config.minibatches > 1:  # else the policy in training is still that one
            rows.old = compute_logprobs(model, rows, self.update_config)
        if config.kl_weight:
            rows.reference = self._reference_logprobs(rows)
        return rows

    def _update(self, rows: TrainBatch | None, rate: float) -> dict[str, float]:
        """The step's updates at that learning rate; their metrics, averaged."""
        if rows is None:
            return {"updates": 0, "refused": 0}
        config = self.config
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        rng = np.random.default_rng([config.seed, self.done])
        done, refused = [], 0
        for _ in range(config.epochs):
            order = rng.permutation(rows.trained)
            for part in np.array_split(order, config.minibatches):
                if not len(part):
                    continue
                updated = self._one_update(rows.take(part.tolist()), rate)
                refused += updated.refused
                self._refused = self._refused + 1 if updated.refused else 0
                if not updated.refused:
                    done.append(updated.metrics)
                if self._refused == config.patience:
                    raise ModelError(
                        f"{config.patience} updates in a row were not numbers, and were not made "
                        f"(step {self.done + 1}): {lower(self.folder, rate)}"
                    )
        self.updates += sum(metrics["grad_norm"] > 0 for metrics in done)
        names = {name: None for metrics in done for name in metrics}
        means = {name: float(np.mean([metrics[name] for metrics in done])) for name in names}
        return {**means, "learning_rate": rate, "updates": len(done), "refused": refused}

    def _one_update(self, rows: TrainBatch, rate: float) -> UpdateResult:
        try:
            updated = update(self.setup.model, self.optimizer, rows, self.update_config)
        except ModelError as error:  # weights that are no numbers: they go nowhere
            self._within = True
            raise ModelError(
                f"{error} (step {self.done + 1}): {lower(self.folder, rate)}"
            ) from error
        self._within |= not updated.refused
        return updated

    def _reference_logprobs(self, rows: TrainBatch) -> Any:
        model, reference = self.setup.model, self.setup.reference
        if reference is not None:
            return compute_logprobs(reference, rows, self.update_config)
        if not has_lora(model):
            raise UsageError("kl_weight is above 0, but there is no reference model")
        with without_lora(model):
            return compute_logprobs(model, rows, self.update_config)

    async def _hand_over(self) -> None:
        """Give the engine the new weights."""
        engine = self.setup.policy.engine
        if isinstance(engine, Trainable):  # a script has no weights
            await engine.update_weights(merged_weights(self.setup.model))

    # -- evaluation -----------------------------------------------------------------------------

    async def _evaluate(self, record: Record, step: int) -> dict[str, float]:
        """Each held-out task once, greedily, through the same runner."""
        episodes = []
        with record.episodes(step, "held-out-") as log:
            async for episode in self._greedy.run(self.setup.held_out):
                await asyncio.to_thread(self.setup.rewards.score_all, [episode])
                log.append(episode)
                episodes.append(episode)
        return {f"held_out/{name}": value for name, value in share_right(episodes).items()}

    # -- checkpoints ----------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint in place of the previous one. Raises DataError if it can't be written,
        ModelError if weights are not finite.
        """
        state = {
            "done": self.done,
            "position": self._position,
            "identity": self._identity,
            "changes": self._changes,
        }
        write_checkpoint(
            self.folder,
            self.setup.model,
            self.optimizer,
            state,
            tokenizer_from=self.setup.tokenizer_from,
            format=self.setup.policy.format.name,
        )
        self._saved = self.done

    def _resume(self, record: Record, tell: Callable[[str], None]) -> None:
        """Load the checkpoint, or write the first one, so that the run can always be resumed."""
        state = read_checkpoint(
            self.folder,
            self.setup.model,
            self.optimizer,
            self._identity,
            changed=self.changed,
            fixed=FIXED,
            advice=advice,
        )
        if state is not None:
            self.done = self._saved = state["done"]
            self._changes = state["changes"]
            self._position = self.setup.tasks.position = state["position"]
            self._loop.run(self._hand_over())
        new = [change for change in self._changes if change["step"] == self.done + 1]
        for change in new:
            tell(f"{change['name']} is {change['now']} from here on; it was {change['was']}")
        if state is None or new:  # what was changed holds, whatever comes
            self.save()
        record.truncate_after(self.done, self._changes)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])

"""From rewarded episodes to a step of the optimizer.

    rows          every ledger of every episode, padded: ids, who wrote them, how they were sampled
    advantages    how much better than its group an episode did, at each of its tokens
    update        a minibatch, in micro-batches that fit the memory: loss, gradient, one step

The losses of micro-batches add up to that of the minibatch, exactly: each divides by what the whole
minibatch has.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...rollout.trajectory import Episode
from ...tools.errors import ModelError
from ..objectives import (
    Objective,
    agg_loss,
    keep_mask,
    kl_penalty,
    outcome_rewards,
    rollout_correction_weights,
)
from ..rewards.tree_credit import Leaf
from .batch import Batch, micro_batches
from .checkpoint import are_finite
from .logprobs import token_logprobs
from .prefixes import Layout, Pack, attention_cost, find_packs

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel

    from ..config import TrainConfig

__all__ = ["TrainBatch", "UpdateConfig", "UpdateResult", "compute_logprobs", "update"]


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """The settings of an update, in addition to the rows and the model."""

    objective: Objective
    temperature: float = 1.0
    """The sampling temperature: the gradient is that of the policy that sampled."""
    loss_scale_factor: float | None = None
    """The divisor of "seq-mean-token-sum-norm": the longest allowed response."""
    importance: tuple[str, float] | None = ("token", 2.0)
    """Level and cap of the importance weights for the gap between engine and trainer."""
    kl_weight: float = 0.0
    kl_estimator: str = "k3"
    micro_tokens: int = 16384
    """Tokens per forward pass, padding included."""
    pack_prefixes: bool = False
    """Compute the tokens with which rows begin alike once: see `prefixes.py`."""
    clip_norm: float = 1.0
    """The largest norm of a gradient."""
    bfloat16: bool = False
    """Compute in bfloat16; weights and optimizer keep their own dtype."""

    @classmethod
    def of(cls, config: "TrainConfig") -> "UpdateConfig":
        """The part of a configuration that updates need."""
        return cls(
            objective=config.to_objective(),
            temperature=config.temperature,
            loss_scale_factor=config.max_tokens,
            importance=(
                None
                if config.importance_cap is None
                else (config.importance_level, config.importance_cap)
            ),
            kl_weight=config.kl_weight,
            kl_estimator=config.kl_estimator,
            micro_tokens=config.micro_tokens,
            pack_prefixes=config.pack_prefixes,
            clip_norm=config.clip_norm,
            bfloat16=config.precision == "bfloat16",
        )


@dataclass(slots=True)
class TrainBatch:
    """Ledgers that are trained on, with what is known of each token; all tensors are (B, T)."""

    batch: Batch
    weights: "Tensor"
    """Loss weights, 0 wherever the policy did not write and where a filter took a row out."""
    advantages: "Tensor"
    engine: "Tensor"
    """The engine's log-probabilities; NaN if it gave none."""
    old: "Tensor | None" = None
    """Log-probabilities under the policy that began the batch; None: it is the one in training."""
    reference: "Tensor | None" = None
    """Log-probabilities under the reference model, if there is a KL penalty."""

    @classmethod
    def of(
        cls,
        groups: Sequence[Sequence[Episode]],
        scores: Sequence[Sequence[float]],
        objective: Objective,
        *,
        without_void_turns: bool = False,
    ) -> "TrainBatch":
        """The rows of `groups`, whose episodes have these `scores`.

        An episode of several ledgers is one response to the estimator, and has a row for each
        ledger. A ledger that is in several groups has one row, with the sum of its advantages, each
        by the share of its episode (`Leaf.share`). Raises ValueError where the policy's tokens come
        without log-probabilities.
        """
        import torch

        episodes = [episode for group in groups for episode in group]
        trajectories = [
            (number, trajectory)
            for number, episode in enumerate(episodes)
            for trajectory in episode.trajectories
        ]
        kept = keep_mask([trajectory for _, trajectory in trajectories])
        rows = [
            (number, ledger, bool(keep) or not without_void_turns)
            for (number, trajectory), keep in zip(trajectories, kept, strict=True)
            for ledger in trajectory.ledgers
        ]
        unique = {id(ledger): (ledger, keep) for _, ledger, keep in rows}
        numbers = {key: number for number, key in enumerate(unique)}
        of = torch.tensor([numbers[id(ledger)] for _, ledger, _ in rows])
        batch = Batch.of([ledger for ledger, _ in unique.values()])
        counts = batch.mask & (batch.weights > 0)
        if np.isnan(batch.logprobs[counts]).any():
            raise ValueError("tokens without the engine's log-probabilities can't be trained on")
        keeps = np.array([[keep] for _, keep in unique.values()])
        index = [number for number, group in enumerate(groups) for _ in group]
        flat = [score for group in scores for score in group]
        owners = [number for number, _, _ in rows]
        advantages = _advantages(batch.mask[of.numpy()], owners, flat, index, objective)
        shares = [each.share if isinstance(each, Leaf) else 1.0 for each in episodes]
        advantages = advantages * torch.tensor([[shares[owner]] for owner in owners])
        return cls(
            batch,
            torch.from_numpy(batch.weights * keeps),
            torch.zeros(batch.mask.shape).index_add(0, of, advantages),
            torch.from_numpy(batch.logprobs),
        )

    def take(self, rows: Sequence[int]) -> "TrainBatch":
        """Some of the rows, no wider than the longest of them."""
        batch, width = self.batch, int(self.batch.lengths[list(rows)].max())
        part = np.ix_(list(rows), range(width))
        return TrainBatch(
            Batch(
                batch.ids[part],
                batch.mask[part],
                batch.weights[part],
                batch.logprobs[part],
                batch.versions[part],
                batch.lengths[list(rows)],
            ),
            self.weights[list(rows), :width],
            self.advantages[list(rows), :width],
            self.engine[list(rows), :width],
            None if self.old is None else self.old[list(rows), :width],
            None if self.reference is None else self.reference[list(rows), :width],
        )

    @property
    def trained(self) -> list[int]:
        """The rows that have a token with a loss."""
        return [int(row) for row in (self.weights > 0).any(dim=1).nonzero().flatten()]


def _advantages(
    mask: NDArray[np.bool_],
    episode_of: Sequence[int],
    scores: Sequence[float],
    index: Sequence[int],
    objective: Objective,
) -> "Tensor":
    """Each token's advantage (B, T): an episode's rows are laid end to end, estimated as one
    response, and taken apart again.
    """
    import torch

    width = mask.shape[1]
    most = max(np.bincount(episode_of))
    laid = np.zeros((len(scores), int(most) * width), np.bool_)
    places: list[tuple[int, slice]] = []
    seen: dict[int, int] = defaultdict(int)
    for row, episode in enumerate(episode_of):
        place = slice(seen[episode] * width, (seen[episode] + 1) * width)
        laid[episode, place] = mask[row]
        seen[episode] += 1
        places.append((episode, place))
    counts = torch.from_numpy(laid)
    rewards = outcome_rewards(torch.tensor(scores, dtype=torch.float32), counts)
    found, _ = objective.advantage(rewards, counts, index)
    return torch.stack([found[episode, place] for episode, place in places])


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The result of an optimizer step. `refused`: something was not finite, so the step was not
    made and the model is unchanged.
    """

    metrics: dict[str, float]
    refused: bool


def update(
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    rows: TrainBatch,
    config: UpdateConfig,
) -> UpdateResult:
    """One step of the optimizer on `rows`, in micro-batches. The gradient is zero before and after.

    A loss or a gradient that is not finite does not reach the weights. Raises ModelError if the
    weights are not finite after the step: they must not be saved or handed on.
    """
    import torch

    whole = {
        "batch_num_tokens": float(rows.weights.sum()),
        "global_batch_size": float(len(rows.trained)),
        "loss_scale_factor": config.loss_scale_factor,
    }
    total: dict[str, float] = defaultdict(float)
    tokens = int((rows.weights > 0).sum())
    total["row_tokens"] = float(rows.batch.lengths[rows.trained].sum())
    for part in _parts(model, rows, config):
        taken = rows.take(part.rows)
        total["computed_tokens"] += sum(pack.size for pack in part.packs)
        loss, metrics = _loss(model, taken, config, whole, part.layout(taken))
        loss.backward()  # type: ignore[no-untyped-call]
        total["loss"] += float(loss.detach())
        share = int((taken.weights > 0).sum()) / tokens
        for name, value in metrics.items():
            if name.endswith(("/max", "/min")):
                most = max if name.endswith("/max") else min
                total[name] = most(total.get(name, value), value)
            else:
                total[name] += share * value
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = float(torch.nn.utils.clip_grad_norm_(trainable, config.clip_norm))
    total["grad_norm"] = norm
    refused = not (math.isfinite(total["loss"]) and math.isfinite(norm))
    if not refused:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if not refused and not are_finite(model):
        raise ModelError("the weights are not numbers after an update")
    return UpdateResult(dict(total), refused)


@dataclass(frozen=True, slots=True)
class _Part:
    """A micro-batch: packs of rows, all of one row or all of several."""

    packs: list[Pack]

    @property
    def rows(self) -> list[int]:
        return [row for pack in self.packs for row in pack.rows]

    def layout(self, taken: TrainBatch) -> Layout | None:
        """How those rows are packed; None where each is a pack of its own."""
        if len(self.packs) == len(taken.batch.lengths):
            return None
        return Layout.of(taken.batch.ids, taken.batch.lengths, self.packs)


def _parts(model: "PreTrainedModel", rows: TrainBatch, config: UpdateConfig) -> list[_Part]:
    """The rows that are trained, in micro-batches."""
    lengths = rows.batch.lengths
    packs = [Pack([row], int(lengths[row])) for row in rows.trained]
    if config.pack_prefixes:
        packs = find_packs(
            rows.trained,
            rows.batch.ids,
            lengths,
            most_tokens=config.micro_tokens,
            pair=attention_cost(model),
        )
    sizes = np.array([pack.size for pack in packs])
    parts = []
    for packed in (False, True):
        chosen = [number for number, pack in enumerate(packs) if (len(pack.rows) > 1) is packed]
        parts += micro_batches(chosen, sizes, config.micro_tokens)
    return [_Part([packs[number] for number in part]) for part in parts]


def _loss(
    model: "PreTrainedModel",
    rows: TrainBatch,
    config: UpdateConfig,
    whole: Mapping[str, Any],
    layout: Layout | None,
) -> "tuple[Tensor, dict[str, float]]":
    """The share of these rows in the minibatch's loss, and what to log."""
    objective = config.objective
    weights, advantages, engine = (
        values.to(model.device) for values in (rows.weights, rows.advantages, rows.engine)
    )
    with _precision(model, config):
        new, entropy = token_logprobs(
            model, rows.batch.ids, rows.weights.numpy() > 0, config.temperature, layout=layout
        )
    old = new.detach() if rows.old is None else rows.old.to(model.device)
    metrics: dict[str, float] = {}
    importance = None
    if config.importance is not None:
        importance, metrics = rollout_correction_weights(old - engine, weights, *config.importance)
    loss_config = replace(objective.config, global_batch_info=whole)
    loss, more = objective.loss(
        old, new, advantages, weights, objective.loss_agg_mode, loss_config, importance
    )
    if rows.reference is not None:
        reference = rows.reference.to(model.device)
        kl = kl_penalty(new, reference, config.kl_estimator, weights)
        loss = loss + config.kl_weight * agg_loss(kl, weights, objective.loss_agg_mode, **whole)
        metrics["reference_kl"] = _mean(kl, weights)
    metrics["entropy"] = _mean(entropy, weights)
    metrics["engine_gap"] = _mean((old - engine).abs(), weights)
    metrics |= _ratios(new.detach() - engine, weights)
    return loss, metrics | {name.removeprefix("actor/"): value for name, value in more.items()}


def _ratios(log_ratio: "Tensor", weights: "Tensor") -> dict[str, float]:
    """How far the policy in training is from the one that sampled, at its most and in the tails:
    the ratio of a token's probabilities under the two, trainer over engine.
    """
    ratio = log_ratio[weights > 0].exp()
    return {
        "ratio/max": float(ratio.max()),
        "ratio/min": float(ratio.min()),
        "ratio/above_2": float((ratio > 2).float().mean()),
        "ratio/below_half": float((ratio < 0.5).float().mean()),
    }


def _mean(values: "Tensor", weights: "Tensor") -> float:
    return float(values.detach()[weights > 0].mean())


def compute_logprobs(model: "PreTrainedModel", rows: TrainBatch, config: UpdateConfig) -> "Tensor":
    """The model's log-probabilities of the tokens that count, (B, T), on the CPU, no gradient."""
    import torch

    result = torch.zeros(rows.weights.shape, dtype=torch.promote_types(model.dtype, torch.float32))
    with torch.no_grad(), _precision(model, config):
        for part in _parts(model, rows, config):
            taken = rows.take(part.rows)
            counts = taken.weights.numpy() > 0
            values, _ = token_logprobs(
                model, taken.batch.ids, counts, config.temperature, layout=part.layout(taken)
            )
            result[part.rows, : values.shape[1]] = values.cpu()
    return result


def _precision(model: "PreTrainedModel", config: UpdateConfig) -> AbstractContextManager[Any]:
    import torch

    if not config.bfloat16:
        return nullcontext()
    return torch.autocast(model.device.type, torch.bfloat16)

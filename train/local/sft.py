"""Supervised fine-tuning on ledgers, in plain PyTorch: the loop a newcomer reads first.

The loss is the mean negative log-likelihood over policy tokens, each weighed with its ledger's loss
weight: sum(w * nll) / sum(w). What the policy did not write, and failed attempts, have weight 0 and
so give no gradient; they are context.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...rollout.ledger import Ledger
from ...tools.errors import DataError
from .checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Batch", "SFTConfig", "SFTReport", "batches", "sft", "weighted_loss"]


@dataclass(frozen=True, slots=True)
class SFTConfig:
    """How to train. The learning rate warms up linearly, then falls along a half cosine."""

    steps: int = 1000
    batch_size: int = 32
    """Ledgers a step."""
    learning_rate: float = 1e-3
    warmup: int = 50
    """Steps until the learning rate is full."""
    final: float = 0.05
    """The last learning rate, as a share of the full one."""
    weight_decay: float = 0.1
    """Decay of matrices; vectors (norms, biases) have none."""
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    """The largest norm of a gradient."""
    max_length: int = 2048
    """Longer ledgers are refused."""
    seed: int = 0
    evaluate_every: int = 100
    save_every: int = 100

    def __post_init__(self) -> None:
        """Refuse what nothing could be trained with."""
        if min(self.steps, self.batch_size, self.evaluate_every, self.save_every) < 1:
            raise ValueError(f"steps, batch_size and intervals must be at least 1: {self!r}")

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        along = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (
            self.final + (1 - self.final) * (1 + math.cos(math.pi * along)) / 2
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Ledgers side by side, padded on the right with id 0 and weight 0.

    `ids` int64 (B, T); `weights` float32 (B, T), the weight of each token as a target. No attention
    mask is needed: under a causal mask what is padded on the right is seen by nobody that counts.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, ledgers: Sequence[Ledger]) -> "Batch":
        """Pad `ledgers` to the longest."""
        shape = (len(ledgers), max(len(ledger) for ledger in ledgers))
        ids, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for row, ledger in enumerate(ledgers):
            ids[row, : len(ledger)] = ledger.ids
            weights[row, : len(ledger)] = ledger.loss_weights
        weights[:, 0] = 0  # nothing predicts the first token
        return cls(ids, weights)


@dataclass(slots=True)
class SFTReport:
    """What came of it: the loss of each step, and the loss on held-out ledgers by step."""

    losses: list[float] = field(default_factory=list)
    held_out: dict[int, float] = field(default_factory=dict)
    tokens: int = 0
    """Tokens gone through, padding left out."""
    seconds: float = 0.0


def batches(ledgers: Sequence[Ledger], size: int, seed: int) -> Iterator[list[int]]:
    """Endlessly, the indices of each batch: every ledger once an epoch, similar lengths together.

    The order depends on `seed` and the lengths alone, so that a resumed run finds its place. The
    last few of an epoch, too few for a batch, are left to the next.
    """
    if len(ledgers) < size:
        raise DataError(f"a batch needs {size} ledgers, but there are {len(ledgers)}")
    lengths = np.array([len(ledger) for ledger in ledgers])
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(ledgers))
        # Sorted within pools of 16 batches: little padding, and batches that still differ.
        pools = [order[i : i + 16 * size] for i in range(0, len(order), 16 * size)]
        order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
        starts = np.arange(0, len(order) - size + 1, size)
        for start in rng.permutation(starts):
            yield order[start : start + size].tolist()
        epoch += 1


def weighted_loss(model: "PreTrainedModel", batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
    """(sum of w * nll, sum of w) over a batch: both scalars, the first with a gradient."""
    import torch
    from torch.nn import functional

    device = model.device
    ids = torch.from_numpy(batch.ids).to(device)
    weights = torch.from_numpy(batch.weights).to(device)[:, 1:]
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # (B, T-1, V)
    counts = weights > 0
    # Only the targets that count: the others' logits are not even turned to float32.
    nll = functional.cross_entropy(logits[counts].float(), ids[:, 1:][counts], reduction="none")
    return (nll * weights[counts]).sum(), weights.sum()


def sft(
    model: "PreTrainedModel",
    ledgers: Sequence[Ledger],
    config: SFTConfig,
    folder: Path,
    *,
    held_out: Sequence[Ledger] = (),
    progress: Callable[[int, SFTReport], None] | None = None,
) -> SFTReport:
    """Train `model` in place; checkpoints go into `folder`, from which a broken-off run goes on.

    Ctrl-C ends the step, saves a checkpoint and is then raised on. The same call, after that or
    after a crash, goes on from the checkpoint: on one CPU with the same number of threads, to the
    very bits of an uninterrupted run.
    `progress(step, report)` is called after each step. Raises DataError where the ledgers can't be
    trained on or the checkpoint is of another run.
    """
    import torch

    _check(ledgers, config)
    optimizer = torch.optim.AdamW(_groups(model, config), lr=config.learning_rate)
    report = SFTReport()
    identity = {**asdict(config), "ledgers": len(ledgers), "tokens": sum(map(len, ledgers))}
    done = load_checkpoint(folder, model, optimizer, report, identity)
    order = batches(ledgers, config.batch_size, config.seed)
    for _ in range(done):
        next(order)
    started = time.perf_counter() - report.seconds
    with _ctrl_c() as pressed:
        while done < config.steps:
            batch = [ledgers[i] for i in next(order)]
            loss = _step(model, optimizer, Batch.of(batch), config, config.rate(done))
            done += 1
            report.losses.append(loss)
            report.tokens += sum(map(len, batch))
            report.seconds = time.perf_counter() - started
            last = done == config.steps
            if held_out and (last or done % config.evaluate_every == 0):
                report.held_out[done] = evaluate(model, held_out, config.batch_size)
            if last or pressed or done % config.save_every == 0:
                save_checkpoint(folder, model, optimizer, done, report, identity)
            if progress is not None:
                progress(done, report)
            if pressed:
                raise KeyboardInterrupt
    return report


def evaluate(model: "PreTrainedModel", ledgers: Sequence[Ledger], size: int) -> float:
    """The weighted mean loss over `ledgers`, without dropout or gradient."""
    import torch

    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    total = weight = 0.0
    by_length = sorted(ledgers, key=len)
    with torch.no_grad():
        for start in range(0, len(by_length), size):
            nll, weights = weighted_loss(model, Batch.of(by_length[start : start + size]))
            total, weight = total + nll.item(), weight + weights.item()
    model.train(training)
    return total / weight


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """A list that is no longer empty once Ctrl-C was pressed: a step is never broken off half-way.

    A second Ctrl-C interrupts at once. Outside of the main thread Ctrl-C is somebody else's.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return

    def note(number: int, frame: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _step(
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    batch: Batch,
    config: SFTConfig,
    rate: float,
) -> float:
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate
    model.train()
    nll, weights = weighted_loss(model, batch)
    loss = nll / weights
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.item())


def _groups(model: "PreTrainedModel", config: SFTConfig) -> list[dict[str, object]]:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {
            "params": [p for p in parameters if (p.ndim >= 2) == matrices],
            "weight_decay": config.weight_decay if matrices else 0.0,
            "betas": config.betas,
        }
        for matrices in (True, False)
    ]


def _check(ledgers: Sequence[Ledger], config: SFTConfig) -> None:
    for index, ledger in enumerate(ledgers):
        if len(ledger) > config.max_length:
            raise DataError(
                f"ledger {index} has {len(ledger)} tokens, above max_length {config.max_length}"
            )
        if not ledger.loss_weights[1:].any():
            raise DataError(f"ledger {index} has no token to learn from")

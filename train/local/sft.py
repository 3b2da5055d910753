"""Supervised fine-tuning on ledgers, in plain PyTorch: the loop a newcomer reads first.

The loss is the mean negative log-likelihood over policy tokens, each weighed with its ledger's loss
weight: sum(w * nll) / sum(w). What the policy did not write, and failed attempts, have weight 0 and
so give no gradient; they are context.
"""

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...rollout.ledger import Ledger
from ...tools.errors import DataError, InterlaceError, ModelError, UsageError
from .batch import Batch, micro_batches
from .checkpoint import Change, are_finite, read_checkpoint, write_checkpoint
from .interrupt import end_as_asked, noting_signals
from .logprobs import token_logprobs
from .lora import lora_scale
from .record import Record
from .resume import contents
from .room import needing_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["SFTConfig", "SFTReport", "batches", "sft", "weighted_loss"]


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
    micro_tokens: int = 16384
    """Tokens, padding included, that go through the model at once: memory depends on it."""
    bfloat16: bool = False
    """Whether the model computes in bfloat16; weights and optimizer keep their own type."""
    patience: int = 3
    """The run stops after so many steps in a row whose gradient is not a number."""
    seed: int = 0
    evaluate_every: int = 100
    save_every: int = 100

    def __post_init__(self) -> None:
        """Refuse what nothing could be trained with."""
        counts = (self.steps, self.batch_size, self.evaluate_every, self.save_every, self.patience)
        if min(*counts, self.micro_tokens) < 1:
            raise ValueError(f"steps, sizes and intervals must be at least 1: {self!r}")
        if not 0 < self.learning_rate <= 1:  # which no NaN is
            raise UsageError(
                f"learning_rate must be above 0 and at most 1, not {self.learning_rate}"
            )

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        along = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (
            self.final + (1 - self.final) * (1 + math.cos(math.pi * along)) / 2
        )


@dataclass(slots=True)
class SFTReport:
    """The result of a run: the loss of each step, and the loss on held-out ledgers by step."""

    losses: list[float] = field(default_factory=list)
    held_out: dict[int, float] = field(default_factory=dict)
    tokens: int = 0
    """Tokens gone through, padding left out."""
    seconds: float = 0.0
    refused: int = 0
    """Steps that were not made, since their gradient was not a number."""


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
    """(sum of w * nll, sum of w) over a batch: both float32 scalars, the first with a gradient."""
    import torch

    weights = torch.from_numpy(batch.weights).to(model.device)
    logprobs, _ = token_logprobs(model, batch.ids, batch.weights > 0)
    return -(logprobs * weights).sum(), weights.sum()


def sft(
    model: "PreTrainedModel",
    ledgers: Sequence[Ledger],
    config: SFTConfig,
    folder: Path,
    *,
    held_out: Sequence[Ledger] = (),
    progress: Callable[[int, SFTReport], None] | None = None,
    record: Record | None = None,
    source: Path | None = None,
    format: str | None = None,
    changed: Collection[str] = (),
    tell: Callable[[str], None] | None = None,
) -> SFTReport:
    """Train `model` in place; checkpoints go into `folder`, from which a broken-off run continues.

    Ctrl-C and SIGTERM end the step, save a checkpoint and then end the run. The same call, after
    that or after a crash, resumes from the checkpoint: on one CPU with the same number of threads,
    to the very bits of an uninterrupted run. `changed` names the settings that may differ, since
    somebody said so: `tell` is given a sentence on each, and config.yaml notes it.
    `progress(step, report)` is called after each step; each is a line in `record`, where given.
    `source` is the folder that the model came from: its tokenizer goes into the checkpoints, so
    that they can be used as models, which then speak `format`. Raises DataError where the ledgers
    can't be trained on, the checkpoint is of another run or the disk is full, ModelError where
    gradients or weights are not numbers: in each case there is a whole checkpoint to continue from.
    """
    import torch

    _check(ledgers, config)
    optimizer = torch.optim.AdamW(_groups(model, config), lr=config.learning_rate)
    identity = _identity(model, ledgers, config, source)
    state = read_checkpoint(
        folder, model, optimizer, identity, changed=changed, fixed=_FIXED, advice=_advice
    )
    done, report = _resumed(state)
    changes: list[Change] = [] if state is None else state["changes"]

    saved = done

    def save() -> None:
        nonlocal saved
        kept = {"done": done, "report": asdict(report), "identity": identity, "changes": changes}
        write_checkpoint(folder, model, optimizer, kept, tokenizer_from=source, format=format)
        saved = done

    new = [change for change in changes if change["step"] == done + 1]
    say = tell or (lambda sentence: None)
    for change in new:
        say(f"{change['name']} is {change['now']} from here on; it was {change['was']}")
    if state is None or new:  # whatever ends the run, there is a checkpoint
        save()
    if record is not None:
        record.truncate_after(done, changes)
    order = batches(ledgers, config.batch_size, config.seed)
    for _ in range(done):
        next(order)
    started, refused = time.perf_counter() - report.seconds, 0
    with noting_signals() as noted:
        try:
            while done < config.steps and not noted:
                batch = [ledgers[i] for i in next(order)]
                with needing_memory(done + 1, "lower micro_tokens"):
                    loss, norm = _step(model, optimizer, batch, config, config.rate(done))
                done += 1
                report.losses.append(loss)
                report.tokens += sum(map(len, batch))
                report.seconds = time.perf_counter() - started
                refused = 0 if math.isfinite(norm) else refused + 1
                report.refused += refused > 0
                if refused == config.patience:
                    raise ModelError(
                        f"the gradients of {refused} steps in a row were not numbers (step {done})"
                        f": {_with_lower(config)}"
                    )
                last = done == config.steps
                if held_out and (last or done % config.evaluate_every == 0):
                    report.held_out[done] = evaluate(model, held_out, config)
                if record is not None:
                    record.log(done, _metrics(report, done, norm, config))
                if progress is not None:
                    progress(done, report)
                if last or noted or done % config.save_every == 0:
                    save()
        except InterlaceError:
            if saved != done:
                with suppress(InterlaceError):  # a full disk, or weights that are no numbers
                    save()
            raise
    if report.refused == done and done:
        say("no step made an update, since no gradient was a number: the model is as it was")
    end_as_asked(noted)
    return report


def evaluate(model: "PreTrainedModel", ledgers: Sequence[Ledger], config: SFTConfig) -> float:
    """The weighted mean loss over `ledgers`, without dropout or gradient."""
    import torch

    training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    total = weight = 0.0
    with torch.no_grad(), _precision(model, config):
        for batch in _parts(ledgers, config):
            nll, weights = weighted_loss(model, batch)
            total, weight = total + nll.item(), weight + weights.item()
    model.train(training)
    return total / weight


def _step(
    model: "PreTrainedModel",
    optimizer: "torch.optim.Optimizer",
    ledgers: Sequence[Ledger],
    config: SFTConfig,
    rate: float,
) -> tuple[float, float]:
    """One update, if its gradient is a number; the loss and the gradient's norm before it."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate
    model.train()
    loss, whole = 0.0, sum(float(ledger.loss_weights[1:].sum()) for ledger in ledgers)
    for batch in _parts(ledgers, config):
        with _precision(model, config):
            nll, _ = weighted_loss(model, batch)
        part = nll / whole  # the parts add up to the loss of the whole batch
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, config.clip))
    if math.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if math.isfinite(norm) and not are_finite(model):
        raise ModelError(f"the weights are not numbers after an update: {_with_lower(config)}")
    return loss, norm


def _with_lower(config: SFTConfig) -> str:
    return (
        "the checkpoint is from before; take a lower learning rate (the same command with --resume "
        f"--learning-rate {config.learning_rate / 10:.3g})"
    )


def _parts(ledgers: Sequence[Ledger], config: SFTConfig) -> Iterator[Batch]:
    """The ledgers in batches that fit the memory, those of about one length together."""
    lengths = np.array([len(ledger) for ledger in ledgers])
    for rows in micro_batches(range(len(ledgers)), lengths, config.micro_tokens):
        yield Batch.of([ledgers[row] for row in rows])


def _precision(model: "PreTrainedModel", config: SFTConfig) -> AbstractContextManager[Any]:
    import torch

    return torch.autocast(model.device.type, torch.bfloat16) if config.bfloat16 else nullcontext()


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


_FIXED = ("model", "weights", "trained", "scale", "ledgers", "seed")
"""What may not differ in a run that goes on: the weights or the place in the data would be others.
"""


def _advice(change: Change) -> str:
    flag = "precision" if change["name"] == "bfloat16" else str(change["name"])
    return f"say --{flag.replace('_', '-')} beside --resume"


def _identity(
    model: "PreTrainedModel", ledgers: Sequence[Ledger], config: SFTConfig, source: Path | None
) -> dict[str, Any]:
    """The settings that a resumed run shares with the one that began, but for those changed in so
    many words; of the ledgers a hash.
    """
    free = ("evaluate_every", "save_every", "patience", "micro_tokens")
    digest = hashlib.blake2b(digest_size=8)
    for ledger in ledgers:
        digest.update(ledger.ids.tobytes() + ledger.loss_weights.tobytes())
    return {
        **{name: value for name, value in asdict(config).items() if name not in free},
        "ledgers": digest.hexdigest(),
        "model": None if source is None else str(source),
        **contents(source, {}),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "scale": lora_scale(model),
    }


def _resumed(state: dict[str, Any] | None) -> tuple[int, SFTReport]:
    if state is None:
        return 0, SFTReport()
    saved = state["report"]
    held_out = {int(step): loss for step, loss in saved["held_out"].items()}
    return int(state["done"]), SFTReport(**saved | {"held_out": held_out})


def _metrics(report: SFTReport, step: int, norm: float, config: SFTConfig) -> dict[str, float]:
    metrics = {
        "loss": report.losses[-1],
        "grad_norm": norm,
        "learning_rate": config.rate(step - 1),
        "tokens": report.tokens,
        "seconds": report.seconds,
        "refused": report.refused,
    }
    if step in report.held_out:
        metrics["held_out/loss"] = report.held_out[step]
    return metrics


def _check(ledgers: Sequence[Ledger], config: SFTConfig) -> None:
    for index, ledger in enumerate(ledgers):
        if len(ledger) > config.max_length:
            raise DataError(
                f"ledger {index} has {len(ledger)} tokens, above max_length {config.max_length}"
            )
        if not ledger.loss_weights[1:].any():
            raise DataError(f"ledger {index} has no token to learn from")

"""The update of trees, with shared beginnings packed and with each leaf computed alone.

    python benchmarks/tree.py [--model nano]

Trees of `--leaves` leaves in `--turns` turns, each with a tool's result but the last, branch in two
at each result until the leaves are spent, from 1, 2 and 4 roots; the last row has no branches, so
that only the prompt is shared. The tokens are drawn at random: what they say plays no part. For
each: the tokens of all rows, the unique ones, those that went through the model (the trainer packs
only where it saves work), seconds of a step of the optimizer both ways (of CPU time on a CPU;
median over rounds whose order alternates) and their ratio, and how far apart the gradients are, as
a share of their norm.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.models.files import find_model
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, Trajectory
from interlace.train.config import TrainConfig
from interlace.train.local.training_setup import load_trainable
from interlace.train.local.update import TrainBatch, UpdateConfig, update
from interlace.train.objectives import find_objective


@dataclass(frozen=True)
class Shape:
    """The sizes of a tree."""

    leaves: int
    turns: int
    prompt: int
    said: int
    result: int


def spans(rng: np.random.Generator, shape: Shape, roots: int) -> Iterator[list[Span]]:
    """The spans of each leaf of a tree."""
    question = Span.given(Source.PROMPT, rng.integers(4, 256, shape.prompt, np.int32))

    def grow(begun: list[Span], turn: int, leaves: int) -> Iterator[list[Span]]:
        said = rng.integers(4, 256, shape.said, np.int32)
        begun = [*begun, Span.policy(said, logprobs=np.full(shape.said, -1.0))]
        if turn == shape.turns:
            yield begun
            return
        begun.append(Span.given(Source.TOOL, rng.integers(4, 256, shape.result, np.int32)))
        for share in (leaves,) if leaves == 1 else (leaves - leaves // 2, leaves // 2):
            yield from grow(begun, turn + 1, share)

    for _ in range(roots):
        yield from grow([question], 1, shape.leaves // roots)


def rows(shape: Shape, roots: int, trees: int) -> TrainBatch:
    """A batch of trees, with rewards drawn at random."""
    rng = np.random.default_rng(roots)
    groups = []
    for number in range(trees):
        task = Task(f"t{number}", "?")
        leaves = [Trajectory("made up", "retool", [Ledger(s)]) for s in spans(rng, shape, roots)]
        groups.append(
            [Episode(f"{task.id}/{n}", task, task.id, n, [leaf]) for n, leaf in enumerate(leaves)]
        )
    scores = [rng.random(len(group)).tolist() for group in groups]
    return TrainBatch.of(groups, scores, find_objective("dapo"))


class Gradient(torch.optim.Optimizer):
    """Keeps the gradient instead of making a step."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__([p for p in model.parameters() if p.requires_grad], {})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Keep it."""
        grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        self.kept = torch.cat(grads).clone()


@dataclass
class Steps:
    """Steps of one kind: their seconds, and the metrics and the gradient of the last."""

    seconds: list[float]
    metrics: dict[str, float]
    gradient: torch.Tensor


def measure(model: Any, batch: TrainBatch, micro_tokens: int, rounds: int) -> Sequence[Steps]:
    """Steps packed and alone."""
    alone = UpdateConfig(find_objective("dapo"), micro_tokens=micro_tokens, clip_norm=1e9)
    found = [Steps([], {}, torch.empty(0)) for _ in range(2)]
    clock = time.perf_counter if model.device.type == "cuda" else time.process_time
    kinds = list(zip(found, (replace(alone, pack_prefixes=True), alone), strict=True))
    for number in range(rounds + 1):
        for steps, config in kinds[:: -1 if number % 2 else 1]:
            optimizer = Gradient(model)
            began = clock()
            steps.metrics = update(model, optimizer, batch, config).metrics
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first warms up
                steps.seconds.append(clock() - began)
            steps.gradient = optimizer.kept
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--leaves", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=200, help="tokens")
    parser.add_argument("--said", type=int, default=60, help="tokens of a turn")
    parser.add_argument("--result", type=int, default=40, help="tokens of a result")
    parser.add_argument("--trees", type=int, default=2, help="a step")
    parser.add_argument("--micro-tokens", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    shape = Shape(args.leaves, args.turns, args.prompt, args.said, args.result)
    model = load_trainable(find_model(args.model), TrainConfig(device=args.device))
    print(f"{args.model}, {args.trees} trees of {shape}, {torch.get_num_threads()} threads")
    print("roots    rows  unique  computed  packed s  alone s  alone / packed  gradients apart")
    for roots in sorted({1, 2, 4, args.leaves}):
        batch = rows(shape, roots, args.trees)
        packed, alone = measure(model, batch, args.micro_tokens, args.rounds)
        unique = _unique(batch)
        ratio = statistics.median(a / b for a, b in zip(alone.seconds, packed.seconds, strict=True))
        apart = float((packed.gradient - alone.gradient).norm() / alone.gradient.norm())
        print(
            f"{roots:5} {packed.metrics['row_tokens']:7.0f} {unique:7} "
            f"{packed.metrics['computed_tokens']:9.0f} {statistics.median(packed.seconds):9.2f} "
            f"{statistics.median(alone.seconds):8.2f} {ratio:15.2f} {apart:16.1e}"
        )


def _unique(batch: TrainBatch) -> int:
    """The number of different beginnings of all rows."""
    ids, lengths = batch.batch.ids, batch.batch.lengths
    return len(
        {
            row[:end].tobytes()
            for row, n in zip(ids, lengths, strict=True)
            for end in range(1, n + 1)
        }
    )


if __name__ == "__main__":
    main()

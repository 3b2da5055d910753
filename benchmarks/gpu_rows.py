"""The rows on our own engine and trainer: what `interlace train` does on one card, in parts."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

import numpy as np
import torch
from engine import Load, interleaved
from gpu_subject import Subject, write_model
from gpu_worker import Found
from torch.profiler import ProfilerActivity, profile

from interlace.rollout.engines import TransformersEngine
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, Trajectory
from interlace.train.local.update import TrainBatch, UpdateConfig, compute_logprobs
from interlace.train.preflight.memory import estimate_local

PACKAGES = ("interlace", "torch", "transformers", "vllm", "trl", "verl", "flash-attn")


# -- rows ------------------------------------------------------------------------------------------


def machine(subject: Subject) -> Iterator[Found]:
    """The card, its driver, and what is installed."""
    if subject.device.type == "cuda":
        card = torch.cuda.get_device_properties(subject.device)
        yield Found("card", card.name)
        yield Found("memory", card.total_memory / 1e9, "GB")
        yield Found("CUDA of torch", str(torch.version.cuda))
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
            yield Found("driver", said.stdout.splitlines()[0].strip())
        except (OSError, subprocess.SubprocessError, IndexError) as error:
            yield Found("driver", None, state="failed", reason=f"nvidia-smi: {error}")
    else:
        yield Found("card", None, state="n/a", reason="on a CPU")
    yield Found("Python", python_version())
    for package in PACKAGES:
        yield _installed(package)


def _installed(package: str) -> Found:
    for name in (package, f"{package}-cpu"):
        try:
            return Found(name, version(name))
        except PackageNotFoundError:
            pass
    return Found(package, None, state="not installed")


def load(subject: Subject) -> Iterator[Found]:
    """The model is written, and loaded twice: for the engine, and to be trained."""
    config, shape = subject.config, subject.plan.shape
    if subject.device.type == "cuda":
        card = torch.cuda.get_device_properties(subject.device).total_memory / 1e9
        problem = estimate_local(config, shape).problem(card)
        if problem is not None:
            raise MemoryError(f"not tried: {problem}")
    yield Found("weights, made up and written", subject.timed(lambda: write_model(subject))[1], "s")
    yield Found("weights", shape.parameters / 1e9, "10^9")
    yield Found("loading engine and trainer", subject.timed(lambda: subject.trainer)[1], "s")


def sampling(subject: Subject) -> Iterator[Found]:
    """Tokens a second, in turns with a tool that answers at once; and our own time for a turn."""
    plan = subject.plan
    subject.roll_out(replace(subject.load, sequences=plan.sequences[0], sampled=4 * plan.turns))
    for count in plan.sequences:
        turns = replace(subject.load, sequences=count)
        own = time.thread_time()
        _, seconds = subject.timed(lambda turns=turns: subject.roll_out(turns))  # type: ignore[misc]
        own = time.thread_time() - own
        yield Found(f"sampled, {count} sequences", count * plan.sampled / seconds, "tokens/s")
    yield Found("our own time for a turn", 1000 * own / (count * plan.turns), "ms")


def agreement(subject: Subject) -> Iterator[Found]:
    """The engine's log-probabilities of what it sampled against the trainer's."""
    folder = write_model(subject)
    for dtype in ("bfloat16", "float32"):
        engine = TransformersEngine.load(folder, device=subject.plan.device, dtype=dtype)
        try:
            subject.hand_over(engine)
            episodes = asyncio.run(interleaved(engine, subject.load, 1))
        finally:
            asyncio.run(engine.aclose())
        recipe = replace(subject.trainer.update_config, bfloat16=dtype == "bfloat16")
        rows = _rows(episodes, recipe)
        counts = rows.weights > 0
        sampled = rows.engine[counts]
        apart = compute_logprobs(subject.setup.model, rows, recipe)[counts] - sampled
        yield Found(f"log-probability, mean, {dtype}", float(sampled.mean()), "nats")
        yield Found(f"apart, mean, {dtype}", float(apart.abs().mean()), "nats")
        yield Found(f"apart, most, {dtype}", float(apart.abs().max()), "nats")
        yield Found(f"trainer's probability / engine's, mean, {dtype}", float(apart.exp().mean()))


def swap(subject: Subject) -> Iterator[Found]:
    """The trainer's weights into the engine."""
    yield Found("trainer's weights into the engine", subject.median(subject.hand_over), "s")


def training(subject: Subject) -> Iterator[Found]:
    """Tokens a second through an update: rows of unlike lengths, padding not counted."""
    plan = subject.plan
    rng = np.random.default_rng(0)
    lengths = rng.integers(plan.lengths[0], plan.lengths[1] + 1, plan.rows)
    rows = _rows(_made_up(lengths, plan.shape.vocabulary), subject.trainer.update_config)
    width = int(lengths.max())
    widest = replace(rows, batch=replace(rows.batch, lengths=np.full(plan.rows, width)))
    ways = {"padded to the longest": widest, "similar lengths together": rows}
    for name, given in ways.items():
        seconds = subject.median(lambda given=given: subject.step(given))  # type: ignore[misc]
        yield Found(f"trained, {name}", int(lengths.sum()) / seconds, "tokens/s")
    share = 100 * (1 - float(lengths.mean()) / width)
    yield Found("padding, to the longest", share, "%")
    yield Found("trained, packed", None, state="missing", reason="not in the trainer yet")


def whole_step(subject: Subject) -> Iterator[Found]:
    """A step without tools, as TRL's row has it: sample, update, hand over."""
    load = replace(subject.load, turns=1)

    def step() -> None:
        subject.step(_rows(subject.roll_out(load), subject.trainer.update_config))
        subject.hand_over()

    thousand = load.sequences * load.sampled / 1000
    yield Found("a step, for 1,000 sampled tokens", subject.median(step) / thousand, "s")


def memory(subject: Subject) -> Iterator[Found]:
    """The highest mark of each phase against what `interlace doctor --train` reckons."""
    plan = subject.plan
    estimate = estimate_local(subject.config, plan.shape)
    longest = subject.config.max_tokens
    full = Load(plan.sequences[-1], longest - 8, 8, 1, 0)
    rows = _rows(
        _made_up(
            np.full(max(2, plan.micro_tokens // plan.lengths[1]), plan.lengths[1]),
            plan.shape.vocabulary,
        ),
        subject.trainer.update_config,
    )
    subject.step(rows)  # the optimizer's moments are there from the first step on
    # The context of CUDA is no tensor. Where there is none, the engine has float32.
    more = 2 * plan.shape.parameters / 1e9 if subject.device.type == "cpu" else 0.0
    for phase, work in (
        ("rolling out", lambda: subject.roll_out(full)),
        ("updating", lambda: subject.step(rows)),
    ):
        subject.forget_peak()
        subject.timed(work)
        parts = [part for part in estimate.phases[phase] if part.name != "CUDA"]
        reckoned = sum(part.gigabytes for part in parts) + more
        yield Found(f"{phase}, estimated", reckoned, "GB")
        yield Found(f"{phase}, measured", subject.peak(), "GB")
        yield Found(f"{phase}, measured / estimated", subject.peak() / reckoned)


def idle(subject: Subject) -> Iterator[Found]:
    """The share of time in which no kernel ran."""
    plan = subject.plan
    lengths = np.full(plan.rows, plan.lengths[1] // 2)
    rows = _rows(_made_up(lengths, plan.shape.vocabulary), subject.trainer.update_config)
    for name, work in (
        ("idle, rollout, tool answers at once", lambda: subject.roll_out(subject.load)),
        ("idle, rollout, tool takes 50 ms", lambda: subject.roll_out(subject.load, in_50_ms)),
        ("idle, update", lambda: subject.step(rows)),
    ):
        work()
        _, seconds = subject.timed(work)
        busy = busy_seconds(subject, work)
        if busy is None:
            yield Found(name, None, state="n/a", reason="no card")
        else:
            yield Found(name, 100 * (1 - busy / seconds), "%")


# -- parts -----------------------------------------------------------------------------------------


def busy_seconds(subject: Subject, work: Callable[[], object]) -> float | None:
    """Seconds in which the card ran a kernel or copied; None where there is no card.

    The profiler makes the host slower and kernels not: what is busy is asked of it, how long all
    takes is not.
    """
    on_card = subject.device.type == "cuda"
    what = ProfilerActivity.CUDA if on_card else ProfilerActivity.CPU
    with profile(activities=[what]) as profiler:
        subject.timed(work)
    assert profiler.profiler is not None
    events: Any = profiler.profiler.kineto_results
    spans = [
        (event.start_ns(), event.end_ns())
        for event in events.events()
        if event.device_type().name == "CUDA" and not event.is_user_annotation()
    ]
    if not on_card:
        return None
    if not spans:
        raise RuntimeError("the profiler saw no kernel")
    return covered(spans) / 1e9


def covered(spans: list[tuple[int, int]]) -> int:
    """The length that spans cover together, what overlaps counted once.

    Example:
        >>> covered([(0, 4), (2, 5), (9, 10)])
        6
    """
    total = end = 0
    for first, last in sorted(spans):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total


def _rows(episodes: list[Episode], recipe: UpdateConfig) -> TrainBatch:
    """One group, whose scores differ, so that there is a gradient."""
    scores = [float(number % 2) for number in range(len(episodes))]
    return TrainBatch.of([episodes], [scores], recipe.objective)


def _made_up(lengths: Any, vocabulary: int) -> list[Episode]:
    """Episodes of those lengths, the first quarter a prompt, of tokens drawn at random."""
    rng = np.random.default_rng(1)
    episodes = []
    for number, length in enumerate(lengths.tolist()):
        ids = rng.integers(0, vocabulary, length, dtype=np.int32)
        prompt = length // 4
        said = Span.policy(ids[prompt:], logprobs=np.full(length - prompt, -5.0, np.float32))
        ledger = Ledger([Span.given(Source.PROMPT, ids[:prompt]), said])
        trajectory = Trajectory("made up", "paced", ledgers=[ledger])
        episodes.append(Episode(str(number), Task("made up", ""), "made up", number, [trajectory]))
    return episodes


async def in_50_ms() -> str:
    """Answer after 50 ms, about what a short cell of Python takes."""
    await asyncio.sleep(0.05)
    return "an answer"

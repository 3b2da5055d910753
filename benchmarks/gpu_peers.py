"""The rows on what may be installed beside us: vLLM under our loop, TRL's trainer, verl."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from engine import interleaved
from gpu_subject import Subject, write_model
from gpu_worker import Found
from train import timed_grpo

__all__ = ["trl", "verl", "vllm"]


def vllm(subject: Subject) -> Iterator[Found]:
    """Tokens a second by vLLM, in turns with a tool that answers at once, contexts kept."""
    from interlace.rollout.engines import VllmEngine

    plan = subject.plan
    options = {"gpu_memory_utilization": 0.5} if subject.device.type == "cuda" else {}
    most = plan.prompt + plan.sampled + plan.turns * plan.forced + 64
    folder = write_model(subject)
    began = time.perf_counter()
    engine = VllmEngine.load(
        folder, max_batch=plan.sequences[-1], max_context=most, options=options
    )
    yield Found("loading the engine", time.perf_counter() - began, "s")
    try:
        asyncio.run(interleaved(engine, subject.load, 0))
        load, figures = subject.load, []
        for run in range(plan.runs):
            began, own = time.perf_counter(), time.thread_time()
            asyncio.run(interleaved(engine, load, 1 + run))
            own = time.thread_time() - own
            figures.append((time.perf_counter() - began, own))
        seconds, own = (statistics.median(column) for column in zip(*figures, strict=True))
        sampled = load.sequences * load.sampled
        yield Found(f"sampled, {load.sequences} sequences", sampled / seconds, "tokens/s")
        yield Found("our own time for a turn", 1000 * own / load.sequences / load.turns, "ms")
    finally:
        asyncio.run(engine.aclose())


def trl(subject: Subject) -> Iterator[Found]:
    """A step of TRL's GRPOTrainer: as many sequences, sampled and prompt tokens as our own row's
    step, in the same precision.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig

    load, steps = subject.load, 1 + subject.plan.runs
    folder = write_model(subject)
    # It wants a token that ends a sequence, and shall not sample it.
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="Ġ0", pad_token="Ġ0")
    auto: Any = AutoModelForCausalLM
    config = subject.config
    with tempfile.TemporaryDirectory() as out:
        arguments = GRPOConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=load.sequences,
            num_generations=load.sequences,
            max_completion_length=load.sampled,
            generation_kwargs={"min_new_tokens": load.sampled},
            learning_rate=config.learning_rate,
            lr_scheduler_type="constant",
            beta=0.0,
            loss_type="dapo",
            temperature=1.0,
            gradient_checkpointing=config.gradient_checkpointing,
            bf16=True,
            use_cpu=subject.device.type == "cpu",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        questions = [f"{number} ".ljust(load.prompt, "?") for number in range(steps)]
        found = timed_grpo(
            {
                "model": auto.from_pretrained(folder, dtype=torch.float32),
                "reward_funcs": _alternate,
                "args": arguments,
                "train_dataset": Dataset.from_dict({"prompt": questions}),
                "processing_class": tokenizer,
            }
        )[1:]
    sampled = statistics.median(step.tokens for step in found)
    assert sampled == load.sequences * load.sampled, f"it sampled {sampled:g} tokens"
    seconds = statistics.median(step.seconds for step in found)
    rollout = statistics.median(step.parts["rollout"] for step in found)
    yield Found(
        f"a step, for 1,000 sampled tokens, TRL {version('trl')}", 1000 * seconds / sampled, "s"
    )
    yield Found("of these for the rollout", 1000 * rollout / sampled, "s")


def _alternate(completions: list[Any], **_: Any) -> list[float]:
    """Rewards that differ, so that there is a gradient."""
    return [float(number % 2) for number in range(len(completions))]


def verl(subject: Subject) -> Iterator[Found]:
    """The import of verl, with our loop and objectives in it; for its trainer see docs/verl.md."""
    began = time.perf_counter()
    core_algos = import_module("verl.trainer.ppo.core_algos")
    import_module("interlace.train.verl.plugin")  # registers both
    yield Found("imported, with our loop and objectives", version("verl"))
    yield Found("policy losses there", float(len(core_algos.POLICY_LOSS_REGISTRY)))
    yield Found("importing it", time.perf_counter() - began, "s")

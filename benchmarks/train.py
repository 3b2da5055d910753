"""A local GRPO step, split into its parts; with --trl beside TRL's GRPOTrainer.

    python benchmarks/train.py [--trl]

The nano policy on word problems that need the Python tool, in Hermes format. Both trainers have the
same weights, prompts, tasks, group size, limits, learning rate and number of threads, and both give
each episode an interpreter of its own from the same sandbox (TRL through `environment_factory`).
They run in this process, in turns, in rounds whose order alternates; the first step of a round is
not counted. What they sample differs, so seconds are also given for 1,000 sampled tokens.

--trl needs `pip install trl`, which no extra brings.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from interlace.rollout.engines import nano
from interlace.rollout.formats import FORMATS
from interlace.rollout.task import Task, equal_answers
from interlace.rollout.trajectory import Episode
from interlace.tools import PythonTool, ToolSession
from interlace.train.config import TrainConfig
from interlace.train.data.generators.catalog import GENERATORS
from interlace.train.local.record import Record
from interlace.train.local.rl import Trainer
from interlace.train.local.training_setup import make_setup

PARTS = ("rollout", "reward", "advantage", "update", "hand_over")
FORMAT = FORMATS["hermes"]


@dataclass(frozen=True)
class Load:
    """What a step is made of."""

    tasks: int
    group: int
    tokens: int
    calls: int
    steps: int


@dataclass(frozen=True)
class Step:
    """What a step took: seconds in all and of its parts, sampled tokens, calls."""

    seconds: float
    tokens: float
    calls: float
    parts: dict[str, float]


def ours(load: Load, tasks: Sequence[Task], folder: Path) -> list[Step]:
    """Steps of the local trainer."""
    file = folder / "tasks.jsonl"
    lines = [{"id": task.id, "question": task.question, "answer": task.answer} for task in tasks]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    config = TrainConfig(
        format=FORMAT.name,
        tasks=str(file),
        objective="grpo",
        steps=load.steps,
        tasks_per_step=load.tasks,
        group_size=load.group,
        max_tokens=load.tokens,
        max_calls=load.calls,
        max_turns=load.calls + 1,
        concurrency=load.tasks * load.group,
        learning_rate=1e-6,
        save_every=load.steps,
        device="cpu",
        out=str(folder / "ours"),
    )
    steps: list[Step] = []
    calls = 0

    def count(step: int, episode: Episode) -> None:
        nonlocal calls
        calls += sum(len(trajectory.calls) for trajectory in episode.trajectories)

    def note(step: int, metrics: dict[str, float]) -> None:
        nonlocal calls
        parts = {name: metrics[f"seconds/{name}"] for name in PARTS}
        steps.append(Step(metrics["seconds"], metrics["tokens"], calls, parts))
        calls = 0

    with make_setup(config, [PythonTool()]) as setup, Record(Path(config.out)) as record:
        Trainer(config, setup).train(record, progress=note, episode=count)
    return steps


# -- TRL -------------------------------------------------------------------------------------------


class Interpreter:
    """One episode's interpreter, as TRL wants it: its public methods are the tools."""

    _loop: asyncio.AbstractEventLoop
    _tool: PythonTool
    calls = 0

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._session: ToolSession | None = None

    def reset(self, **row: object) -> None:
        """A new session for a new episode."""
        self._wait(self._begin())

    def python(self, code: str) -> str:
        """Set below, to the words of the tool itself."""
        assert self._session is not None
        Interpreter.calls += 1
        text: str = self._wait(self._session.call({"code": code}, 10.0)).text
        return text

    python.__doc__ = f"""{PythonTool.description}

    Args:
        code: Python source code, run as one notebook cell.

    Returns:
        What it prints.
    """

    async def _begin(self) -> None:
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self._session = await self._stack.enter_async_context(self._tool.session())

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def interpreters() -> Iterator[None]:
    """An event loop in a thread, and the sandbox held open in it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    Interpreter._loop, Interpreter._tool = loop, PythonTool()
    stack = AsyncExitStack()
    held = stack.enter_async_context(Interpreter._tool)
    asyncio.run_coroutine_threadsafe(held, loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


# How a call is read from the nano policy's words.
CALLS = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


def trl(load: Load, tasks: Sequence[Task], folder: Path) -> list[Step]:
    """Steps of TRL's GRPOTrainer."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig

    tokenizer: Any = AutoTokenizer.from_pretrained(nano.path())
    tokenizer.response_template = CALLS
    auto: Any = AutoModelForCausalLM
    system = {"role": "system", "content": FORMAT.system(())}
    rows = [
        {"prompt": [system, {"role": "user", "content": task.question}], "gold": task.answer}
        for task in tasks
    ]
    arguments = GRPOConfig(
        output_dir=str(folder / "trl"),
        max_steps=load.steps,
        per_device_train_batch_size=load.tasks * load.group,
        num_generations=load.group,
        max_completion_length=load.tokens,
        max_tool_calling_iterations=load.calls,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        beta=0.0,
        loss_type="grpo",
        temperature=1.0,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        shuffle_dataset=False,
    )
    given = {
        "model": auto.from_pretrained(nano.path(), dtype=torch.float32),
        "reward_funcs": _right,
        "args": arguments,
        "train_dataset": Dataset.from_list(rows),
        "processing_class": tokenizer,
        "environment_factory": Interpreter,
    }
    with interpreters():
        return timed_grpo(given)


def timed_grpo(given: dict[str, Any]) -> list[Step]:
    """The steps of TRL's GRPOTrainer, made with these arguments, each with its rollout's time."""
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    steps: list[Step] = []

    class Timed(GRPOTrainer):  # type: ignore[misc]  # comes without types
        """Notes what a step has sampled, and how long that took."""

        sampled = seconds = 0.0

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            began = time.perf_counter()
            batch = super()._generate_and_score_completions(inputs)
            said = batch["completion_mask"]
            self.sampled = float((said * batch.get("tool_mask", torch.ones_like(said))).sum())
            self.seconds = time.perf_counter() - began  # the sum has waited for the card
            return batch

    class Clock(TrainerCallback):
        """One note a step."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            """The step begins with its rollouts."""
            self.began, Interpreter.calls = time.perf_counter(), 0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """The optimizer has made its step."""
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds = time.perf_counter() - self.began
            parts = {"rollout": trainer.seconds, "update": seconds - trainer.seconds}
            steps.append(Step(seconds, trainer.sampled, Interpreter.calls, parts))

    trainer = Timed(**given, callbacks=[Clock()])
    trainer.train()
    return steps


def _right(completions: list[Any], gold: list[str], **_: Any) -> list[float]:
    """1 where the last message holds the answer."""
    said = [str(messages[-1].get("content") or "") for messages in completions]
    answers = [text.rpartition("\\boxed{")[2].partition("}")[0] for text in said]
    return [float(equal_answers(answer, g)) for answer, g in zip(answers, gold, strict=True)]


# -- the table -------------------------------------------------------------------------------------


def per_thousand(steps: Sequence[Step]) -> float:
    """Seconds for 1,000 sampled tokens, over all steps."""
    return 1000 * sum(step.seconds for step in steps) / sum(step.tokens for step in steps)


def show(name: str, steps: Sequence[Step]) -> None:
    """One trainer's table."""
    seconds = statistics.median(step.seconds for step in steps)
    tokens = statistics.mean(step.tokens for step in steps)
    calls = statistics.mean(step.calls for step in steps)
    print(f"{name}: {seconds:.2f} s a step (median of {len(steps)}), {tokens:.0f} tokens sampled,")
    print(f"  {calls:.1f} calls, {per_thousand(steps):.2f} s for 1,000 sampled tokens")
    for part in steps[0].parts:
        values = [step.parts[part] for step in steps]
        share = sum(values) / sum(step.seconds for step in steps)
        print(f"  {part:10} {statistics.median(values):8.3f} s  {share:6.1%}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trl", action="store_true", help="beside TRL's GRPOTrainer")
    parser.add_argument("--tasks", type=int, default=4, help="a step")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256, help="of a response")
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="a round, the first not counted")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    load = Load(args.tasks, args.group, args.tokens, args.calls, args.steps)
    hard = (task for task in GENERATORS["arithmetic"](0, "train") if task.data["needs_tool"])
    tasks = list(islice(hard, load.tasks * load.steps))
    found: dict[str, list[Step]] = {"interlace": [], "trl": []} if args.trl else {"interlace": []}
    for number in range(args.rounds):
        for name in list(found)[:: -1 if number % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                run = ours if name == "interlace" else trl
                found[name] += run(load, tasks, Path(folder))[1:]
    print(f"{load.tasks} tasks x {load.group}, {torch.get_num_threads()} threads")
    for name, steps in found.items():
        show(name, steps)
    if args.trl:
        ratio = per_thousand(found["trl"]) / per_thousand(found["interlace"])
        print(f"trl / interlace, seconds for 1,000 sampled tokens: {ratio:.2f}")


if __name__ == "__main__":
    main()

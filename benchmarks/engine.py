"""The transformers engine under the runner, in interleaved turns, against plain `generate`.

    python benchmarks/engine.py

Both sample the same number of tokens for the same number of sequences from the same model (the
nano policy's size, random weights), in this process, alternating. `generate` samples each sequence
in one go, with nothing between. The engine samples it in turns: the loop parses each, calls a tool
that answers at once, and puts its output (forced tokens) into the ledger, with two
log-probabilities for every token sampled. Turns have a fixed length, so that the counts are equal;
all else is what runs in earnest.

Prefilled again are context tokens that were computed before and computed once more.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers
from transformers import Qwen3Config, Qwen3ForCausalLM

from interlace.rollout.engines import Chunk, Engine, Request, TransformersEngine
from interlace.rollout.formats import Call, Format, Parsed
from interlace.rollout.limits import Limits
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import CallRecord, Episode, FinishReason, StopReason
from interlace.tools import Tool
from interlace.tools.function import FunctionTool
from interlace.train.preflight.model_shapes import Shape

VOCABULARY = 1024


@dataclass(frozen=True)
class Load:
    """How much is sampled."""

    sequences: int
    prompt: int
    sampled: int
    turns: int
    forced: int


NANO = Shape(4, 192, 512, 6, 2, 32, VOCABULARY, tied=False)


def random_model(shape: Shape, *, device: str = "cpu", positions: int = 2048) -> Any:
    """A Qwen3 of that shape with random weights, float32, which never ends by itself."""
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=positions,
        eos_token_id=None,
        bos_token_id=None,
    )
    model: Any = Qwen3ForCausalLM
    with torch.device(device):
        return model(config).eval()


def byte_tokenizer(folder: Path, vocabulary: int = VOCABULARY) -> Tokenizer:
    """A token a byte, numbers besides, and no end of sequence: every turn runs to its limit."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = alphabet + [f"Ġ{number}" for number in range(vocabulary - len(alphabet))]
    fast = Fast(models.BPE({piece: id for id, piece in enumerate(pieces)}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    fast.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


@dataclass(frozen=True)
class Paced(Format):
    """A format in which every turn is a call, until the sequence ends; results are `forced` bytes.

    The stop string is looked for in every token, as in earnest, and never comes.
    """

    forced: int
    name: str = "paced"
    stop: tuple[str, ...] = ("</never>",)
    inline: bool = True
    control_tags: tuple[str, ...] = ()

    def check(self, tools: Sequence[Tool]) -> None:
        """Any tool will do."""

    def system(self, tools: Sequence[Tool]) -> str:
        """Nothing."""
        return ""

    def parse(self, text: str, finish: FinishReason, tools: Sequence[Tool]) -> Parsed:
        """A call, or the end."""
        if finish is FinishReason.EOS:
            return Parsed(answer="done")
        return Parsed(calls=(Call("tool", {}),))

    def render(self, calls: Sequence[CallRecord]) -> str:
        """The output, as many bytes as asked for."""
        return "".join(call.output for call in calls).ljust(self.forced)[: self.forced]


class PacedEngine:
    """The engine, with turns of a fixed length: each stops at it, and the last one ends."""

    def __init__(self, engine: Engine, load: Load) -> None:
        self._engine = engine
        self._load = load
        self._turns: Counter[str | None] = Counter()
        self.name = engine.name
        self.tokenizer = engine.tokenizer
        self.context_length = engine.context_length

    async def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Sample one turn."""
        self._turns[request.context] += 1
        last = self._turns[request.context] == self._load.turns
        paced = replace(request, max_tokens=self._load.sampled // self._load.turns)
        async for chunk in self._engine.generate(paced):
            if chunk.finish is FinishReason.LENGTH:
                chunk = replace(chunk, finish=FinishReason.EOS if last else FinishReason.STOP)
            yield chunk

    async def release(self, context: str) -> None:
        """The sequence is over."""
        del self._turns[context]
        await self._engine.release(context)

    async def aclose(self) -> None:
        """The engine stays open for the next run."""


async def at_once() -> str:
    """Answer at once."""
    return "an answer"


async def interleaved(
    engine: Engine, load: Load, run: int, tool: Callable[[], Awaitable[str]] = at_once
) -> list[Episode]:
    """All sequences at once, each in turns, with a tool's output between."""
    policy = Policy(
        PacedEngine(engine, load),
        Paced(load.forced),
        [FunctionTool(tool, name="tool")],
        # So far off that the model is told of none.
        limits=Limits(
            max_turns=10 * load.turns,
            max_calls=10 * load.turns,
            max_tokens=2 * (load.sampled + load.turns * load.forced),
        ),
    )
    around = len(policy.encoder.prompt("")[0])
    questions = [
        f"{run} {number} ".ljust(load.prompt - around, "?") for number in range(load.sequences)
    ]
    tasks = [Task(str(number), question) for number, question in enumerate(questions)]
    runner = Runner(policy, concurrency=load.sequences)
    episodes = [episode async for episode in runner.run(tasks, seed=run)]
    for episode in episodes:
        assert episode.stop is StopReason.ANSWERED, episode.error
        assert episode.trajectory.sampled_tokens == load.sampled
        assert len(episode.trajectory.ledger) == (
            load.prompt + load.sampled + (load.turns - 1) * load.forced
        )
    return episodes


def prefilled(episodes: list[Episode]) -> tuple[int, int]:
    """Context tokens computed for requests; and how many of them had been computed before."""
    total = again = 0
    for episode in episodes:
        held = 0
        for turn in episode.trajectory.turns:
            total += turn.prefilled
            again += held - turn.cached
            held = turn.stop - 1  # the last token's keys and values come with the next request
    return total, again


def static(model: Any, load: Load) -> None:
    """The same prompts and the same number of sampled tokens in one call of `generate`."""
    ids = torch.randint(0, VOCABULARY, (load.sequences, load.prompt))
    with torch.inference_mode():
        out = model.generate(
            ids.to(model.device),
            attention_mask=torch.ones_like(ids, device=model.device),
            max_new_tokens=load.sampled,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
        )
    assert out.shape == (load.sequences, load.prompt + load.sampled)


def main() -> None:
    """Alternate the two and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--sampled", type=int, default=256)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--forced", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = Load(options.sequences, options.prompt, options.sampled, options.turns, options.forced)
    plain = random_model(NANO).to(options.device)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = byte_tokenizer(Path(folder))
    engine = TransformersEngine(
        random_model(NANO).to(options.device),
        tokenizer,
        name="nano-sized",
        max_batch=load.sequences,
    )
    ours, theirs, processor, counts = [], [], [], []
    for run in range(options.runs + 1):
        begin, busy = time.perf_counter(), time.process_time()
        episodes = asyncio.run(interleaved(engine, load, run))
        middle, busy_middle = time.perf_counter(), time.process_time()
        static(plain, load)
        end = time.perf_counter()
        if run:  # the first is to warm up
            ours.append(load.sequences * load.sampled / (middle - begin))
            theirs.append(load.sequences * load.sampled / (end - middle))
            processor.append((time.process_time() - busy_middle) / (busy_middle - busy))
            counts.append(prefilled(episodes))
    asyncio.run(engine.aclose())
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    computed, again = (sum(column) for column in zip(*counts, strict=True))
    result = {
        "sequences": load.sequences,
        "threads": torch.get_num_threads(),
        "engine_tokens_per_second": round(statistics.median(ours)),
        "generate_tokens_per_second": round(statistics.median(theirs)),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_runs": [round(ratio, 2) for ratio in ratios],
        # Of processor seconds, which other programs on the machine disturb less.
        "processor_ratio_median": round(statistics.median(processor), 2),
        "prefilled": computed,
        "prefilled_again_percent": round(100 * again / computed, 2),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{load.sequences} sequences, {load.sampled} sampled tokens each, {options.runs} runs")
    for name, value in result.items():
        print(f"{name.replace('_', ' '):>28}  {value}")


if __name__ == "__main__":
    main()

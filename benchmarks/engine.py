"""The transformers engine through interleaved turns, against plain batched `generate`.

    python benchmarks/engine.py

Both sample the same number of tokens for the same number of sequences from the same model (the
nano policy's size, random weights), in this process, alternating. `generate` samples each sequence
in one go: it has no tools to wait for. The engine samples it in turns, with forced tokens between
them as a tool would give, and notes two log-probabilities of every token.

Prefilled again are context tokens that were computed before and computed once more.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as Fast
from tokenizers import models
from transformers import Qwen3Config, Qwen3ForCausalLM

from interlace.rollout.engines import Request, Sampling, TransformersEngine
from interlace.rollout.tokenizer import Tokenizer

VOCABULARY = 1024


@dataclass(frozen=True)
class Load:
    """How much is sampled."""

    sequences: int
    prompt: int
    sampled: int
    turns: int
    forced: int


@dataclass
class Tokens:
    """What one run computed."""

    sampled: int = 0
    prefilled: int = 0
    again: int = 0


def nano() -> Any:
    """A model of the nano policy's size with random weights."""
    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=512,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        eos_token_id=None,
        bos_token_id=None,
    )
    model: Any = Qwen3ForCausalLM
    return model(config).eval()


def words(folder: Path) -> Tokenizer:
    """A tokenizer without an end-of-sequence token: every request runs to its limit."""
    vocabulary = {f"w{id}": id for id in range(VOCABULARY)}
    fast = Fast(models.WordLevel(vocabulary, unk_token="w0"))
    fast.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


async def interleaved(engine: TransformersEngine, load: Load, run: int) -> Tokens:
    """All sequences at once, each in turns, with a tool's output of forced tokens between."""
    tokens = Tokens()

    async def sequence(number: int) -> None:
        name = f"{run}/{number}"
        random = np.random.default_rng((run, number))
        ids = random.integers(0, VOCABULARY, load.prompt).astype(np.int32)
        known = 0  # tokens whose keys and values were computed
        for turn in range(load.turns):
            seed = number * load.turns + turn
            request = Request(
                ids,
                load.sampled // load.turns,
                Sampling(seed=seed),
                stop=("</never>",),
                context=name,
            )
            async for chunk in engine.generate(request):
                ids = np.concatenate([ids, np.array(chunk.ids, np.int32)])
                tokens.sampled += len(chunk.ids)
                tokens.prefilled += chunk.prefilled
                if chunk.prefilled:
                    tokens.again += known - chunk.cached
            known = len(ids) - 1  # the last token's come with the next request
            ids = np.concatenate([ids, random.integers(0, VOCABULARY, load.forced, np.int32)])
        await engine.release(name)

    await asyncio.gather(*(sequence(number) for number in range(load.sequences)))
    return tokens


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
    plain = nano().to(options.device)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = words(Path(folder))
    engine = TransformersEngine(
        nano().to(options.device), tokenizer, name="nano-sized", max_batch=load.sequences
    )
    ours, theirs, totals = [], [], Tokens()
    for run in range(options.runs + 1):
        begin = time.perf_counter()
        tokens = asyncio.run(interleaved(engine, load, run))
        middle = time.perf_counter()
        static(plain, load)
        end = time.perf_counter()
        assert tokens.sampled == load.sequences * load.sampled
        if run:  # the first is to warm up
            ours.append(tokens.sampled / (middle - begin))
            theirs.append(tokens.sampled / (end - middle))
            totals.prefilled += tokens.prefilled
            totals.again += tokens.again
    asyncio.run(engine.aclose())
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    result = {
        "sequences": load.sequences,
        "threads": torch.get_num_threads(),
        "engine_tokens_per_second": round(statistics.median(ours)),
        "generate_tokens_per_second": round(statistics.median(theirs)),
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_runs": [round(ratio, 2) for ratio in ratios],
        "prefilled": totals.prefilled,
        "prefilled_again_percent": round(100 * totals.again / totals.prefilled, 2),
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{load.sequences} sequences, {load.sampled} sampled tokens each, {options.runs} runs")
    for name, value in result.items():
        print(f"{name.replace('_', ' '):>28}  {value}")


if __name__ == "__main__":
    main()

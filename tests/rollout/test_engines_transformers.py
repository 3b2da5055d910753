"""The transformers engine: what it says it sampled is what the model says, whatever runs beside."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from support.engine_helpers import (
    SAMPLINGS,
    ask,
    assert_identity,
    ids_of,
    plain_logits,
    plain_model,
    prompts,
    sample,
    span_of,
    truncated,
)
from support.tiny_models import checkpoint

from interlace.rollout.engines import (
    Chunk,
    Sampling,
    TransformersEngine,
)
from interlace.rollout.ledger import Ledger, Source, Span

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama"])
def model_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp(request.param) / "model", request.param)


async def several_turns(
    engine: TransformersEngine, number: int, prompt: list[int], sampling: Sampling
) -> Ledger:
    """A trajectory of four turns, with forced tokens of its own and waits between them."""
    ledger = Ledger([Span.given(Source.PROMPT, prompt)])
    for turn in range(4):
        chunks = await sample(
            engine,
            ledger.ids,
            3 + (number * 7 + turn * 5) % 20,
            sampling=sampling,
            context=f"t{number}",
        )
        ledger.append(span_of(chunks))
        await asyncio.sleep(0.002 * ((number + turn) % 4))
        ledger.append(Span.given(Source.TOOL, [(number + turn + at) % 256 for at in range(1, 9)]))
    await engine.release(f"t{number}")
    return ledger


@pytest.mark.parametrize("max_batch", [3, 64])
def test_logprobs_are_those_of_a_plain_forward_pass_after_interleaved_turns(
    model_path: Path, max_batch: int
) -> None:
    engine = TransformersEngine.load(model_path, device="cpu", max_batch=max_batch)

    async def run() -> list[Ledger]:
        turns = [
            several_turns(engine, number, prompt, SAMPLINGS[number % len(SAMPLINGS)])
            for number, prompt in enumerate(prompts(15))
        ]
        ledgers = await asyncio.gather(*turns)
        await engine.aclose()
        return list(ledgers)

    plain = plain_model(model_path)
    for number, ledger in enumerate(asyncio.run(run())):
        assert_identity(plain, ledger, SAMPLINGS[number % len(SAMPLINGS)])


def test_greedy_tokens_are_those_of_generate(model_path: Path) -> None:
    engine = TransformersEngine.load(model_path, device="cpu")
    plain = plain_model(model_path)
    (eos,) = engine.tokenizer.eos_ids

    async def run() -> list[list[Chunk]]:
        greedy = Sampling(temperature=0)
        found = await asyncio.gather(
            *(sample(engine, prompt, 40, sampling=greedy) for prompt in prompts(6))
        )
        await engine.aclose()
        return list(found)

    for prompt, chunks in zip(prompts(6), asyncio.run(run()), strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            expected = plain.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=40,
                do_sample=False,
                eos_token_id=eos,
                pad_token_id=0,
            )
        assert ids_of(chunks) == expected[0, len(prompt) :].tolist()


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch(
    engine: TransformersEngine,
) -> None:
    sampling = Sampling(seed=5, top_p=0.95)
    alone = ids_of(ask(engine, [1, 2, 3], 60, sampling=sampling))

    async def crowd() -> list[int]:
        others = [sample(engine, prompt, 30) for prompt in prompts(9)]
        mine = sample(engine, [1, 2, 3], 60, sampling=sampling)
        return ids_of((await asyncio.gather(*others[:5], mine, *others[5:]))[5])

    assert asyncio.run(crowd()) == alone
    other = ids_of(ask(engine, [1, 2, 3], 60, sampling=Sampling(seed=6, top_p=0.95)))
    assert other != alone


def test_frequencies_are_those_of_the_documented_distribution(qwen3: Path) -> None:
    engine = TransformersEngine.load(qwen3, device="cpu")
    plain = plain_model(qwen3)
    sampling = {"temperature": 1.5, "top_k": 30, "top_p": 0.8}
    draws = 2000

    async def run() -> list[list[Chunk]]:
        requests = [
            sample(engine, [7, 8, 9], 1, sampling=Sampling(seed=seed, **sampling))  # type: ignore[arg-type]
            for seed in range(draws)
        ]
        found = await asyncio.gather(*requests)
        await engine.aclose()
        return list(found)

    counts = np.bincount([ids_of(chunks)[0] for chunks in asyncio.run(run())], minlength=300)
    logits = plain_logits(plain, np.array([7, 8, 9, 0], np.int32))[-1]
    expected = draws * np.exp(truncated(logits, Sampling(**sampling)))  # type: ignore[arg-type]
    counts = counts[: len(expected)]
    assert not counts[expected == 0].any()
    kept = expected > 0
    # Chi-squared: its mean is the degrees of freedom, its variance twice that; the seeds are fixed.
    chi = float(((counts[kept] - expected[kept]) ** 2 / expected[kept]).sum())
    freedom = int(kept.sum()) - 1
    assert freedom > 5
    assert chi < freedom + 4 * (2 * freedom) ** 0.5


def test_a_context_is_computed_once_and_reused_as_far_as_it_is_the_same(
    engine: TransformersEngine,
) -> None:
    prompt = list(range(1, 21))
    first = ask(engine, prompt, 10, context="a")
    assert (first[0].prefilled, first[0].cached) == (20, 0)
    context = prompt + ids_of(first)
    second = ask(engine, [*context, 5, 6], 4, context="a")
    assert (second[0].prefilled, second[0].cached) == (3, 29)  # the last sampled one, and the new
    changed = [*context[:12], 99, *context[13:]]
    third = ask(engine, changed, 4, context="a", sampling=Sampling(temperature=0))
    assert third[0].cached == 12
    fresh = ask(engine, changed, 4, sampling=Sampling(temperature=0))
    assert (fresh[0].cached, ids_of(fresh)) == (0, ids_of(third))
    asyncio.run(engine.release("a"))
    assert ask(engine, changed, 1, context="a")[0].cached == 0


def test_the_samples_of_one_prompt_compute_it_once(qwen3: Path) -> None:
    engine = TransformersEngine.load(qwen3, device="cpu")
    system, question = [7] * 50, [8] * 40

    async def run(prompts: list[list[int]]) -> list[list[Chunk]]:
        asked = [
            sample(engine, prompt, 30, sampling=Sampling(seed=seed))
            for seed, prompt in enumerate(prompts)
        ]
        return list(await asyncio.gather(*asked))

    group = asyncio.run(run([system + question] * 6))
    assert sorted(chunks[0].prefilled for chunks in group) == [1] * 5 + [90]
    others = asyncio.run(run([system + [token] * 40 for token in range(6)]))
    assert sorted(chunks[0].prefilled for chunks in others) == [40] * 5 + [90]
    for seed, chunks in enumerate(group):
        alone = ask(engine, system + question, 30, sampling=Sampling(seed=seed))
        assert (alone[0].cached, ids_of(alone)) == (0, ids_of(chunks))
    asyncio.run(engine.aclose())


def test_the_contexts_that_were_unused_longest_go_first_and_can_be_reopened(qwen3: Path) -> None:
    bytes_per_token = 2 * 2 * 2 * 32 * 4  # layers, keys and values, heads, head_dim, float32
    engine = TransformersEngine.load(qwen3, device="cpu", kept_bytes=60 * bytes_per_token)
    prompts = {name: [ord(name)] * 20 for name in "abc"}
    greedy = Sampling(temperature=0)
    for name in "aba":  # "b" is now the one unused longest
        ask(engine, prompts[name], 5, context=name, sampling=greedy)
    ask(engine, prompts["c"], 5, context="c", sampling=greedy)
    again = {
        name: ask(engine, prompts[name], 5, context=name, sampling=greedy) for name in ("a", "b")
    }
    assert (again["a"][0].cached, again["b"][0].cached) == (19, 0)
    for name, chunks in again.items():
        assert ids_of(chunks) == ids_of(ask(engine, prompts[name], 5, sampling=greedy))
    asyncio.run(engine.aclose())

"""The transformers engine: what it says it sampled is what the model says, whatever runs beside."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import checkpoint
from tokenizers import Tokenizer as Fast
from tokenizers import models
from torch import nn
from transformers import AutoModelForCausalLM

from interlace.rollout.engines import (
    Chunk,
    EngineError,
    Request,
    Sampling,
    TransformersEngine,
)
from interlace.rollout.ledger import Ids, Ledger, Source, Span
from interlace.rollout.trajectory import Finish

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama"])
def model_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp(request.param) / "model", request.param)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("one") / "model")


@pytest.fixture
def engine(qwen3: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine.load(qwen3, device="cpu", max_batch=4)
    yield engine
    asyncio.run(engine.aclose())


async def sample(engine: TransformersEngine, ids: Any, count: int, **rest: Any) -> list[Chunk]:
    request = Request(np.array(ids, np.int32), count, **rest)
    async with aclosing(engine.generate(request)) as chunks:
        return [chunk async for chunk in chunks]


def ask(engine: TransformersEngine, ids: Any, count: int, **rest: Any) -> list[Chunk]:
    return asyncio.run(sample(engine, ids, count, **rest))


def ids_of(chunks: list[Chunk]) -> list[int]:
    return [id for chunk in chunks for id in chunk.ids]


def span_of(chunks: list[Chunk]) -> Span:
    raw = [x for chunk in chunks for x in chunk.raw_logprobs or ()]
    return Span.policy(
        ids_of(chunks),
        logprobs=[x for chunk in chunks for x in chunk.logprobs or ()],
        raw_logprobs=raw or None,
        version=chunks[0].version,
    )


def plain_model(path: Path) -> Any:
    """The model as transformers loads it, with its own attention."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(path)
    return loaded.eval()


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, random.integers(1, 60)).tolist() for _ in range(count)]


def plain_logits(model: nn.Module, ids: Ids) -> NDArray[np.float32]:
    """The logits before each token but the first, (n - 1, vocabulary), by one forward pass."""
    with torch.inference_mode():
        logits = model(torch.tensor(ids.astype(np.int64))[None]).logits
    result: NDArray[np.float32] = logits[0, :-1].float().numpy()
    return result


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    x: NDArray[np.float64] = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x


def truncated(logits: NDArray[np.float32], sampling: Sampling) -> NDArray[np.float64]:
    """The documented distribution for one token, by the book: temperature, top-k, then top-p."""
    p = np.exp(log_softmax(logits / sampling.temperature))
    order = np.argsort(-p, kind="stable")
    if sampling.top_k:
        p[order[sampling.top_k :]] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= sampling.top_p]] = 0
    logprobs = np.full(len(p), -np.inf)
    np.log(p / p.sum(), where=p > 0, out=logprobs)
    return logprobs


def assert_identity(model: nn.Module, ledger: Ledger, sampling: Sampling) -> None:
    """Every log-probability in a finished ledger is that of a plain forward pass over its ids."""
    logits = plain_logits(model, ledger.ids)
    at = 0
    for span in ledger:
        if span.source is Source.POLICY:
            before = logits[at - 1 : at - 1 + len(span)]
            picked = np.arange(len(span)), span.ids
            assert span.logprobs is not None
            raw = span.logprobs if span.raw_logprobs is None else span.raw_logprobs
            assert np.abs(raw - log_softmax(before)[picked]).max() <= 1e-4
            drawn_from = np.zeros((len(before), before.shape[1]))
            if sampling.temperature == 0:
                assert (before[picked] >= before.max(-1) - 1e-4).all()
            else:
                drawn_from = np.stack([truncated(one, sampling) for one in before])
            assert np.abs(span.logprobs - drawn_from[picked]).max() <= 1e-4
        at += len(span)


SAMPLINGS = [
    Sampling(seed=1),
    Sampling(temperature=0.0),
    Sampling(temperature=0.7, seed=2),
    Sampling(top_k=20, top_p=0.9, temperature=1.3, seed=3),
    Sampling(top_p=0.6, seed=4),
]


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


def test_a_stop_ends_the_request_after_the_token_it_lies_in(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, vocab_size=400)
    words = Fast(models.WordLevel({f"w{id}": id for id in range(400)}, unk_token="w0"))
    words.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text("{}")
    engine = TransformersEngine.load(path, device="cpu")
    seeded = Sampling(seed=0)
    free = ids_of(ask(engine, [1], 200, sampling=seeded))
    chunks = ask(engine, [1], 200, sampling=seeded, stop=("w9", " w35"))
    end = next(at for at, id in enumerate(free) if str(id).startswith(("9", "35")))
    assert (ids_of(chunks), chunks[-1].finish) == (free[: end + 1], Finish.STOP)
    assert len(str(free[end])) > 1 + (str(free[end])[0] == "3")  # more of the token than the stop
    asyncio.run(engine.aclose())


def test_the_end_of_sequence_and_the_limits_end_a_request(engine: TransformersEngine) -> None:
    (eos,) = engine.tokenizer.eos_ids
    ended = next(
        chunks
        for seed in range(50)
        if (chunks := ask(engine, [3], 400, sampling=Sampling(seed=seed)))[-1].finish is Finish.EOS
    )
    assert ids_of(ended).count(eos) == 1
    assert ids_of(ended)[-1] == eos
    nearly_full = ask(engine, [3] * (engine.context_length - 2), 50, sampling=Sampling(seed=0))
    assert (len(ids_of(nearly_full)), nearly_full[-1].finish) == (2, Finish.LENGTH)
    (full,) = ask(engine, [3] * engine.context_length, 50)
    assert (full.ids, full.finish) == ((), Finish.LENGTH)
    for wrong in ([], [100_000], [-1]):
        with pytest.raises(EngineError, match="context"):
            ask(engine, wrong, 5)


def test_a_long_prompt_is_computed_in_parts_while_others_go_on(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, max_position_embeddings=8192)
    engine = TransformersEngine.load(path, device="cpu")
    plain = plain_model(path)
    long = np.random.default_rng(0).integers(0, 256, 5000).tolist()
    # The short ones end one by one, in the middle of the batch, while the long one is filled.
    prompts = [[1, 2], [3], [4, 5], [6], [7], long, long[:3000]]
    counts = [1, 20, 2, 30, 3, 20, 20]

    async def run() -> list[list[Chunk]]:
        asked = [sample(engine, *one) for one in zip(prompts, counts, strict=True)]
        found = await asyncio.gather(*asked)
        await engine.aclose()
        return list(found)

    for prompt, chunks in zip(prompts, asyncio.run(run()), strict=True):
        ledger = Ledger([Span.given(Source.PROMPT, prompt), span_of(chunks)])
        assert_identity(plain, ledger, Sampling())


def test_closing_the_stream_cancels_and_the_trajectory_can_go_on(
    engine: TransformersEngine,
) -> None:
    async def run() -> tuple[list[int], list[Chunk]]:
        async with aclosing(
            engine.generate(Request(np.array([1, 2], np.int32), 400, context="a"))
        ) as stream:
            chunk = await anext(stream)
        others = await asyncio.gather(*(sample(engine, [n], 5) for n in range(8)))
        assert all(others)
        ids = [1, 2, *chunk.ids]
        greedy = Sampling(temperature=0)
        return ids, await sample(engine, ids, 5, context="a", sampling=greedy)

    ids, chunks = asyncio.run(run())
    assert chunks[0].cached >= len(ids) - 1
    assert ids_of(chunks) == ids_of(ask(engine, ids, 5, sampling=Sampling(temperature=0)))


def test_new_weights_count_from_the_next_request_on(tmp_path: Path, qwen3: Path) -> None:
    engine = TransformersEngine.load(qwen3, device="cpu")
    new = plain_model(checkpoint(tmp_path, seed=1))

    async def run() -> tuple[list[Chunk], list[Chunk]]:
        started = asyncio.create_task(sample(engine, [1, 2], 300, context="a"))
        await asyncio.sleep(0.01)
        assert await engine.update_weights(new.state_dict()) == 1
        before = await started
        return before, await sample(engine, [1, 2, *ids_of(before)][:100], 20, context="a")

    before, after = asyncio.run(run())
    assert {chunk.version for chunk in before} == {0}
    assert {chunk.version for chunk in after} == {1}
    assert after[0].cached == 0
    prompt = [1, 2]
    old = plain_model(qwen3)
    ledger = Ledger([Span.given(Source.PROMPT, prompt), span_of(before)])
    assert_identity(old, ledger, Sampling())
    context = [*prompt, *ids_of(before)][:100]
    ledger = Ledger([Span.given(Source.PROMPT, context), span_of(after)])
    assert_identity(new, ledger, Sampling())

    wrong = new.state_dict() | {"model.norm.weight": torch.ones(3)}
    with pytest.raises(ValueError, match=r"model\.norm\.weight"):
        asyncio.run(engine.update_weights(wrong))
    assert engine.version == 1
    asyncio.run(engine.aclose())


def test_closing_the_engine_ends_requests_in_flight_with_what_they_have(qwen3: Path) -> None:
    engine = TransformersEngine.load(qwen3, device="cpu", max_batch=2)

    async def run() -> list[list[Chunk]]:
        asked = [asyncio.create_task(sample(engine, [n], 400)) for n in range(4)]
        await asyncio.sleep(0.05)
        await engine.aclose()
        return await asyncio.gather(*asked)

    found = asyncio.run(run())
    assert Finish.CANCELLED in {chunks[-1].finish for chunks in found}
    with pytest.raises(EngineError, match="closed"):
        ask(engine, [1], 5)


class Fault:
    """Makes the model's forward pass raise from the `after`-th call on, `times` times."""

    def __init__(self, error: BaseException, after: int, times: int) -> None:
        self.error, self.after, self.times = error, after, times

    def __call__(self, module: nn.Module, arguments: object) -> None:
        self.after -= 1
        if self.after < 0 and self.times:
            self.times -= 1
            raise self.error


def broken_by(path: Path, fault: Fault) -> TransformersEngine:
    loaded = TransformersEngine.load(path, device="cpu", max_batch=3)
    loaded._batch.model.register_forward_pre_hook(fault)
    return loaded


async def all_of(engine: TransformersEngine) -> list[Any]:
    asked = [sample(engine, [n], 50) for n in range(6)]
    return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)


def test_a_crash_fails_what_is_in_flight_and_hangs_nobody(
    qwen3: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = broken_by(qwen3, Fault(ZeroDivisionError("a bug"), after=5, times=1))
    for error in asyncio.run(all_of(engine)):
        assert isinstance(error, EngineError)
        assert "ZeroDivisionError: a bug" in str(error)
    with pytest.raises(EngineError, match="a bug"):
        ask(engine, [1], 5)
    assert "a bug" in caplog.text
    asyncio.run(engine.aclose())


def test_out_of_memory_fails_what_runs_and_the_engine_serves_on(qwen3: Path) -> None:
    engine = broken_by(qwen3, Fault(torch.OutOfMemoryError("no room"), after=5, times=1))
    errors = [one for one in asyncio.run(all_of(engine)) if isinstance(one, EngineError)]
    assert len(errors) == 3
    assert all("max_batch" in str(error) for error in errors)
    assert len(ids_of(ask(engine, [1], 5, sampling=Sampling(seed=0)))) == 5
    asyncio.run(engine.aclose())


def test_weights_that_give_nan_are_told(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    engine = TransformersEngine.load(path, device="cpu")
    state = dict(plain_model(path).state_dict())
    state["model.norm.weight"] = torch.full_like(state["model.norm.weight"], torch.nan)
    asyncio.run(engine.update_weights(state))
    with pytest.raises(EngineError, match="NaN"):
        ask(engine, [1], 5)
    asyncio.run(engine.aclose())

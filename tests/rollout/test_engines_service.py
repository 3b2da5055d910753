"""The transformers engine as a service: how requests end, new weights, and faults."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.engine_helpers import (
    ask,
    assert_identity,
    ids_of,
    plain_model,
    sample,
    span_of,
)
from support.tiny_models import checkpoint
from tokenizers import Tokenizer as Fast
from tokenizers import models
from torch import nn

from interlace.rollout.engines import (
    Chunk,
    EngineError,
    Request,
    Sampling,
    TransformersEngine,
)
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.trajectory import FinishReason

torch.set_num_threads(1)


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
    assert (ids_of(chunks), chunks[-1].finish) == (free[: end + 1], FinishReason.STOP)
    assert len(str(free[end])) > 1 + (str(free[end])[0] == "3")  # more of the token than the stop
    asyncio.run(engine.aclose())


def test_the_end_of_sequence_and_the_limits_end_a_request(engine: TransformersEngine) -> None:
    (eos,) = engine.tokenizer.eos_ids
    ended = next(
        chunks
        for seed in range(50)
        if (chunks := ask(engine, [3], 400, sampling=Sampling(seed=seed)))[-1].finish
        is FinishReason.EOS
    )
    assert ids_of(ended).count(eos) == 1
    assert ids_of(ended)[-1] == eos
    nearly_full = ask(engine, [3] * (engine.context_length - 2), 50, sampling=Sampling(seed=0))
    assert (len(ids_of(nearly_full)), nearly_full[-1].finish) == (2, FinishReason.LENGTH)
    (full,) = ask(engine, [3] * engine.context_length, 50)
    assert (full.ids, full.finish) == ((), FinishReason.LENGTH)
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
        request = Request(np.array([1, 2], np.int32), 300, context="a")
        async with aclosing(engine.generate(request)) as stream:
            before = [await anext(stream)]  # it is under way
            update = asyncio.create_task(engine.update_weights(new.state_dict()))
            before += [chunk async for chunk in stream]
        assert await update == 1
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
    assert FinishReason.CANCELLED in {chunks[-1].finish for chunks in found}
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
    # Seeds with which none of them ends by itself before the fault.
    asked = [sample(engine, [n], 50, sampling=Sampling(seed=n)) for n in range(6)]
    return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 240)


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


def test_weights_that_fit_but_can_not_be_copied_stop_the_engine(
    qwen3: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = TransformersEngine.load(qwen3, device="cpu")
    state = dict(plain_model(qwen3).state_dict())
    state["model.norm.weight"] = state["model.norm.weight"].to("meta")  # the shape, no numbers
    with pytest.raises(EngineError, match="half replaced"):
        asyncio.run(asyncio.wait_for(engine.update_weights(state), 240))
    with pytest.raises(EngineError, match="half-way"):
        ask(engine, [1], 5)
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

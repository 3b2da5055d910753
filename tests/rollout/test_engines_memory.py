"""The transformers engine where memory runs out: the bundled model, faults where it allocates."""

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.engine_helpers import ask, ids_of, plain_model, sample
from support.fakes import NANO

from interlace.rollout.engines import Chunk, EngineError, Sampling, TransformersEngine
from interlace.rollout.engines.local.attention import KeyValues
from interlace.rollout.trajectory import FinishReason

torch.set_num_threads(1)

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more advice")


class Memory:
    """A machine that has room for so many positions of the cache, old and new ones together."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, positions: int) -> None:
        self.refused = 0
        grow = KeyValues.grow

        def scarce(cache: KeyValues, rows: int, length: int) -> None:
            if rows * length > positions:
                self.refused += 1
                raise FULL
            grow(cache, rows, length)

        monkeypatch.setattr(KeyValues, "grow", scarce)


@pytest.fixture
def load() -> Any:
    engines = []

    def load(**settings: Any) -> TransformersEngine:
        engines.append(TransformersEngine.load(NANO, device="cpu", **settings))
        return engines[-1]

    yield load
    for engine in engines:
        asyncio.run(engine.aclose())


def prompts(count: int, length: int) -> list[list[int]]:
    """Contexts that begin in different ways."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, length).tolist() for _ in range(count)]


async def together(engine: TransformersEngine, asked: list[list[int]], tokens: int) -> list[Any]:
    """All at once, each drawn with its own seed; so hot that the model does not find an end."""
    samplings = [Sampling(temperature=3.0, seed=seed) for seed in range(len(asked))]
    work = [
        sample(engine, ids, tokens, sampling=sampling)
        for ids, sampling in zip(asked, samplings, strict=True)
    ]
    return await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 240)


def test_who_has_no_room_waits_and_the_others_never_notice(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., TransformersEngine]
) -> None:
    asked = prompts(6, 100)
    alone = [ids_of(asyncio.run(together(load(), [ids], 40))[0]) for ids in asked[:1]]
    free: list[list[Chunk]] = asyncio.run(together(load(), asked, 40))
    memory = Memory(monkeypatch, 3 * 192)
    found: list[list[Chunk]] = asyncio.run(together(load(), asked, 40))
    assert memory.refused
    assert ids_of(found[0]) == alone[0]
    assert [ids_of(chunks) for chunks in found] == [ids_of(chunks) for chunks in free]


def test_a_context_that_never_fits_fails_alone(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., TransformersEngine]
) -> None:
    engine = load()
    asked = prompts(3, 40)
    asked[1] = prompts(1, 700)[0]
    Memory(monkeypatch, 4 * 128)
    one, error, other = asyncio.run(together(engine, asked, 20))
    assert ids_of(one) and ids_of(other)
    assert isinstance(error, EngineError)
    assert "700 tokens" in str(error) and "smaller model" in str(error) and "\n" not in str(error)


def test_rows_that_outgrow_the_memory_take_turns_and_sample_the_same(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., TransformersEngine]
) -> None:
    """All fit when they come; while they sample there is room for ever fewer of them."""
    asked = prompts(4, 21)
    plain = plain_model(NANO)
    free: list[list[Chunk]] = asyncio.run(together(load(), asked, 200))
    memory = Memory(monkeypatch, 3 * 128)
    found: list[list[Chunk]] = asyncio.run(together(load(), asked, 200))
    assert memory.refused
    assert [ids_of(chunks) for chunks in found] == [ids_of(chunks) for chunks in free]
    for ids, chunks in zip(asked, found, strict=True):
        assert chunks[-1].finish in (FinishReason.EOS, FinishReason.LENGTH)
        context = torch.tensor([[*ids, *ids_of(chunks)]])
        with torch.inference_mode():
            logprobs = plain(context).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        expected = logprobs.gather(1, context[0, len(ids) :, None])[:, 0].numpy()
        given = [x for chunk in chunks for x in chunk.raw_logprobs or ()]
        assert np.abs(expected - given).max() <= 1e-4


def test_one_row_that_outgrows_the_memory_fails_and_the_engine_serves_on(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., TransformersEngine]
) -> None:
    engine = load()
    Memory(monkeypatch, 64)
    with pytest.raises(EngineError, match="out of memory"):
        ask(engine, prompts(1, 60)[0], 100, sampling=Sampling(seed=0))
    assert ask(engine, [1, 2], 3)[-1].finish is FinishReason.LENGTH


def test_what_is_kept_goes_before_anybody_waits(
    monkeypatch: pytest.MonkeyPatch, load: Callable[..., TransformersEngine]
) -> None:
    engine = load()
    first, second = prompts(2, 50)
    held = ids_of(ask(engine, first, 5, context="a"))
    takes = KeyValues.take

    def fails(cache: KeyValues, row: int, length: int) -> torch.Tensor:
        raise FULL

    monkeypatch.setattr(KeyValues, "take", fails)
    assert ids_of(ask(engine, second, 5, context="b"))  # its end finds no room to keep its context
    monkeypatch.setattr(KeyValues, "take", takes)
    again = ask(engine, [*first, *held], 5, context="a")
    assert again[0].cached == 0  # dropped, and computed anew
    assert ask(engine, [*first, *held, *ids_of(again)], 5, context="a")[0].cached > 50


def test_a_step_without_room_drops_what_is_kept_and_is_tried_again(
    load: Callable[..., TransformersEngine],
) -> None:
    engine = load()
    first, second = prompts(2, 50)
    hot = Sampling(temperature=3.0, seed=5)
    wanted = ids_of(ask(engine, second, 30, sampling=hot))
    ask(engine, first, 5, context="a")
    calls: list[int] = []

    def fault(module: object, arguments: object) -> None:
        calls.append(len(calls))
        if len(calls) in (1, 10):
            raise FULL

    engine._batch.model.register_forward_pre_hook(fault)
    # The first time what is kept goes, and the second time nothing is left to go without.
    with pytest.raises(EngineError, match="Tried to allocate 2 GiB"):
        ask(engine, second, 30, sampling=hot)
    assert len(calls) == 10
    assert ids_of(ask(engine, second, 30, sampling=hot)) == wanted

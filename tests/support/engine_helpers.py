"""Asking an engine, and a plain model beside it."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoModelForCausalLM

from interlace.rollout.engines import Chunk, Request, Sampling, TransformersEngine
from interlace.rollout.ledger import Ids, Ledger, Source, Span


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

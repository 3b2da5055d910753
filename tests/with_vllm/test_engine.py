"""The vllm engine on the real vLLM: what it says it sampled is what the model says."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.engine_helpers import plain_model
from support.fakes import NANO
from support.reference_model import assert_forward

from interlace.rollout.engines import Chunk, Engine, Request, Sampling, VllmEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.ledger import Ids, Ledger, Source, Span
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import FinishReason, StopReason, Trajectory
from interlace.tools import PythonTool

QUESTIONS = [
    "A crate holds 4387 bolts. How many bolts are in 296 crates?",
    "What is 812 * 77?",
    "What is 65019 - 4387?",
]


class PerTurn:
    """The engine, without what it keeps: every request is a new one."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = engine
        self.name = engine.name
        self.tokenizer = engine.tokenizer
        self.context_length = engine.context_length

    def generate(self, request: Request) -> AsyncGenerator[Chunk, None]:
        return self._engine.generate(replace(request, context=None))

    async def release(self, context: str) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def sample(engine: Engine, ids: Any, count: int, **rest: Any) -> list[Chunk]:
    request = Request(np.array(ids, np.int32), count, **rest)
    return [chunk async for chunk in engine.generate(request)]


async def talk(policy: Policy, questions: Sequence[Sequence[str]]) -> list[Trajectory]:
    """Rollouts at the same time, each asked one list of questions."""

    async def one(number: int) -> Trajectory:
        async with Rollout(policy, name=f"{policy.sampling}{number}", seed=number) as rollout:
            for question in questions[number]:
                await rollout.ask(question)
            return rollout.trajectory

    return await asyncio.gather(*map(one, range(len(questions))))


def span_of(chunks: list[Chunk]) -> Span:
    raw = [x for chunk in chunks for x in chunk.raw_logprobs or ()]
    return Span.policy(
        [id for chunk in chunks for id in chunk.ids],
        logprobs=[x for chunk in chunks for x in chunk.logprobs or ()],
        raw_logprobs=raw or None,
        version=chunks[-1].version,
    )


def prompt_of(engine: VllmEngine, text: str = QUESTIONS[0]) -> Ids:
    return np.array(engine.tokenizer.encode(text), np.int32)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.9, top_k=50), Sampling(0.0)]
)
def test_logprobs_are_those_of_a_forward_pass_after_tool_turns(
    engine: VllmEngine, kept: bool, sampling: Sampling
) -> None:
    assert len(engine.tokenizer.encode("</code>")) > 1

    async def go() -> list[Trajectory]:
        served: Engine = engine if kept else PerTurn(engine)
        policy = Policy(served, FORMATS["retool"], [PythonTool(sessions=3)], sampling=sampling)
        orders = [QUESTIONS[number:] + QUESTIONS[:number] for number in range(3)]
        return await talk(policy, orders)

    trajectories = asyncio.run(go())
    assert sum(len(trajectory.calls) for trajectory in trajectories) >= 6
    models = {engine.version: plain_model(NANO)}
    for trajectory in trajectories:
        assert trajectory.token_exact
        for ledger in trajectory.ledgers:
            assert assert_forward(models, ledger, sampling) > 10
        if kept:
            for before, turn in zip(trajectory.turns, trajectory.turns[1:], strict=False):
                if before.ledger == turn.ledger:  # the last token sampled, and what is new
                    assert turn.prefilled <= turn.start - before.stop + 1
            assert not any(turn.overshoot for turn in trajectory.turns)


@pytest.mark.parametrize(("by_path", "context"), [(True, "w"), (False, "w"), (False, None)])
def test_new_weights_are_taken_in_place_and_kept_contexts_begin_anew(
    engine: VllmEngine, tmp_path: Path, by_path: bool, context: str | None
) -> None:
    old, new = plain_model(NANO), plain_model(NANO)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.mul_(1.05)
    new.save_pretrained(tmp_path)
    ledger = Ledger([Span.given(Source.PROMPT, prompt_of(engine))])
    first = engine.version

    async def go() -> None:
        for turn in range(3):
            chunks = await sample(engine, ledger.ids, 20, context=context)
            assert chunks[-1].finish in (FinishReason.LENGTH, FinishReason.EOS)
            if context or turn == 2:
                assert (chunks[0].cached == 0) == (turn != 1)
            ledger.append(span_of(chunks))
            ledger.append(Span.given(Source.TOOL, [turn + 5, 6, 7]))
            if turn == 1:
                weights = tmp_path if by_path else new.state_dict()
                assert await engine.update_weights(weights) == first + 1
        await engine.release("w")
        with pytest.raises(ValueError, match="missing"):
            await engine.update_weights({})
        assert await engine.update_weights(NANO) == first + 2

    asyncio.run(go())
    assert assert_forward({first: old, first + 1: new}, ledger, Sampling()) > 3
    assert {first, first + 1} == {span.version for span in ledger if span.source is Source.POLICY}


@pytest.mark.parametrize("context", ["s", None])
def test_a_stop_inside_a_token_ends_with_the_token_and_the_context_goes_on(
    engine: VllmEngine, context: str | None
) -> None:
    tokenizer, prompt = engine.tokenizer, prompt_of(engine)
    greedy = Sampling(temperature=0)

    async def go() -> tuple[list[Chunk], list[Chunk], int]:
        free = span_of(await sample(engine, prompt, 40, sampling=greedy)).ids.tolist()
        texts = [tokenizer.decode([id]) for id in free]
        at = next(n for n in range(3, 40) if len(texts[n]) > 1 and texts[n].isascii())
        stop = "".join(texts[at - 2 : at]) + texts[at][0]
        asked = {"sampling": greedy, "stop": (stop,), "context": context}
        first = await sample(engine, prompt, 40, **asked)
        ids = np.concatenate([prompt, span_of(first).ids, [3, 4, 5]])
        return first, await sample(engine, ids, 5, **asked), at + 1

    first, second, expected = asyncio.run(go())
    assert first[-1].finish is FinishReason.STOP
    assert len(span_of(first).ids) <= expected  # the text may come earlier
    if context:
        held = len(prompt) + len(span_of(first).ids) - 1
        assert (second[0].cached, second[0].prefilled) == (held, 4)
        asyncio.run(engine.release(context))


@pytest.mark.parametrize("kept", [True, False])
def test_a_branch_finds_the_whole_blocks_of_a_context_that_waits(
    engine: VllmEngine, kept: bool
) -> None:
    block = int(engine._llm.vllm_config.cache_config.block_size)
    random = np.random.default_rng(kept)  # a prompt that no other test has asked
    prompt = random.integers(300, 3000, 5 * block // 2) % len(engine.tokenizer)
    served: Engine = engine if kept else PerTurn(engine)

    async def go() -> tuple[Ids, Chunk]:
        first = await sample(served, prompt, block, context="trunk", sampling=Sampling(seed=1))
        ids = np.concatenate([prompt, span_of(first).ids, [3, 4, 5]]).astype(np.int32)
        before = engine.figures["kept"]
        branch = await sample(served, ids, 2, context="branch", sampling=Sampling(seed=2))
        assert before == engine.figures["kept"] - kept  # the trunk still waits, beside it
        for name in ("trunk", "branch"):
            await engine.release(name)
        return ids, branch[0]

    ids, chunk = asyncio.run(go())
    # The block that the trunk's last token is in is not full; what the tool said is new.
    assert chunk.cached >= (len(ids) - 4) // block * block
    assert chunk.cached + chunk.prefilled == len(ids)


def test_tokens_that_only_look_like_a_stop_do_not_end_it(engine: VllmEngine) -> None:
    # Any token that begins with one of these characters might complete one of the stops.
    stops = tuple(f"\x01\x02{character}" for character in " 0123456789etao")
    prompt, before = prompt_of(engine), engine.figures["false_alarms"]
    chunks = asyncio.run(sample(engine, prompt, 60, stop=stops, context="f"))
    asyncio.run(engine.release("f"))
    assert engine.figures["false_alarms"] > before + 5
    assert chunks[-1].finish in (FinishReason.LENGTH, FinishReason.EOS)
    ledger = Ledger([Span.given(Source.PROMPT, prompt), span_of(chunks)])
    assert_forward({engine.version: plain_model(NANO)}, ledger, Sampling())


def test_a_context_that_is_let_go_begins_anew(engine: VllmEngine) -> None:
    contexts = engine._service._contexts
    assert contexts is not None
    prompt, before = prompt_of(engine), engine.figures["evicted"]

    async def go(evicted: Any) -> list[Chunk]:
        first = await sample(engine, prompt, 10, context="g")
        ids = np.concatenate([prompt, span_of(first).ids])
        await evicted()
        second = await sample(engine, ids, 30, context="g")
        await engine.release("g")
        ledger = Ledger([Span.given(Source.PROMPT, prompt), span_of(first), span_of(second)])
        assert_forward({engine.version: plain_model(NANO)}, ledger, Sampling())
        return second

    async def for_room() -> None:
        engine._thread.call(contexts.make_room)

    contexts.seconds = 0.05
    late = asyncio.run(go(lambda: asyncio.sleep(1.0)))
    contexts.seconds = 120.0
    crowded = asyncio.run(go(for_room))
    assert engine.figures["evicted"] == before + 2
    for chunks in (late, crowded):  # of what was held, whole blocks at most
        assert chunks[0].cached + chunks[0].prefilled >= len(prompt) + 10
        assert chunks[0].cached % 16 == 0


def test_prompts_of_more_tokens_than_a_step_takes_are_served_with_their_seeds(
    engine: VllmEngine,
) -> None:
    prompts = [prompt_of(engine, f"{number} is a number. " * 60) for number in range(16)]
    assert sum(map(len, prompts)) > 4096

    async def go() -> list[list[Chunk]]:
        asked = [sample(engine, ids, 4, sampling=Sampling(seed=7)) for ids in prompts]
        return await asyncio.gather(*asked)

    drawn = [[id for chunk in chunks for id in chunk.ids] for chunks in asyncio.run(go())]
    assert [len(ids) for ids in drawn] == [4] * 16
    again = [[id for chunk in chunks for id in chunk.ids] for chunks in asyncio.run(go())]
    assert again == drawn


@pytest.mark.parametrize("over", ["data_parallel_size", "tensor_parallel_size"])
def test_two_engines_or_two_halves_of_one_say_what_the_model_says(
    over: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # or each wants a part of the memory
    engine = VllmEngine.load(NANO, device="cpu", max_batch=8, options={over: 2})
    old, new = plain_model(NANO), plain_model(NANO)
    with torch.no_grad():
        for weight in new.parameters():
            weight.add_(
                0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )

    async def go() -> list[Trajectory]:
        policy = Policy(engine, FORMATS["retool"], [PythonTool(sessions=2)], sampling=Sampling())
        try:
            before = await talk(policy, [QUESTIONS[:1]] * 12)
            await engine.update_weights(new.state_dict())
            return [*before, *await talk(policy, [QUESTIONS[:1]] * 12)]
        finally:
            await engine.aclose()

    trajectories = asyncio.run(go())
    later = [turn for trajectory in trajectories for turn in trajectory.turns[1:]]
    assert later and all(turn.cached for turn in later)  # what was kept is found, wherever it is
    for number, trajectory in enumerate(trajectories):
        assert {span.version for span in trajectory.ledger if span.logprobs is not None} == {
            number // 12
        }
        assert_forward({0: old, 1: new}, trajectory.ledger, Sampling())


def test_contexts_are_let_go_when_memory_runs_low() -> None:
    """Sixteen trajectories, and blocks for three."""
    options = {"kv_cache_memory_bytes": 3 * 1024 * 2048}  # nano: 2,048 bytes a token
    engine = VllmEngine.load(NANO, device="cpu", max_batch=8, max_context=1024, options=options)

    async def go() -> list[Trajectory]:
        policy = Policy(engine, FORMATS["retool"], [PythonTool(sessions=4)], sampling=Sampling())
        try:
            return await talk(policy, [QUESTIONS] * 16)
        finally:
            await engine.aclose()

    trajectories = asyncio.run(go())
    assert engine.figures["evicted"] > 0
    models = {0: plain_model(NANO)}
    for trajectory in trajectories:
        assert trajectory.stop is not StopReason.INFRASTRUCTURE
        for ledger in trajectory.ledgers:
            assert_forward(models, ledger, Sampling())


def test_closing_a_request_stops_it(engine: VllmEngine) -> None:
    async def go() -> None:
        asked = Request(prompt_of(engine), 1500, context="a")
        for _ in range(20):  # more than there are places
            chunks = engine.generate(asked)
            async for _chunk in chunks:
                break
            await chunks.aclose()
        for _ in range(100):
            if not engine._llm.output_processor.get_num_unfinished_requests():
                break
            await asyncio.sleep(0.1)
        assert not engine._llm.output_processor.get_num_unfinished_requests()
        assert not engine.figures["kept"]
        assert len(await sample(engine, prompt_of(engine), 5)) >= 1

    asyncio.run(go())

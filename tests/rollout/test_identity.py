"""The identity everything rests on: what the engine says it sampled with is what a plain forward
pass over the finished ledger gives, at every policy token, after several tool turns.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from interlace.rollout.engines import Request, Sampling, TransformersEngine, nano
from interlace.rollout.formats import FORMATS, Encoder
from interlace.rollout.ledger import Ledger, Span
from interlace.rollout.loop import Rollout
from interlace.rollout.models.files import find_model
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import CallRecord, Trajectory
from interlace.tools import PythonTool

QUESTIONS = [
    "A crate holds 4387 bolts. How many bolts are in 296 crates?",
    "What is 812 * 77?",
    "What is 65019 - 4387?",
]


def plain_logprobs(path: Path, ledger: Ledger) -> np.ndarray:
    """Log-probabilities of the ledger's own tokens, from one forward pass, float32 (n,)."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    ids = torch.from_numpy(ledger.ids.astype(np.int64))[None]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, :-1].float()
    picked = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return np.concatenate([[np.nan], picked.numpy()]).astype(np.float32)


def check(path: Path, ledger: Ledger) -> None:
    mask = ledger.response_mask
    assert mask.any()
    expected = plain_logprobs(path, ledger)[mask]
    np.testing.assert_allclose(ledger.raw_logprobs[mask], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("format", ["retool", "hermes"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.9, top_k=50)])
def test_nano_in_conversations_with_tool_turns(format: str, sampling: Sampling) -> None:
    async def go() -> list[Trajectory]:
        engine = TransformersEngine.load(nano.path(), device="cpu")
        policy = Policy(engine, FORMATS[format], [PythonTool(sessions=3)], sampling=sampling)

        async def talk(number: int) -> Trajectory:
            async with Rollout(policy, name=str(number), seed=number) as rollout:
                for question in QUESTIONS[number:] + QUESTIONS[:number]:
                    await rollout.ask(question)
                return rollout.trajectory

        try:
            return await asyncio.gather(*map(talk, range(3)))
        finally:
            await engine.aclose()

    trajectories = asyncio.run(go())
    assert sum(len(trajectory.calls) for trajectory in trajectories) >= 6
    for trajectory in trajectories:
        for ledger in trajectory.ledgers:
            check(nano.path(), ledger)


@pytest.mark.slow
def test_smollm2_with_its_own_chat_template() -> None:
    """It does not call tools by itself yet, so each of its turns is answered with a result."""
    path = find_model("smollm2")

    async def go() -> Ledger:
        engine = TransformersEngine.load(path, device="cpu", dtype="float32")
        encoder = Encoder(FORMATS["hermes"], engine.tokenizer, [PythonTool()])
        ledger = Ledger(encoder.prompt(QUESTIONS[0]))
        try:
            for turn in range(4):
                ids: list[int] = []
                raw: list[float] = []
                request = Request(ledger.ids, 24, Sampling(seed=turn), context="t")
                async for chunk in engine.generate(request):
                    ids += chunk.ids
                    raw += chunk.logprobs or ()
                ledger.append(Span.policy(ids, logprobs=raw))
                ended = ids[-1] in engine.tokenizer.eos_ids
                call = CallRecord("python", {"code": "4387 * 296"}, "1298552")
                for span in encoder.results([call], ended=ended):
                    ledger.append(span)
        finally:
            await engine.aclose()
        return ledger

    check(path, asyncio.run(go()))

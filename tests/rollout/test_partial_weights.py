"""New weights in the middle of a turn: each token's log-probability is that of its own weights."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny_models import checkpoint

from interlace.rollout.engines import TransformersEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.ledger import Source
from interlace.rollout.limits import Limits
from interlace.rollout.many.rounds import PartialRollouts
from interlace.rollout.many.runner import Runner
from interlace.rollout.policy import Policy
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode


@pytest.mark.parametrize("n", [2])
def test_a_turn_goes_on_under_new_weights_and_says_so(tmp_path: Path, n: int) -> None:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    folder = checkpoint(tmp_path / "model")
    engine = TransformersEngine.load(folder, device="cpu")
    old, new = auto.from_pretrained(folder), auto.from_pretrained(folder)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.mul_(1.1)
    # One long turn, handed over about 25 times a second.
    limits = Limits(max_turns=1, max_tokens=300)
    runner = Runner(Policy(engine, FORMATS["retool"], limits=limits))

    async def go() -> list[Episode]:
        async with PartialRollouts(runner, [Task("a", "?")], n=n, seed=0) as rollouts:
            assert await rollouts.round(tokens=1) == []
            await engine.update_weights(new.state_dict())
            (group,) = await rollouts.round()
            return group

    group = asyncio.run(go())
    asyncio.run(engine.aclose())
    assert len(group) == n
    for episode in group:
        trajectory = episode.trajectory
        assert len(trajectory.turns) == 1 and trajectory.token_exact
        ledger = trajectory.ledger
        versions = [span.version for span in ledger if span.source is Source.POLICY]
        assert versions == [0, 1]
        ids = torch.tensor(ledger.ids[None].astype(np.int64))
        for version, model in enumerate((old, new)):
            with torch.inference_mode():
                logits = model(ids).logits[0, :-1].log_softmax(-1)
            expected = logits.gather(-1, ids[0, 1:, None])[:, 0].numpy()
            mine = ledger.versions[1:] == version
            assert mine.sum() > 0
            np.testing.assert_allclose(ledger.logprobs[1:][mine], expected[mine], atol=1e-3)

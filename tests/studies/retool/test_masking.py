"""The mask on real calls: what an interpreter wrote has an advantage, and causes no gradient."""

import asyncio
from itertools import islice
from typing import Any

import pytest
import torch
from studies.retool.masking import forget_sources
from transformers import AutoModelForCausalLM, PreTrainedModel

from interlace.rollout.engines import nano
from interlace.rollout.formats import FORMATS
from interlace.rollout.many.runner import Runner
from interlace.rollout.models.load import load_engine
from interlace.rollout.policy import Policy
from interlace.rollout.trajectory import Episode
from interlace.tools import PythonTool
from interlace.train.data.generators.arithmetic import Arithmetic
from interlace.train.local.update import TrainBatch, UpdateConfig, update
from interlace.train.objectives import OBJECTIVES

SCORES = [1.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def groups() -> list[list[Episode]]:
    """Two groups of three attempts by the bundled policy, with a real interpreter."""

    async def roll_out() -> list[list[Episode]]:
        engine = load_engine("nano", device="cpu")
        policy = Policy(engine, FORMATS["retool"], [PythonTool()])
        tasks = list(islice(Arithmetic(3, "test", needs_tool=True), 2))
        found = [group async for group in Runner(policy).groups(tasks, n=len(SCORES), seed=0)]
        await engine.aclose()
        return found

    return asyncio.run(roll_out())


def caused(groups: list[list[Episode]]) -> tuple[torch.Tensor, TrainBatch]:
    """How much gradient each token causes as a target, (B, T-1), where all have an advantage."""
    rows = TrainBatch.of(groups, [SCORES] * len(groups), OBJECTIVES["grpo"])
    strongest = rows.advantages.abs().argmax(dim=1, keepdim=True)
    rows.advantages = rows.advantages.gather(1, strongest).expand_as(rows.advantages).contiguous()
    rows = rows.take(sorted(rows.trained, key=lambda row: (int(rows.batch.lengths[row]), row)))
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(nano.path())
    model.eval()  # type: ignore[no-untyped-call]
    seen: list[torch.Tensor] = []

    def watch(module: torch.nn.Module, given: object, hidden: torch.Tensor) -> None:
        hidden.register_hook(seen.append)  # type: ignore[no-untyped-call]

    norm: Any = model.base_model.norm
    hook = norm.register_forward_hook(watch)
    recipe = UpdateConfig(OBJECTIVES["grpo"], micro_tokens=10**9, importance=None)
    update(model, torch.optim.SGD(model.parameters(), lr=0.0), rows, recipe)
    hook.remove()
    return seen[0][:, :-1].abs().sum(-1), rows


@pytest.mark.slow
def test_a_real_tools_tokens_have_an_advantage_and_cause_no_gradient(
    groups: list[list[Episode]],
) -> None:
    assert all(episode.trajectory.calls for group in groups for episode in group)
    found, rows = caused(groups)
    width = found.shape[1] + 1
    policys = torch.from_numpy(rows.batch.mask)[:, 1:width]
    inside = torch.arange(1, width) < torch.from_numpy(rows.batch.lengths)[:, None]
    tools = inside & (policys.cumsum(dim=1) > 0) & ~policys
    assert tools.sum() > 30
    assert (rows.advantages[:, 1:width][tools] != 0).all()
    assert (found[tools] == 0).all()
    assert (found[policys] > 0).float().mean() > 0.5  # of the certain ones it is rounded away


@pytest.mark.slow
def test_without_the_mask_a_tools_tokens_outweigh_the_policys_own(
    groups: list[list[Episode]],
) -> None:
    """What was never sampled is unlikely, and an unlikely token causes a large gradient."""
    found, rows = caused(groups)
    width = found.shape[1] + 1
    policys = torch.from_numpy(rows.batch.mask)[:, 1:width]
    forgotten = [[forget_sources(episode) for episode in group] for group in groups]
    unmasked, same = caused(forgotten)
    assert (same.batch.ids == rows.batch.ids).all()
    tools = torch.from_numpy(same.batch.mask)[:, 1:width] & ~policys
    assert unmasked[tools].mean() > 3 * unmasked[policys].mean()

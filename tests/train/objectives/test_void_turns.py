"""Which turns are void, as the loop records them, and which trajectories are left out for it."""

import asyncio

import numpy as np
import pytest
from support.fakes import NANO, Echo, answer, code

from interlace.rollout.engines.scripted import Reply, ScriptedEngine
from interlace.rollout.formats import FORMATS
from interlace.rollout.limits import Limits
from interlace.rollout.loop import Rollout
from interlace.rollout.policy import Policy
from interlace.rollout.tokenizer import Tokenizer
from interlace.rollout.trajectory import Trajectory
from interlace.train.objectives import keep_mask, void_turns

BROKEN = '<tool_call>\n{"name": "python", "argum\n</tool_call>'


def roll(script: list[Reply], form: str = "retool", limits: Limits | None = None) -> Trajectory:
    async def go() -> Trajectory:
        engine = ScriptedEngine(Tokenizer.load(NANO), script)
        policy = Policy(engine, FORMATS[form], [Echo()], limits=limits)
        async with Rollout(policy, name="t", seed=1) as rollout:
            return await rollout.ask("How many?")

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("script", "limits", "void"),
    [
        ([code("say 7"), answer("7")], None, []),
        ([answer("7")], None, []),
        ([code("fail"), answer("7")], None, []),  # a call that failed is a call
        ([code("say 1"), code("say 2")], Limits(max_turns=2), []),  # so is one that was refused
        (["I give up."], None, [0]),
        ([code("say 7"), "So it is seven."], None, [1]),
        ([code("say 7"), "and on " * 400], Limits(max_tokens=200), [1]),
        ([code("say 7"), RuntimeError("the engine is gone")], None, []),  # ours
        ([code("bug")], None, []),  # ours, too
    ],
)
def test_a_turn_is_void_that_neither_calls_nor_answers(
    script: list[Reply], limits: Limits | None, void: list[int]
) -> None:
    assert void_turns(roll(script, limits=limits)) == void


def test_a_call_that_can_not_be_read_is_none() -> None:
    trajectory = roll([BROKEN, "The answer is \\boxed{7}."], form="hermes")
    assert [call.arguments for call in trajectory.calls] == [None]
    assert void_turns(trajectory) == [0]


def test_a_trajectory_with_a_void_turn_is_left_out_whole() -> None:
    good, bad = roll([code("say 7"), answer("7")]), roll([code("say 7"), "So it is seven."])
    keep = keep_mask([good, bad, good])
    assert keep.dtype == np.bool_
    assert keep.tolist() == [True, False, True]
    assert keep_mask([]).shape == (0,)

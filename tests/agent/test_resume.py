"""A log is completed only by the command that began it."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from interlace.agent.cli.answering import make_agent
from interlace.agent.cli.options import LimitOptions, ModelOptions
from interlace.agent.cli.resume import _OPTIONS, refuse_other
from interlace.rollout.engines import Sampling
from interlace.rollout.limits import Limits
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, Trajectory
from interlace.tools.errors import UsageError

SETTINGS: dict[str, Any] = {
    "model": "nano",
    "format": "retool",
    "sampling": {"temperature": 1.0, "top_p": 1.0, "top_k": 0},
    "limits": {"turns": 16, "calls": 16},
    "tools": {"python": "ab12"},
    "n": 4,
    "seed": 7,
}


def recorded(**changes: Any) -> Episode:
    settings = SETTINGS | changes
    trajectory = Trajectory(settings["model"], settings["format"])
    return Episode("a/0", Task("a", "q"), "a", 0, [trajectory], settings=settings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "smollm2"}, "--model nano, not smollm2"),
        ({"format": "hermes"}, "--format retool, not hermes"),
        ({"sampling": {"temperature": 0.5}}, "--temperature 1.0, not 0.5"),
        ({"limits": {"turns": 2}}, "--max-turns 16, not 2"),
        ({"seed": 8}, "--seed 7, not 8"),
        ({"n": 2}, "--n 4, not 2"),
        ({"tools": {}}, "--tool python, not --tool none"),
        ({"tools": {"sql": "cd"}}, "--tool python, not --tool sql"),
        ({"tools": {"python": "cd"}}, "a tool python of which the model was told something else"),
    ],
)
def test_the_first_difference_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=rf"^t\.jsonl was written with {says}: resume it"):
        refuse_other(Path("t.jsonl"), recorded(), SETTINGS | changes)


def test_the_same_command_more_attempts_and_what_is_not_known_are_no_difference() -> None:
    log = Path("t.jsonl")
    refuse_other(log, recorded(), SETTINGS)
    refuse_other(log, recorded(), SETTINGS | {"n": 8, "seed": None, "format": None})
    old = recorded()
    old.settings = {}
    refuse_other(log, old, SETTINGS | {"n": 1, "seed": 1})
    with pytest.raises(UsageError, match="--model nano, not smollm2"):
        refuse_other(log, old, SETTINGS | {"model": "smollm2"})


def test_every_limit_and_every_way_to_sample_has_an_option_that_is_compared() -> None:
    given = LimitOptions(**{field.name: 3 for field in fields(LimitOptions)})
    agent = make_agent(ModelOptions(top_p=0.5, top_k=3, seed=3), given, temperature=0.5)
    assert agent.limits == Limits(**{field.name: 3 for field in fields(Limits)})
    assert agent.sampling == Sampling(0.5, 0.5, 3, 3)
    names = {field.name for kind in (Limits, Sampling) for field in fields(kind)}
    assert names <= set(_OPTIONS)

"""The table of objectives: complete, documented, light to import, and each of them learns."""

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Collection
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from interlace.tools.errors import UsageError
from interlace.train.objectives import (
    ADVANTAGES,
    AGGREGATIONS,
    IMPORTANCE_LEVELS,
    KL_ESTIMATORS,
    OBJECTIVES,
    POLICY_LOSSES,
    find_objective,
    informative,
    outcome_rewards,
)

PAGE = Path(__file__).parents[3] / "docs/objectives.md"
PARTS: dict[str, Callable[..., Any]] = {**ADVANTAGES, **POLICY_LOSSES}


def test_every_table_stands_in_the_page_name_by_name() -> None:
    page = PAGE.read_text(encoding="utf-8")
    tables: dict[str, Collection[str]] = {
        "OBJECTIVES": OBJECTIVES,
        "ADVANTAGES": ADVANTAGES,
        "POLICY_LOSSES": POLICY_LOSSES,
        "AGGREGATIONS": AGGREGATIONS,
        "KL_ESTIMATORS": KL_ESTIMATORS,
        "IMPORTANCE_LEVELS": IMPORTANCE_LEVELS,
    }
    for title, table in tables.items():
        written = page.split(f"| `{title}` |")[1].split("\n\n")[0]
        assert re.findall(r"^\| `([^`]+)` \|", written, re.MULTILINE) == list(table)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_says_what_it_is_in_one_line_and_where_it_comes_from(name: str) -> None:
    objective = OBJECTIVES[name]
    assert objective.name == name
    assert 20 <= len(objective.summary) <= 90
    assert "\n" not in objective.summary
    assert objective.paper in PAGE.read_text(encoding="utf-8")
    assert objective.advantage in ADVANTAGES.values()
    assert objective.loss in POLICY_LOSSES.values()
    assert objective.loss_agg_mode in AGGREGATIONS


@pytest.mark.parametrize("part", PARTS)
def test_every_part_tells_formula_source_and_how_verl_differs(part: str) -> None:
    text = inspect.getdoc(PARTS[part]) or ""
    assert re.search(r"^    .* = ", text, re.MULTILINE), "no formula"
    for word in ("Source:", "verl:", "TRL"):
        assert word in text


@pytest.mark.parametrize("part", PARTS)
def test_every_part_takes_what_verl_passes(part: str) -> None:
    given = "token_level_rewards response_mask index config reward_baselines"
    if part in POLICY_LOSSES:
        given = "old_log_prob log_prob advantages response_mask loss_agg_mode config"
        given += " rollout_is_weights"
    inspect.signature(PARTS[part]).bind(**dict.fromkeys(given.split()))


def test_listing_objectives_loads_no_torch() -> None:
    code = """
import sys
from interlace.train.objectives import OBJECTIVES
assert all(objective.summary for objective in OBJECTIVES.values())
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_objective_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown objective .ppo.; choose from grpo, dr_grpo"):
        find_objective("ppo")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_makes_the_rewarded_responses_likelier(name: str) -> None:
    """A policy over two binary digits, rewarded for 11; all sixteen responses a step in four
    groups, two updates each, so that ratios leave 1. The chance of 11 starts at 1/4.
    """
    objective = OBJECTIVES[name]
    logits = torch.zeros(2, 2, requires_grad=True)  # (place, digit)
    optimizer = torch.optim.SGD([logits], lr=0.5)
    sampled = torch.tensor(list(product((0, 1), repeat=2)) * 4)  # (16, 2)
    index = [number // 4 for number in range(16)]
    scores = (sampled.sum(dim=1) == 2).float()
    assert informative(scores.tolist(), index).all()
    mask = torch.ones(16, 2)
    advantages, _ = objective.advantage(outcome_rewards(scores, mask), mask, index)
    chances = [0.25]
    for _ in range(10):
        old = logits.detach().log_softmax(dim=1)[torch.arange(2), sampled]
        for _ in range(2):
            new = logits.log_softmax(dim=1)[torch.arange(2), sampled]
            loss, _ = objective.loss(
                old, new, advantages, mask, objective.loss_agg_mode, objective.config
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        chances.append(logits.detach().softmax(dim=1)[:, 1].prod().item())
    assert chances == sorted(chances)
    assert chances[-1] > 0.3

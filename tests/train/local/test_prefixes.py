"""Rows that begin alike are computed once: the gradient is the sum over the rows all the same."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import NANO
from support.tiny_models import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, Trajectory
from interlace.tools.errors import ModelError
from interlace.train.local.logprobs import check_packing
from interlace.train.local.prefixes import Layout, Pack, find_packs
from interlace.train.local.update import TrainBatch, UpdateConfig, compute_logprobs, update
from interlace.train.objectives import OBJECTIVES

Row = list[tuple[int, bool]]
"""The tokens of a row, and whether the policy wrote them."""


@cache
def nano(dtype: torch.dtype) -> PreTrainedModel:
    auto: Any = AutoModelForCausalLM
    model: Any = auto.from_pretrained(NANO, dtype=dtype).eval()
    if dtype == torch.float64:  # transformers computes these in float32, whatever is asked for
        for name, norm in list(model.named_modules()):
            if type(norm).__name__.endswith("RMSNorm"):
                exact = torch.nn.RMSNorm(norm.weight.shape, norm.variance_epsilon, dtype=dtype)
                exact.weight = norm.weight
                model.set_submodule(name, exact)
    return model  # type: ignore[no-any-return]


@cache
def small(kind: str, dtype: torch.dtype) -> PreTrainedModel:
    """SmolLM2 (llama), Qwen2 and a model whose norms are exact in float64, with random weights."""
    sizes = {
        "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 128,
        "max_position_embeddings": 256, "initializer_range": 0.2, "rope_theta": 100_000.0,
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(0)
    auto: Any = AutoModelForCausalLM
    return auto.from_config(AutoConfig.for_model(kind, **sizes)).to(dtype).eval()  # type: ignore[no-any-return]


def group(number: int, rows: Sequence[Row]) -> list[Episode]:
    task = Task(f"t{number}", "?", "4")
    episodes = []
    for sample, row in enumerate(rows):
        ledger = Ledger([Span.given(Source.PROMPT, [7])])
        for at, (token, said) in enumerate(row):
            if said:  # the engine's log-probability of a token is a function of what is before it
                drawn = np.random.default_rng([token for token, _ in row[: at + 1]])
                ledger.append(Span.policy([token], logprobs=[-3 * drawn.random()]))
            else:
                ledger.append(Span.given(Source.TOOL, [token]))
        trajectory = Trajectory("tiny", "retool", [ledger])
        episodes.append(Episode(f"t{number}/{sample}", task, task.id, sample, [trajectory]))
    return episodes


@st.composite
def tries(draw: st.DrawFn) -> list[Row]:
    """Rows that leave each other at places drawn at random; two may be one, or one's beginning."""
    token = st.tuples(st.integers(0, 5), st.booleans())
    rows: list[Row] = [draw(st.lists(token, min_size=3, max_size=8))]
    for _ in range(draw(st.integers(1, 5))):
        parent = draw(st.sampled_from(rows))
        shared = draw(st.integers(0, len(parent)))
        # Who wrote a token is the ledger's word: rows may differ in that alone.
        rows.append([*parent[:shared], *draw(st.lists(token, max_size=8))])
    return rows


def gradient(
    model: PreTrainedModel, rows: TrainBatch, config: UpdateConfig
) -> tuple[torch.Tensor, float]:
    """What the optimizer is given, and the loss."""
    found: list[torch.Tensor] = []

    class Look(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            found.extend(p.grad.flatten().clone() for p in model.parameters() if p.grad is not None)

    done = update(model, Look(model.parameters(), {}), rows, config)
    assert not done.refused
    return torch.cat(found), done.metrics["loss"]


MODELS: dict[str, tuple[str, Any, torch.dtype, float]] = {
    "nano, float64": ("dapo", nano, torch.float64, 1e-10),
    "nano, float32": ("dapo", nano, torch.float32, 1e-4),
    "stablelm, float64": ("gspo", partial(small, "stablelm"), torch.float64, 1e-10),
    "llama, float32": ("gspo", partial(small, "llama"), torch.float32, 1e-4),
    "qwen2, float32": ("dapo", partial(small, "qwen2"), torch.float32, 1e-4),
}


@pytest.mark.parametrize(("name", "load", "dtype", "tolerance"), MODELS.values(), ids=MODELS.keys())
def test_a_packed_gradient_is_the_sum_over_the_rows(
    name: str, load: Any, dtype: torch.dtype, tolerance: float
) -> None:
    """Random trees, advantages, loss weights and old policies; with a KL term, in small parts."""
    torch.set_num_threads(1)
    model = load(dtype)

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(
        st.lists(tries(), min_size=1, max_size=3), st.integers(0, 99), st.sampled_from([20, 999])
    )
    def same(made: list[list[Row]], seed: int, most: int) -> None:
        rng = np.random.default_rng(seed)
        groups = [group(number, rows) for number, rows in enumerate(made)]
        scores = [rng.random(len(rows)).tolist() for rows in made]
        rows = TrainBatch.of(groups, scores, OBJECTIVES[name])
        rows.advantages = torch.from_numpy(rng.normal(size=rows.weights.shape))
        rows.weights *= torch.from_numpy(rng.choice([0.0, 0.5, 1.0], rows.weights.shape))
        if not rows.trained:
            return
        config = UpdateConfig(
            OBJECTIVES[name],
            clip_norm=1e9,
            temperature=0.8,
            kl_weight=0.1,
            micro_tokens=most,
        )
        rows.old = compute_logprobs(model, rows, config) + torch.from_numpy(
            rng.normal(scale=0.1, size=rows.weights.shape)
        )
        packed_config = replace(config, pack_prefixes=True)
        rows.reference = rows.old - 0.2
        alone, loss = gradient(model, rows, config)
        packed, again = gradient(model, rows, packed_config)
        assert torch.allclose(
            compute_logprobs(model, rows, config), compute_logprobs(model, rows, packed_config),
            atol=1e-4,
        )  # fmt: skip
        assert again == pytest.approx(loss, rel=tolerance, abs=tolerance)
        assert float((alone - packed).norm()) <= tolerance * float(alone.norm())

    same()


def test_each_shared_token_is_computed_once_and_sees_its_own_row_alone() -> None:
    ids = np.array([[1, 2, 3, 4], [1, 2, 5, 0], [1, 2, 3, 6]])
    lengths = np.array([4, 3, 4])
    (found,) = find_packs(range(3), ids, lengths, most_tokens=99, pair=1e-3)
    assert (found.rows, found.size) == ([0, 2, 1], 6)
    order = found.rows
    layout = Layout.of(ids[order], lengths[order], [Pack(order, 6)])
    assert layout.ids.tolist() == [[1, 2, 3, 4, 6, 5, 0, 0]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 3, 2, 0, 0]]
    assert [np.flatnonzero(seen).tolist() for seen in layout.attends[0]] == [
        [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 5], [6], [7],
    ]  # fmt: skip
    assert layout.places.tolist() == [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 5, 0]]


def test_rows_are_packed_only_where_it_saves_work_and_fits() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 99, (4, 400))
    ids[:, :40] = ids[0, :40]  # a short prompt before long answers
    lengths = np.full(4, 400)

    def sizes(most: int, pair: float) -> list[int]:
        found = find_packs(range(4), ids, lengths, most_tokens=most, pair=pair)
        assert sorted(row for each in found for row in each.rows) == [0, 1, 2, 3]
        return [each.size for each in found]

    assert sizes(9999, 1e-3) == [400] * 4  # the mask's far corners cost more than the prompt
    assert sizes(9999, 1e-5) == [40 + 4 * 360]
    assert sizes(800, 1e-5) == [760, 760]


@pytest.mark.parametrize(
    ("kind", "more"),
    [("mistral", {"sliding_window": 4}), ("gemma2", {"sliding_window": 4}), ("mamba", {})],
)
def test_a_model_that_can_not_be_packed_is_found_out(
    kind: str, more: dict[str, Any], tmp_path: Path
) -> None:
    auto: Any = AutoModelForCausalLM
    with pytest.raises(ModelError, match=f"^{kind} models .* one by one"):
        check_packing(auto.from_pretrained(checkpoint(tmp_path, kind, **more)))

"""Fine-tuning on ledgers: it learns, only from what counts, and can be broken off anywhere."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, set_seed

from interlace.rollout.ledger import Ledger, Source, Span
from interlace.tools.errors import DataError, ModelError
from interlace.train.local.batch import Batch
from interlace.train.local.sft import SFTConfig, SFTReport, batches, sft, weighted_loss

CONFIG = SFTConfig(
    steps=12, batch_size=4, learning_rate=1e-2, warmup=2, save_every=5, evaluate_every=6
)


def tiny_model() -> PreTrainedModel:
    set_seed(0)
    make: Callable[[Qwen3Config], PreTrainedModel] = Qwen3ForCausalLM
    return make(
        Qwen3Config(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    )


def copying(count: int, seed: int = 0) -> list[Ledger]:
    """Prompt, a failed attempt, a tool's output, and the copy of it that is to be learnt."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        shown = rng.integers(3, 32, rng.integers(2, 6)).tolist()
        made.append(
            Ledger(
                [
                    Span.given(Source.PROMPT, [1, 2]),
                    Span.policy(rng.integers(3, 32, 2).tolist(), weight=0.0),
                    Span.given(Source.TOOL, shown),
                    Span.policy(shown, weight=1.0),
                ]
            )
        )
    return made


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the order of sums, and so the bits, depends on it


def test_the_loss_falls(tmp_path: Path) -> None:
    config = SFTConfig(steps=60, batch_size=8, learning_rate=5e-3, warmup=5, seed=1)
    report = sft(tiny_model(), copying(64), config, tmp_path, held_out=copying(8, seed=9))
    assert np.mean(report.losses[-5:]) < 0.8 * np.mean(report.losses[:5])
    assert report.held_out[60] < 3.4  # that of guessing: log(29)
    assert report.tokens > 0


def test_only_weighted_policy_tokens_make_loss_and_gradient() -> None:
    model, ledger = tiny_model(), copying(1)[0]
    ids = torch.tensor(ledger.ids.astype(np.int64))[None]
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    logits.retain_grad()
    nll = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none")
    weights = torch.tensor(ledger.loss_weights[1:])
    expected = (nll * weights).sum()

    total, weight = weighted_loss(model, Batch.of([ledger, *copying(2, seed=4)][:1]))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert weight.item() == weights.sum().item()

    expected.backward()  # type: ignore[no-untyped-call]
    silent = logits.grad[0, :-1][weights == 0]
    assert len(silent) and not silent.any()


def test_changing_a_token_that_carries_no_loss_as_a_target_changes_no_gradient() -> None:
    """The last span is the tool's: whatever stands there, nothing is learnt from it."""

    def gradient(last: int) -> torch.Tensor:
        spans = [
            Span.given(Source.PROMPT, [1, 2]),
            Span.policy([3, 4]),
            Span.given(Source.TOOL, [last]),
        ]
        model = tiny_model()
        nll, weights = weighted_loss(model, Batch.of([Ledger(spans)]))
        (nll / weights).backward()  # type: ignore[no-untyped-call]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.equal(gradient(5), gradient(6))
    assert gradient(5).any()


def test_padding_changes_nothing() -> None:
    model = tiny_model()
    made = copying(6)
    together, weight = weighted_loss(model, Batch.of(made))
    apart = [weighted_loss(model, Batch.of([ledger])) for ledger in made]
    assert together.item() == pytest.approx(sum(nll.item() for nll, _ in apart), rel=1e-5)
    assert weight.item() == sum(part.item() for _, part in apart)


def test_how_many_tokens_go_through_at_once_is_a_matter_of_memory_alone(tmp_path: Path) -> None:
    reports = [
        sft(tiny_model(), copying(20), replace(CONFIG, micro_tokens=tokens), tmp_path / str(tokens))
        for tokens in (10, 1000)
    ]
    assert reports[0].losses == pytest.approx(reports[1].losses, rel=1e-4)


def test_a_step_that_is_not_a_number_is_not_made_and_some_of_them_end_the_run(
    tmp_path: Path,
) -> None:
    model = tiny_model()
    head: torch.nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    hooked = head.register_forward_hook(lambda module, given, logits: logits * float("nan"))
    before = weights_of(model)
    with pytest.raises(ModelError, match="3 steps in a row were not numbers"):
        sft(model, copying(20), CONFIG, tmp_path)
    hooked.remove()
    for name, value in weights_of(model).items():
        assert torch.equal(value, before[name]), name


def test_a_step_without_room_ends_the_run_in_one_sentence(tmp_path: Path) -> None:
    model = tiny_model()
    model.base_model.register_forward_hook(lambda *_: torch.empty(1 << 50) and None)
    with pytest.raises(ModelError, match=r"no memory for the update of step 1.*micro_tokens"):
        sft(model, copying(8), SFTConfig(steps=2, batch_size=4), tmp_path)


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_run_that_was_broken_off_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = tiny_model()
    expected = sft(whole, copying(20), CONFIG, tmp_path / "whole", held_out=copying(3, 7))

    def crash(step: int, report: SFTReport) -> None:
        if step == 8:  # three steps after a checkpoint
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        sft(tiny_model(), copying(20), CONFIG, tmp_path / "cut", progress=crash)
    resumed = tiny_model()
    report = sft(resumed, copying(20), CONFIG, tmp_path / "cut", held_out=copying(3, 7))

    assert report.losses == expected.losses
    assert report.held_out == expected.held_out
    for name, value in weights_of(whole).items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_ctrl_c_saves_the_step_it_stopped_at(tmp_path: Path) -> None:
    def press(step: int, report: SFTReport) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sft(tiny_model(), copying(20), CONFIG, tmp_path, progress=press)
    saved = json.loads((tmp_path / "checkpoint" / "trainer.json").read_text())
    assert saved["done"] == 3
    assert not list(tmp_path.rglob("*.bin")) and not list(tmp_path.rglob("*.pt"))
    seen: list[int] = []
    sft(tiny_model(), copying(20), CONFIG, tmp_path, progress=lambda step, _: seen.append(step))
    assert seen[0] == 4


def test_a_checkpoint_of_another_run_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    sft(tiny_model(), copying(20), CONFIG, tmp_path)
    with pytest.raises(DataError, match="of another run"):
        sft(tiny_model(), copying(21), CONFIG, tmp_path)
    (tmp_path / "checkpoint" / "optimizer.safetensors").write_bytes(b"not tensors")
    with pytest.raises(DataError, match="can't be read"):
        sft(tiny_model(), copying(20), CONFIG, tmp_path)


def test_ledgers_without_anything_to_learn_are_refused(tmp_path: Path) -> None:
    silent = Ledger([Span.given(Source.PROMPT, [1]), Span.policy([2], weight=0.0)])
    with pytest.raises(DataError, match="ledger 4 has no token to learn from"):
        sft(tiny_model(), [*copying(4), silent], CONFIG, tmp_path)


@settings(deadline=None)
@given(count=st.integers(4, 60), size=st.integers(1, 4), seed=st.integers(0, 99))
def test_an_epoch_holds_every_ledger_at_most_once(count: int, size: int, seed: int) -> None:
    made = copying(count, seed)
    epoch = list(islice(batches(made, size, seed), count // size))
    indices = [index for batch in epoch for index in batch]
    assert len(set(indices)) == len(indices) == count // size * size
    assert list(islice(batches(made, size, seed), count // size)) == epoch

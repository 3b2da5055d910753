"""What is learnt from: the policy's own tokens alone, whatever the batch is cut into."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_models import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel

from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Episode, FinishReason, StopReason, Trajectory, Turn
from interlace.train.local.batch import Batch, micro_batches
from interlace.train.local.logprobs import token_logprobs
from interlace.train.local.update import TrainBatch, UpdateConfig, compute_logprobs, update
from interlace.train.objectives import OBJECTIVES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(folder: Path) -> PreTrainedModel:
    torch.set_num_threads(1)
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return loaded.eval()  # type: ignore[no-untyped-call,no-any-return]


def episode(number: int, seed: int, answer: str | None = "4") -> Episode:
    """A prompt, a call, a tool's output, an answer: random ids, random log-probabilities."""
    rng = np.random.default_rng(seed)

    def ids(count: int) -> list[int]:
        found: list[int] = rng.integers(0, 256, count).tolist()
        return found

    def said(count: int) -> Span:
        return Span.policy(ids(count), logprobs=(-9 * rng.random(count)).tolist(), version=0)

    spans = [Span.given(Source.PROMPT, ids(5)), said(int(rng.integers(2, 9)))]
    spans += [Span.given(Source.TOOL, ids(6)), said(int(rng.integers(2, 30)))]
    ledger = Ledger(spans)
    turn = Turn(0, len(ledger) - len(spans[-1]), len(ledger), FinishReason.EOS)
    stop = StopReason.ENDED if answer is None else StopReason.ANSWERED
    trajectory = Trajectory("tiny", "retool", [ledger], [turn], stop, answer)
    task = Task(f"t{number}", "2 + 2?", "4")
    return Episode(f"t{number}/{seed}", task, task.id, seed, [trajectory])


def groups(count: int = 3) -> list[list[Episode]]:
    return [[episode(i, 4 * i + j) for j in range(4)] for i in range(count)]


SCORES = [[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]]


def gradient(model: PreTrainedModel, rows: TrainBatch, recipe: UpdateConfig) -> torch.Tensor:
    """What `update` would hand to the optimizer: plain descent makes it visible."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    assert not update(model, optimizer, rows, recipe).refused
    pairs = zip(before, model.parameters(), strict=True)
    steps = torch.cat([(a - b.detach()).flatten() for a, b in pairs])
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)
    return steps


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_add_up_to_the_whole_batch(model: PreTrainedModel, name: str) -> None:
    objective = OBJECTIVES[name]
    rows = TrainBatch.of(groups(), SCORES, objective)
    rows.old = compute_logprobs(model, rows, UpdateConfig(objective)) + 0.05
    rows.reference = rows.old - 0.2

    def cut(most: int) -> torch.Tensor:
        recipe = UpdateConfig(
            objective, loss_scale_factor=64, micro_tokens=most, clip_norm=1e9, kl_weight=0.1
        )
        return gradient(model, rows, recipe)

    whole = cut(100_000)
    assert whole.abs().max() > 1e-4
    for most in (1, 100):
        torch.testing.assert_close(
            cut(most), whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max())
        )


def test_a_tools_tokens_get_no_gradient_though_they_have_an_advantage(
    model: PreTrainedModel,
) -> None:
    """The loss is asked for its gradient at every logit; advantages stand at every token."""
    rows = TrainBatch.of(groups(1), SCORES[:1], OBJECTIVES["dapo"])
    rows.advantages = torch.full(rows.weights.shape, 2.0)
    rows.engine = torch.zeros(rows.weights.shape)
    seen: list[torch.Tensor] = []

    def watch(module: torch.nn.Module, given: object, hidden: torch.Tensor) -> torch.Tensor:
        hidden.register_hook(seen.append)  # type: ignore[no-untyped-call]
        return hidden

    norm = model.base_model.get_submodule("norm")
    hook = norm.register_forward_hook(watch)
    update(
        model, torch.optim.SGD(model.parameters(), lr=0.0), rows, UpdateConfig(OBJECTIVES["dapo"])
    )
    hook.remove()
    assert len(seen) == 1
    # The gradient at the state before token t is what token t, as a target, has caused.
    caused = seen[0][:, :-1].abs().sum(-1)
    order = micro_batches(rows.trained, rows.batch.lengths, 16384)[0]
    mask = torch.from_numpy(rows.batch.mask[order])[:, 1 : caused.shape[1] + 1]
    assert (caused[~mask] == 0).all()
    assert (caused[mask] > 0).all()
    tool = (~mask) & (rows.advantages[order][:, 1 : caused.shape[1] + 1] != 0)
    assert tool.any()


def test_what_a_tool_says_last_changes_nothing_that_is_learnt(model: PreTrainedModel) -> None:
    def learnt(last: int) -> torch.Tensor:
        made = groups(1)
        for each in made[0]:
            each.trajectory.ledger.append(Span.given(Source.TOOL, [last, last]))
        return gradient(model, TrainBatch.of(made, SCORES[:1], OBJECTIVES["grpo"]), RECIPE)

    assert torch.equal(learnt(7), learnt(8))
    assert learnt(7).any()


RECIPE = UpdateConfig(OBJECTIVES["grpo"], clip_norm=1e9)


def test_chunks_give_the_same_as_all_logits_at_once(model: PreTrainedModel) -> None:
    batch = Batch.of([each.trajectory.ledger for each in groups(1)[0]])
    ids = torch.from_numpy(batch.ids)
    logits = model(input_ids=ids).logits[:, :-1].float() / 0.7
    logp = torch.log_softmax(logits, -1)
    wanted = logp.gather(-1, ids[:, 1:, None]).squeeze(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    mask = torch.from_numpy(batch.mask)[:, 1:]
    (wanted * mask).sum().backward()  # type: ignore[no-untyped-call]
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for at_once in (1, 3 * model.config.vocab_size, 1 << 26):
        found, spread = token_logprobs(model, batch.ids, batch.mask, 0.7, logits_at_once=at_once)
        torch.testing.assert_close(found[:, 1:], wanted * mask, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(spread[:, 1:], entropy * mask, rtol=1e-4, atol=1e-5)
        found.sum().backward()  # type: ignore[no-untyped-call]
        for parameter, value in zip(model.parameters(), expected, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, value, rtol=1e-3, atol=1e-4)
        model.zero_grad()


def test_an_episode_with_a_void_turn_teaches_nothing_but_counts_in_its_group() -> None:
    made = groups(1)
    made[0][1] = episode(0, 1, answer=None)
    rows = TrainBatch.of(made, SCORES[:1], OBJECTIVES["dr_grpo"], without_void_turns=True)
    assert rows.trained == [0, 2, 3]
    at = rows.batch.mask.argmax(1)
    assert rows.advantages[np.arange(4), at].tolist() == [0.5, -0.5, -0.5, 0.5]


def test_an_episode_of_two_ledgers_is_one_response() -> None:
    made = groups(1)
    made[0][0].trajectory.ledgers.append(episode(9, 99).trajectory.ledger)
    rows = TrainBatch.of(made, SCORES[:1], OBJECTIVES["grpo"])
    values = [set(rows.advantages[i][rows.batch.mask[i]].tolist()) for i in range(5)]
    assert values[0] == values[1] == values[4] != values[2]
    assert all(len(value) == 1 for value in values)


def test_what_is_not_a_number_stays_out_of_the_weights(model: PreTrainedModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = TrainBatch.of(groups(1), SCORES[:1], OBJECTIVES["grpo"])
    rows.advantages[0, 6] = float("nan")
    optimizer = torch.optim.AdamW(model.parameters())
    assert update(model, optimizer, rows, RECIPE).refused
    assert not optimizer.state
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name

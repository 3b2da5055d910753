"""Advantage estimators: the papers' numbers, and what holds for any rewards."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from interlace.train.objectives import ADVANTAGES, informative, outcome_rewards

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
GROUPED = ["grpo", "dr_grpo", "rloo", "reinforce_plus_plus_baseline"]

# Shares and halves: what rewards are made of, and what does not come out even in binary.
REWARDS = st.sampled_from([-1.0, -0.6, 0.0, 0.1, 0.3, 0.5, 1.0])


def advantages(name: str, rewards: list[float], index: list[str], length: int = 3) -> torch.Tensor:
    """One advantage for each response, (B,), all of whose tokens count."""
    mask = torch.ones(len(rewards), length)
    scores = outcome_rewards(torch.tensor(rewards, dtype=torch.float64), mask)
    result, _returns = ADVANTAGES[name](scores, mask, index)
    assert_close(result, result[:, :1].expand(-1, length))  # the same at each token
    return result[:, 0]


@pytest.mark.parametrize(
    ("name", "rewards", "expected"),
    [
        ("grpo", [1, 0, 0, 0], [1.5, -0.5, -0.5, -0.5]),
        ("grpo", [1, 1, 0, 0], [0.8660, 0.8660, -0.8660, -0.8660]),
        ("dr_grpo", [1, 0, 0, 0], [0.75, -0.25, -0.25, -0.25]),
        ("rloo", [1, 0, 0, 0], [1, -1 / 3, -1 / 3, -1 / 3]),
        ("rloo", [1, 1, 0, 0], [2 / 3, 2 / 3, -2 / 3, -2 / 3]),
        # Over the 12 tokens: deviation sqrt(12 * 3/16 / 11) = 0.4523.
        ("reinforce_plus_plus", [1, 0, 0, 0], [1.6583, -0.5528, -0.5528, -0.5528]),
        ("reinforce_plus_plus_baseline", [1, 0, 0, 0], [1.6583, -0.5528, -0.5528, -0.5528]),
    ],
)
def test_published_numbers(name: str, rewards: list[float], expected: list[float]) -> None:
    got = advantages(name, rewards, ["q"] * len(rewards))
    assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_a_group_knows_nothing_of_the_others_wherever_its_members_stand(name: str) -> None:
    together = advantages(name, [1, 0.3, 0, 7, 0, 5], ["a", "b", "a", "b", "a", "b"])
    assert_close(together[0::2], advantages(name, [1, 0, 0], ["a"] * 3))
    assert_close(together[1::2], advantages(name, [0.3, 7, 5], ["b"] * 3))


@pytest.mark.parametrize("name", ADVANTAGES)
@relaxed
@given(data=st.data())
def test_permuting_the_responses_permutes_their_advantages(name: str, data: st.DataObject) -> None:
    rewards = data.draw(st.lists(REWARDS, min_size=2, max_size=8))
    size = len(rewards)
    index = data.draw(st.lists(st.sampled_from("ab"), min_size=size, max_size=size))
    order = data.draw(st.permutations(range(size)))
    permuted = advantages(name, [rewards[i] for i in order], [index[i] for i in order])
    assert_close(permuted, advantages(name, rewards, index)[list(order)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GROUPED)
@relaxed
@given(rewards=st.lists(REWARDS, min_size=2, max_size=8), shift=st.floats(-10, 10))
def test_what_every_member_of_a_group_gets_more_changes_nothing(
    name: str, rewards: list[float], shift: float
) -> None:
    index = ["q"] * len(rewards)
    shifted = advantages(name, [reward + shift for reward in rewards], index)
    assert_close(shifted, advantages(name, rewards, index), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ADVANTAGES)
@relaxed
@given(reward=st.floats(-100, 100, width=32), size=st.integers(2, 7))
def test_equal_rewards_give_exact_zeros(name: str, reward: float, size: int) -> None:
    rewards = torch.full((size, 1), reward)  # float32: the mean of three 0.1 is not 0.1
    mask = torch.ones(size, 1)
    assert not ADVANTAGES[name](rewards, mask, ["q"] * size)[0].any()


def test_a_group_of_one_is_compared_with_nothing() -> None:
    index = ["a", "b", "b"]
    assert advantages("dr_grpo", [2, 0, 1], index).tolist() == [2, -0.5, 0.5]
    assert advantages("rloo", [2, 0, 1], index).tolist() == [2, -1, 1]
    assert_close(advantages("grpo", [2, 0, 1], index)[0].item(), 2.0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ADVANTAGES)
def test_masked_tokens_get_none_and_a_masked_response_still_counts_in_its_group(name: str) -> None:
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]])
    rewards = outcome_rewards(torch.tensor([1.0, 1.0, 0.0]), mask)
    assert rewards.sum(dim=1).tolist() == [1, 1, 0]  # the masked row keeps its reward
    result, _ = ADVANTAGES[name](rewards, mask, ["q"] * 3)
    assert result[mask == 0].tolist() == [0] * 5
    if name == "dr_grpo":
        assert_close(result[0, 0].item(), 1 / 3)  # less the mean of all three, not of two


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_reward_that_is_no_number_is_refused_by_its_row(name: str) -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, float("nan")]])
    with pytest.raises(ValueError, match=r"rows \[1\] have a reward that is not finite"):
        ADVANTAGES[name](rewards, torch.ones(2, 2), ["q", "q"])


@pytest.mark.parametrize("name", ADVANTAGES)
def test_half_precision_rewards_are_worked_out_in_single_precision(name: str) -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.5], [0.0, 0.25]])
    mask = torch.ones(3, 2)
    half, _ = ADVANTAGES[name](rewards.bfloat16(), mask.bfloat16(), ["q"] * 3)
    single, _ = ADVANTAGES[name](rewards, mask, ["q"] * 3)
    assert half.dtype is torch.float32
    assert torch.equal(half, single)


def test_a_tools_output_takes_no_step_of_discount_and_loses_no_reward() -> None:
    estimate = ADVANTAGES["reinforce_plus_plus"]
    half = SimpleNamespace(gamma=0.5)
    written = torch.tensor([[0.0, 1.0, 0.0, 4.0]])
    _, plain = estimate(written, torch.ones(1, 4), ["q"], config=half)
    assert plain.tolist() == [[1.0, 2.0, 2.0, 4.0]]

    # Three tokens of a tool's output in between: the returns of the others stay as they are.
    rewards = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 4.0]])
    mask = torch.tensor([[1, 1, 0, 0, 0, 1, 1]])
    _, returns = estimate(rewards, mask, ["q"], config=half)
    assert returns.tolist() == [[1.0, 2.0, 0.0, 0.0, 0.0, 2.0, 4.0]]

    # Cut after a tool's output: the reward stands there, and goes to the token before, whole.
    rewards, mask = torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[1, 1, 0]])
    _, cut = estimate(rewards, mask, ["q"], config=half)
    assert cut.tolist() == [[2.0, 4.0, 0.0]]


def test_dynamic_sampling_keeps_groups_with_right_and_wrong_ones() -> None:
    scores = [1, 0, 1, 1, 0, 0, 1]
    index = ["mixed", "mixed", "right", "right", "wrong", "wrong", "alone"]
    assert informative(scores, index).tolist() == [True, True] + [False] * 5
    assert informative([], []).tolist() == []

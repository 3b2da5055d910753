"""Trees inside verl: each leaf is a row, and its advantage Tree-GRPO's."""

import pytest
import torch

from interlace.train.verl.team import row_name, tree_grpo_advantage


def test_leaves_are_compared_with_all_of_the_task_and_with_those_of_their_root() -> None:
    """Tree-GRPO's released code (AMAP-ML/Tree-GRPO), run by hand on [1, 0, 0] and [1, 1, 0]; a leaf
    of two rows, one that is alone, and verl's padding.
    """
    names = [f"u#{row_name('0', sample, leaf)}" for sample in (0, 1) for leaf in range(3)]
    names += [names[0], "v#0#0.0", "pad3"]
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 0, 1, 1, 0]).unsqueeze(1) * torch.tensor([0.0, 1.0])
    found, _ = tree_grpo_advantage(rewards, torch.ones(9, 2), names)
    inter, high, low = 0.912869, 1.154699, 0.577349
    wanted = [inter + high, -inter - low, -inter - low, inter + low, inter + low, -inter - high]
    assert found[:, 0].tolist() == pytest.approx([*wanted, wanted[0], 0, 0], abs=2e-5)
    assert torch.equal(found[:, 0], found[:, 1])
    with pytest.raises(ValueError, match=r"adv_estimator=tree_grpo needs .*TeamSampler"):
        tree_grpo_advantage(rewards[:2], torch.ones(2, 2), ["u", "v"])

"""Credit on trees, against the exact policy gradient of a policy whose every draw is listed.

A first turn says 0 or 1, which a tool answers, or 2, which is an answer; after a result a second
turn says 3 or 4. The parameters are the logits: three of the first turn, two after each result.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from interlace.rollout.episode_log import read_episodes
from interlace.rollout.ledger import Ledger, Source, Span
from interlace.rollout.task import Task
from interlace.rollout.trajectory import Branch, Episode, FinishReason, StopReason, Trajectory, Turn
from interlace.tools.errors import UsageError
from interlace.train.config import TrainConfig
from interlace.train.evaluation.attempts import read_attempts
from interlace.train.local.metrics import describe
from interlace.train.local.record import Record
from interlace.train.local.rl import Trainer
from interlace.train.local.training_setup import make_setup
from interlace.train.local.update import TrainBatch
from interlace.train.objectives import find_objective
from interlace.train.rewards import TOTAL, Checker, RewardPart, Rewards, why_unscored
from interlace.train.rewards.team_credit import find_credit
from interlace.train.rewards.tree_credit import as_leaves, score_leaves
from interlace.train.verl.settings import LoopSettings

TASK = Task("t", "?", "1")
QUESTION = [9, 9]
REWARDS = {(2,): 0.6, (0, 3): 1.0, (0, 4): 0.1, (1, 3): 0.2, (1, 4): 0.7}
LOGITS = torch.tensor([0.3, -0.4, 0.1, 0.5, -0.2, -0.6, 0.4], dtype=torch.float64)
NEVER_AT_ONCE = torch.tensor([0.3, -0.4, -torch.inf, 0.5, -0.2, -0.6, 0.4], dtype=torch.float64)
"""The same policy, but no first turn is an answer: all attempts have two turns."""

Said = tuple[int, ...]
Place = tuple[Said, str, str | None, int, float]
"""A leaf: its words, its name, the leaf that it left, after how many turns, its weight."""
Draws = Iterator[tuple[float, list[Place]]]
"""Each tree with its probability."""


def logprob(logits: torch.Tensor, before: int | None, token: int) -> torch.Tensor:
    """Of a token in its turn: the first, or the one after the result of `before`."""
    if before is None:
        return torch.log_softmax(logits[:3], 0)[token]
    return torch.log_softmax(logits[3 + 2 * before : 5 + 2 * before], 0)[token - 3]


def chains(logits: torch.Tensor, begun: Said = ()) -> Iterator[tuple[float, Said]]:
    """All attempts that begin so, each with its probability from there on."""
    for said in REWARDS:
        if said[: len(begun)] == begun:
            steps = list(zip((None, *said), said, strict=False))[len(begun) :]
            chance = math.exp(sum(float(logprob(logits, *step)) for step in steps))
            if chance:
                yield chance, said


def split(logits: torch.Tensor) -> Draws:
    """Two leaves after each result."""
    for chance, said in chains(logits):
        if len(said) == 1:
            yield chance, [(said, "0", None, 0, 1.0)]
            continue
        for again, other in chains(logits, said[:1]):
            yield chance * again, [(said, "0", None, 0, 0.5), (other, "0.1", "0", 1, 0.5)]


def random(logits: torch.Tensor) -> Draws:
    """One leaf more, from a node drawn at random: the question, or the result if there is one."""
    for chance, said in chains(logits):
        nodes = range(len(said))
        for turns in nodes:
            for again, other in chains(logits, said[:turns]):
                leaf = (other, "0.1", "0", turns, 0.5)
                yield chance * again / len(nodes), [(said, "0", None, 0, 0.5), leaf]


def twice(logits: torch.Tensor) -> Draws:
    """Two first turns, and two leaves after each result: as many leaves as there are results."""
    for (chance, one), (again, other) in itertools.product(list(split(logits)), repeat=2):
        second = [
            (said, name.replace("0", "0.2", 1), "0" if left is None else "0.2", turns, weight)
            for said, name, left, turns, weight in other
        ]
        yield chance * again, [(*leaf[:4], leaf[4] / 2) for leaf in one + second]


def single(logits: torch.Tensor) -> Draws:
    """One leaf alone."""
    for chance, said in chains(logits):
        yield chance, [(said, "0", None, 0, 1.0)]


def tree(sample: int, places: Sequence[Place]) -> Episode:
    """The record of a tree."""
    leaves = []
    for said, name, parent, shared, weight in places:
        ledger = Ledger([Span.given(Source.PROMPT, QUESTION)])
        turns = []
        for token in said:
            begun = len(ledger)
            ledger.append(Span.policy([token], logprobs=[-1.0]))
            turns.append(Turn(0, begun, begun + 1, FinishReason.STOP))
            if token < 2:
                ledger.append(Span.given(Source.TOOL, [7]))
        tokens = len(QUESTION) + 2 * shared if parent else 0
        branch = Branch(name, parent, shared, tokens, weight=weight)
        leaves.append(
            Trajectory("toy", "retool", [ledger], turns, StopReason.ANSWERED, "1", branch=branch)
        )
    return Episode(f"t/{sample}", TASK, TASK.id, sample, leaves)


def rewarded(trees: Sequence[Episode]) -> list[Episode]:
    """The leaves of the trees, with their rewards."""
    leaves: list[Episode] = [leaf for each in trees for leaf in as_leaves(each)]
    for leaf in leaves:
        ids = leaf.trajectory.ledger.ids.tolist()
        leaf.rewards = {TOTAL: REWARDS[tuple(token for token in ids if token < 5)]}
    return leaves


def gradient(
    logits: torch.Tensor, trees: Sequence[Episode], credit: str, objective: str
) -> torch.Tensor:
    """What the trainer's rows give the parameters, for each attempt."""
    leaves = rewarded(trees)
    groups = find_credit(credit)(leaves)
    found = find_objective(objective)
    scores = [[part.rewards[TOTAL] for part in group] for group in groups]
    rows = TrainBatch.of(groups, scores, found)
    logits = logits.clone().requires_grad_()
    new = torch.zeros(rows.weights.shape, dtype=torch.float64)
    for row, at in np.argwhere(rows.batch.mask):
        before = int(rows.batch.ids[row, at - 2]) if at > len(QUESTION) else None
        new[row, at] = logprob(logits, before, int(rows.batch.ids[row, at]))
    loss, _ = found.loss(new.detach(), new, rows.advantages, rows.weights, "token-sum")
    (descent,) = torch.autograd.grad(loss, logits)
    return -descent / len(trees if credit == "nodes" else leaves)


def expected(
    logits: torch.Tensor, draws: Sequence[Draws], credit: str, objective: str, even: bool = False
) -> torch.Tensor:
    """The mean gradient over all draws of the trees of a group; `even` gives all leaves of a tree
    the same weight.
    """
    total = torch.zeros_like(logits)
    for drawn in itertools.product(*(list(each) for each in draws)):
        trees = [
            tree(sample, [(*p[:4], 1 / len(places) if even else p[4]) for p in places])
            for sample, (_, places) in enumerate(drawn)
        ]
        chance = math.prod(chance for chance, _ in drawn)
        total += chance * gradient(logits, trees, credit, objective)
    return total


def exact(logits: torch.Tensor) -> torch.Tensor:
    """The gradient of the expected reward."""
    logits = logits.clone().requires_grad_()
    value = torch.zeros((), dtype=torch.float64)
    for said, reward in REWARDS.items():
        steps = zip((None, *said), said, strict=False)
        value = value + reward * torch.exp(torch.stack([logprob(logits, *s) for s in steps]).sum())
    (found,) = torch.autograd.grad(value, logits)
    return found


def off(found: torch.Tensor, logits: torch.Tensor) -> float:
    """How far a gradient is from the exact one, as a share of its norm."""
    true = exact(logits)
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize(
    ("logits", "trees"),
    [(LOGITS, [split, split]), (LOGITS, [twice]), (NEVER_AT_ONCE, [random, single])],
    ids=["split", "split at the question too", "random, all of one length"],
)
def test_nodes_with_a_leave_one_out_baseline_give_the_policy_gradient(
    logits: torch.Tensor, trees: list[Callable[[torch.Tensor], Draws]]
) -> None:
    assert off(expected(logits, [draw(logits) for draw in trees], "nodes", "rloo"), logits) < 1e-6


def test_what_is_not_unbiased_is_off_by_as_much_as_the_page_says() -> None:
    """docs/objectives.md, "Trees"."""
    # Without their weights, leaves count more where more of them followed.
    found = expected(LOGITS, [twice(LOGITS)], "nodes", "rloo", even=True)
    assert off(found, LOGITS) == pytest.approx(0.117, abs=1e-3)
    # A random node is the question more often where the first attempt had only one turn.
    found = expected(LOGITS, [random(LOGITS), single(LOGITS)], "nodes", "rloo")
    assert off(found, LOGITS) == pytest.approx(0.044, abs=1e-3)
    # With K = 2 leaves a root and M = 2 roots, tokens that n leaves share are weighed by ...
    for credit, objective, shared, own in (
        ("leaves", "dr_grpo", 2 - 2 / 2 - 2 / 4, 2 - 1 / 2 - 1 / 4),
        ("team", "dr_grpo", 1 - 2 / 4, 1 - 1 / 4),
        ("team", "rloo", (4 - 2) / 3, (4 - 1) / 3),
        ("nodes", "dr_grpo", 1 / 2, 1 / 2),
    ):
        draws = [split(NEVER_AT_ONCE), split(NEVER_AT_ONCE)]
        factors = expected(NEVER_AT_ONCE, draws, credit, objective) / exact(NEVER_AT_ONCE)
        wanted = torch.tensor([shared, shared, own, own, own, own], dtype=torch.float64)
        torch.testing.assert_close(factors[[0, 1, 3, 4, 5, 6]], wanted, rtol=1e-5, atol=0)


def advantages(groups: list[list[Episode]], objective: str) -> list[list[float]]:
    """Of each row, at the tokens that are trained."""
    scores = [[part.rewards[TOTAL] for part in group] for group in groups]
    rows = TrainBatch.of(groups, scores, find_objective(objective))
    pairs = zip(rows.advantages, rows.weights > 0, strict=True)
    return [sorted({round(float(a), 5) for a in row[counts]}) for row, counts in pairs]


def scored(tree: Episode, rewards: Sequence[float]) -> list[Episode]:
    leaves: list[Episode] = [*as_leaves(tree)]
    for leaf, reward in zip(leaves, rewards, strict=True):
        leaf.rewards = {TOTAL: reward}
    return leaves


def test_leaves_are_compared_with_all_and_with_those_of_their_root() -> None:
    """Tree-GRPO's released code (AMAP-ML/Tree-GRPO), run by hand on [1, 0, 0] and [1, 1, 0]."""
    places: list[Place] = [
        ((0, 3), "0", None, 0, 1 / 3), ((0, 4), "0.1", "0", 1, 1 / 3),
        ((0, 4), "0.2", "0", 1, 1 / 3),
    ]  # fmt: skip
    leaves = scored(tree(0, places), [1, 0, 0]) + scored(tree(1, places), [1, 1, 0])
    found = advantages(find_credit("leaves")(leaves), "grpo")
    inter, high, low = 0.912869, 1.154699, 0.577349
    expected = [inter + high, -inter - low, -inter - low, inter + low, inter + low, -inter - high]
    assert [row for (row,) in found] == pytest.approx(expected, abs=2e-5)


def test_nodes_are_worth_the_mean_of_what_follows_them() -> None:
    """AT2PO's `child_mean` and `diff_parent` of a root with children (1, 0), (1) and (0, 0): 0,
    0.5 and -0.5, divided by the leaves' deviation there, and here multiplied with their weights.
    """
    places: list[Place] = [
        ((0, 3), "0", None, 0, 1 / 6), ((0, 4), "0.1", "0", 1, 1 / 6),
        ((2,), "0.2", "0", 0, 1 / 3),
        ((1, 3), "0.3", "0", 0, 1 / 6), ((1, 4), "0.3.1", "0.3", 1, 1 / 6),
    ]  # fmt: skip
    leaves = scored(tree(0, places), [1, 0, 1, 0, 0])
    groups = find_credit("nodes")(leaves)
    ids = [[e.trajectory.ledger.ids.tolist() for e in group] for group in groups]
    assert ids == [
        [[9, 9, 0, 7], [9, 9, 2], [9, 9, 1, 7]],
        [[9, 9, 0, 7, 3], [9, 9, 0, 7, 4]],
        [[9, 9, 1, 7, 3], [9, 9, 1, 7, 4]],
    ]
    assert advantages(groups, "dr_grpo") == [
        [0.0], [0.16667], [-0.16667], [0.08333], [-0.08333], [0.0], [0.0],
    ]  # fmt: skip


def test_a_leaf_is_rewarded_as_an_attempt_of_its_own() -> None:
    """Its length is all that it says, what it shares included; one that failed costs no other."""
    grown = tree(0, [((0, 3), "0", None, 0, 0.5), ((0, 4), "0.1", "0", 1, 0.5)])
    length = RewardPart("length", lambda e, task: float(e.trajectory.sampled_tokens))
    leaves, scores = score_leaves(Rewards(length), [grown])
    assert [leaf.rewards[TOTAL] for leaf in leaves] == [2.0, 2.0]
    assert [leaf.id for leaf in leaves] == ["t/0#0", "t/0#0.1"]
    assert grown.rewards == leaves[-1].rewards
    assert describe([grown], [], 0)["turns"] == 3  # the first, and how each leaf continued it
    grown.trajectories[0].stop = StopReason.INFRASTRUCTURE
    leaves, scores = score_leaves(Rewards(length), [grown])
    assert [bool(leaf.rewards) for leaf in leaves] == [False, True]
    assert [score.problem is None for score in scores] == [False, True]
    plain = replace(grown, trajectories=[replace(grown.trajectory, branch=None)])
    with pytest.raises(UsageError, match="made no tree of t/0"):
        score_leaves(Rewards(length), [plain])
    with pytest.raises(UsageError, match="are for trees"):
        find_credit("nodes")([plain])


def test_a_tree_is_judged_by_its_chosen_leaf_and_counts_what_leaves_share_once() -> None:
    grown = tree(0, [((0, 3), "0", None, 0, 0.5), ((0, 4), "0.1", "0", 1, 0.5)])
    grown.trajectories[0].stop = StopReason.CANCELLED  # a search gave it up
    assert why_unscored(grown) == "it was stopped before its end"  # nothing was chosen yet
    grown.trajectory.strategy = {"name": "terse"}
    with Checker() as checker:
        (attempt,), unjudged = read_attempts([grown], checker)
    assert attempt.correct and not unjudged
    assert (attempt.turns, attempt.tokens, attempt.response_tokens) == (3, 3, 4)


def test_the_local_trainer_trains_on_trees_and_computes_what_leaves_share_once(
    tmp_path: Path,
) -> None:
    """Nano, Python, and settings as a file has them."""
    torch.set_num_threads(1)
    config = TrainConfig(
        out=str(tmp_path / "run"), steps=1, tasks_per_step=1, group_size=2, max_tokens=120,
        strategy="tree@leaves=3,roots=1", credit="nodes", objective="rloo", device="cpu",
        tasks=[Task("a", "A crate holds 4387 bolts. How many bolts are in 296 crates?", "1298552")],
        learning_rate=1e-3,
    )  # fmt: skip
    with make_setup(config) as setup, Record(tmp_path / "run") as record:
        before = {name: value.clone() for name, value in setup.model.state_dict().items()}
        seen: list[dict[str, float]] = []
        Trainer(config, setup).train(record, progress=lambda step, metrics: seen.append(metrics))
        changed = [n for n, value in setup.model.state_dict().items() if (value != before[n]).any()]
    trees = list(read_episodes(tmp_path / "run" / "episodes" / "00001.jsonl"))
    assert [len(each.trajectories) for each in trees] == [3, 3]
    assert all(each.trajectory.branch is not None and each.rewards for each in trees)
    (metrics,) = seen
    assert metrics["episodes"] == 2
    assert metrics["computed_tokens"] < 0.7 * metrics["row_tokens"]
    assert bool(changed) is (metrics["updates"] > 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"credit": "nodes"}, "credit=nodes is for trees: strategy names one"),
        ({"strategy": "tree@8", "credit": "turn"}, "attempt names the team"),
        ({"strategy": "tree@8", "attempt": "strange:pair"}, "attempt"),
        ({"strategy": "oak@8"}, "unknown strategy 'oak'"),
        ({"strategy": "vote@8"}, "strategy=vote@8 makes no tree"),
    ],
)
def test_settings_that_make_no_tree_are_told(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainConfig.model_validate(given)
    if given.keys() == {"strategy"}:
        with pytest.raises(ValidationError, match=said):
            LoopSettings.model_validate({"format": "retool", "tools": [], **given})

"""Objectives: advantage estimators and policy losses, one file each, pure functions of tensors.

`OBJECTIVES` are published methods, each a choice of the parts in the other tables; any part may be
exchanged. The formulas side by side: docs/objectives.md. Importing this loads no torch.

Example:
    >>> find_objective("dapo").config.clip_ratio_high
    0.28
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...tools.errors import UsageError
from ...tools.importing import find
from .aggregate import AGGREGATIONS, agg_loss
from .base import ActorConfig, AdvantageEstimator, Loss, LossConfig, Objective, PolicyLoss
from .cispo import CISPO, cispo_loss
from .clipped import clipped_loss
from .dapo import DAPO, informative
from .dr_grpo import DR_GRPO, dr_grpo_advantage
from .gppo import GPPO, gppo_loss
from .groups import outcome_rewards
from .grpo import GRPO, grpo_advantage
from .gspo import GSPO, gspo_loss
from .kl import KL_ESTIMATORS, kl_penalty, penalised_rewards
from .mismatch import IMPORTANCE_LEVELS, rollout_correction_weights
from .reinforce_plus_plus import (
    REINFORCE_PLUS_PLUS,
    REINFORCE_PLUS_PLUS_BASELINE,
    reinforce_plus_plus_advantage,
    reinforce_plus_plus_baseline_advantage,
)
from .rloo import RLOO, reinforce_loss, rloo_advantage
from .void_turns import keep_mask, void_turns

__all__ = [
    "ADVANTAGES",
    "AGGREGATIONS",
    "IMPORTANCE_LEVELS",
    "KL_ESTIMATORS",
    "OBJECTIVES",
    "POLICY_LOSSES",
    "ActorConfig",
    "AdvantageEstimator",
    "Loss",
    "LossConfig",
    "Objective",
    "PolicyLoss",
    "agg_loss",
    "find_objective",
    "informative",
    "keep_mask",
    "kl_penalty",
    "outcome_rewards",
    "penalised_rewards",
    "rollout_correction_weights",
    "void_turns",
]

OBJECTIVES: dict[str, Objective] = {
    "grpo": GRPO,
    "dr_grpo": DR_GRPO,
    "dapo": DAPO,
    "rloo": RLOO,
    "reinforce_plus_plus": REINFORCE_PLUS_PLUS,
    "reinforce_plus_plus_baseline": REINFORCE_PLUS_PLUS_BASELINE,
    "gspo": GSPO,
    "cispo": CISPO,
    "gppo": GPPO,
}

ADVANTAGES: dict[str, AdvantageEstimator] = {
    "grpo": grpo_advantage,
    "dr_grpo": dr_grpo_advantage,
    "rloo": rloo_advantage,
    "reinforce_plus_plus": reinforce_plus_plus_advantage,
    "reinforce_plus_plus_baseline": reinforce_plus_plus_baseline_advantage,
}

POLICY_LOSSES: dict[str, PolicyLoss] = {
    "clipped": clipped_loss,
    "reinforce": reinforce_loss,
    "gspo": gspo_loss,
    "cispo": cispo_loss,
    "gppo": gppo_loss,
}


def find_objective(
    given: str | Objective | Callable[[], Objective],
    *,
    trusted: bool = True,
    folder: Path | None = None,
) -> Objective:
    """The objective of that name, by the grammar of `tools/importing.py`, or the one given.

    `dapo`; of your own `my_objectives:cut_off` or `my_objectives.py:cut_off@most=2`, an `Objective`
    or a function of the parameters that makes one. Raises UsageError for any other.
    """
    made: Any = given
    if isinstance(given, str):
        found = find("objective", given, OBJECTIVES, trusted=trusted, folder=folder)
        made = found.make() if found.configured or callable(found.value) else found.value
    elif callable(given):
        made = given()
    if not isinstance(made, Objective):
        raise UsageError(
            f"the objective {given!r} is of type {type(made).__name__}: name an Objective, or a "
            "function that makes one"
        )
    return made

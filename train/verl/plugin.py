"""The plug-in verl loads in each of its processes, by the entry point `verl.plugins`.

It registers the agent loop `interlace`, and of our objectives those that verl lacks:

    actor_rollout_ref.rollout.agent.default_agent_loop=interlace
    algorithm.adv_estimator=dr_grpo, team_grpo for teams and tree_grpo for trees
    actor_rollout_ref.actor.policy_loss.loss_mode=gppo

verl says nothing of a plug-in that fails to load, and then knows no agent loop of this name: here
it is a warning.
"""

import logging

from ..objectives import ADVANTAGES, POLICY_LOSSES
from .team import ADVANTAGE, TREE_ADVANTAGE, team_grpo_advantage, tree_grpo_advantage

__all__ = ["LOOP", "register"]

LOOP = "interlace"


def register() -> None:
    """Tell verl 0.9 of the loop and of the objectives that it lacks."""
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.trainer.ppo import core_algos

    _agent_loop_registry[LOOP] = {"_target_": "interlace.train.verl.loop.InterlaceLoop"}
    for name in ADVANTAGES.keys() - core_algos.ADV_ESTIMATOR_REGISTRY.keys():
        core_algos.register_adv_est(name)(ADVANTAGES[name])
    core_algos.register_adv_est(ADVANTAGE)(team_grpo_advantage)
    core_algos.register_adv_est(TREE_ADVANTAGE)(tree_grpo_advantage)
    for name in POLICY_LOSSES.keys() - {*core_algos.POLICY_LOSS_REGISTRY, "clipped", "reinforce"}:
        core_algos.register_policy_loss(name)(POLICY_LOSSES[name])


try:
    register()
except Exception:
    logging.getLogger(__name__).warning(
        "interlace's plug-in for verl can't be loaded", exc_info=True
    )
    raise

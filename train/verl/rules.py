"""Settings of a run that verl would take and not do, or refuse only once the models are loaded:
each as a sentence that names the key and what to set.
"""

import warnings
from collections.abc import Iterator
from typing import Any

from ...rollout.formats import find_format
from ..rewards import Checker
from ..team import find_attempt, find_role_rewards
from .settings import PLACE, LoopSettings
from .team import ADVANTAGE, SAMPLER, TREE_ADVANTAGE

__all__ = ["ACTOR", "ROLLOUT", "SAMPLERS", "has_critic", "nodes", "parallel", "problems", "unread"]

ROLLOUT = "actor_rollout_ref.rollout"
ACTOR = "actor_rollout_ref.actor"
V1 = "trainer.v1"
CORRECTION = "algorithm.rollout_correction"
SAMPLERS = {
    "sync": "Sampler",
    "colocate_async": "AsyncSampler",
    "separate_async": "AsyncSampler",
}
"""Our sampler for each of verl's trainers (sampler.py). A team's is TeamSampler."""

# Each compares a response with the others of its group.
_GROUPED = {
    "dr_grpo", "gpg", "grpo", "grpo_passk", "grpo_vectorized", "opo", "rloo", "rloo_vectorized",
    "reinforce_plus_plus_baseline",
}  # fmt: skip


def problems(config: Any, settings: LoopSettings) -> Iterator[str]:
    """All that is wrong with a composed configuration; nothing is opened for it but a team's
    module. Raises UsageError where that has no such function.
    """
    yield from unread(config)
    yield from _lengths(config, settings)
    yield from _sampling(config)
    yield from _batches(config, settings)
    yield from _loss(config)
    yield from _ends(config)
    yield from _team(config, settings)
    yield from _sampler(config, settings)
    yield from _asynchronous(config)


def parallel(config: Any) -> int:
    """Groups of cards that each take their own part of a batch (data parallel), with FSDP."""
    cards = int(config.trainer.n_gpus_per_node * config.trainer.nnodes)
    return max(1, cards // int(config.actor_rollout_ref.actor.ulysses_sequence_parallel_size))


def nodes(config: Any) -> int:
    """The number of nodes: the trainer's, plus those of a separate engine if there is one."""
    more = config.trainer.v1.trainer_mode == "separate_async"
    return int(config.trainer.nnodes + (config.actor_rollout_ref.rollout.nnodes if more else 0))


def unread(config: Any) -> Iterator[str]:
    """Problems: keys that the loop does not read, or that verl's old trainer ignores."""
    rollout = config.actor_rollout_ref.rollout
    if not config.trainer.use_v1:
        yield (
            "trainer.use_v1=false: a session that fails would end verl's old trainer, so leave it "
            "true"
        )
    if rollout.name == "trtllm":
        yield (
            f"{ROLLOUT}.name=trtllm: this loop speaks the sampling parameters of vLLM and SGLang, "
            "so set it to vllm or sglang"
        )
    if config.data.get("apply_chat_template_kwargs"):
        yield (
            "data.apply_chat_template_kwargs is not read by this loop: write what it says into "
            "actor_rollout_ref.model.custom_chat_template"
        )
    if rollout.agent.default_agent_loop != "interlace":
        yield (
            f"{ROLLOUT}.agent.default_agent_loop={rollout.agent.default_agent_loop}: what "
            f"{PLACE} says is done by the agent loop interlace, so set it to that"
        )


def _lengths(config: Any, settings: LoopSettings) -> Iterator[str]:
    rollout, actor = config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor
    room = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    tokens = actor.ppo_max_token_len_per_gpu * actor.ulysses_sequence_parallel_size
    if actor.use_dynamic_bsz and tokens < room:
        yield (
            f"{ACTOR}.ppo_max_token_len_per_gpu={actor.ppo_max_token_len_per_gpu}: an episode may "
            f"have {room} tokens, so set it to that at least, or split episodes over several cards "
            f"with {ACTOR}.ulysses_sequence_parallel_size"
        )
    if settings.max_tool_tokens >= rollout.response_length:
        yield (
            f"{PLACE}.max_tool_tokens={settings.max_tool_tokens} leaves no room to answer "
            f"within data.max_response_length={rollout.response_length}"
        )
    if rollout.name == "sglang" and rollout.get("skip_tokenizer_init") and _stops(settings):
        yield (
            f"{ROLLOUT}.skip_tokenizer_init=true: SGLang can't look for the stop strings of the "
            f"format {settings.format} without its tokenizer, so set it to false"
        )


def _stops(settings: LoopSettings) -> bool:
    return bool(find_format(settings.format).stop)


def _sampling(config: Any) -> Iterator[str]:
    """Problems: tokens must be drawn from the distribution that is trained."""
    rollout = config.actor_rollout_ref.rollout
    if rollout.top_p < 1 or rollout.top_k > 0:
        key, value = ("top_p", rollout.top_p) if rollout.top_p < 1 else ("top_k", rollout.top_k)
        yield (
            f"{ROLLOUT}.{key}={value} cuts off what is sampled, but not what is trained, and so "
            f"biases every ratio: set {ROLLOUT}.top_p=1 and top_k=-1 (val_kwargs may differ)"
        )
    if not rollout.temperature > 0:
        yield (
            f"{ROLLOUT}.temperature={rollout.temperature}: all attempts at a task would be the "
            "same, so set it above 0"
        )
    if config.algorithm.adv_estimator in _GROUPED and rollout.n < 2:
        yield (
            f"{ROLLOUT}.n={rollout.n}: algorithm.adv_estimator={config.algorithm.adv_estimator} "
            "compares attempts at a task with each other, so set it to 2 at least"
        )


def _batches(config: Any, settings: LoopSettings) -> Iterator[str]:
    actor, rollout, batch = (
        config.actor_rollout_ref.actor,
        config.actor_rollout_ref.rollout,
        config.data.train_batch_size,
    )
    cards = config.trainer.n_gpus_per_node * config.trainer.nnodes
    split = int(actor.ulysses_sequence_parallel_size)
    if cards % split:
        yield f"{ACTOR}.ulysses_sequence_parallel_size={split} does not divide {cards} cards"
    replica = (
        rollout.tensor_model_parallel_size
        * rollout.data_parallel_size
        * rollout.pipeline_model_parallel_size
    )
    if cards % replica:
        yield (
            f"{ROLLOUT}.tensor_model_parallel_size={rollout.tensor_model_parallel_size}: an engine "
            f"on {replica} cards does not divide {cards}"
        )
    parts = parallel(config)
    trained = {"actor_rollout_ref.actor": actor}
    if has_critic(config):
        trained["critic"] = config.critic
    for place, part in trained.items():
        mini = part.ppo_mini_batch_size
        parted = settings.attempt or settings.strategy  # into more rows than there are tasks
        if not parted and batch % mini:
            yield (
                f"{place}.ppo_mini_batch_size={mini} does not divide "
                f"data.train_batch_size={batch}: verl would fill up with rows that count for "
                "nothing"
            )
        rows = mini * rollout.n
        if rows % parts:
            yield (
                f"{place}.ppo_mini_batch_size={mini} times {ROLLOUT}.n={rollout.n} is no multiple "
                f"of the {parts} groups of cards that share a batch"
            )
        micro = part.ppo_micro_batch_size_per_gpu
        if not part.use_dynamic_bsz and micro and (rows // parts) % micro:
            yield (
                f"{place}.ppo_micro_batch_size_per_gpu={micro} does not divide the "
                f"{rows // parts} rows that a card gets of {place}.ppo_mini_batch_size={mini}"
            )


def has_critic(config: Any) -> bool:
    """True if a value model is trained beside the policy."""
    from verl.trainer.ppo.utils import need_critic

    with warnings.catch_warnings():  # it warns of each configuration that has none
        warnings.simplefilter("ignore")
        return bool(need_critic(config))


def _loss(config: Any) -> Iterator[str]:
    actor, correction = config.actor_rollout_ref.actor, config.algorithm.rollout_correction
    if actor.loss_agg_mode.endswith("-norm") and actor.loss_scale_factor is None:
        yield (
            f"{ACTOR}.loss_agg_mode={actor.loss_agg_mode} without a constant: verl would divide by "
            f"the longest response of each micro-batch, so set {ACTOR}.loss_scale_factor="
            "'${data.max_response_length}'"
        )
    asked = [key for key in ("rollout_is", "rollout_rs") if correction.get(key)]
    logged = config.actor_rollout_ref.rollout.calculate_log_probs
    if (asked or correction.bypass_mode) and not logged:
        yield (
            f"{CORRECTION}.{asked[0] if asked else 'bypass_mode'} needs the engine's own "
            f"log-probabilities: set {ROLLOUT}.calculate_log_probs=true"
        )
    if correction.get("rollout_rs") and correction.get("rollout_rs_threshold") is None:
        yield f"{CORRECTION}.rollout_rs={correction.rollout_rs} needs a rollout_rs_threshold"
    if correction.bypass_mode and (asked or correction.loss_type != "ppo_clip"):
        policy = actor.policy_loss
        if policy.loss_mode != "bypass_mode" or not policy.get("rollout_correction"):
            yield (
                f"{CORRECTION}.bypass_mode=true: verl then looks at "
                f"{asked[0] if asked else 'loss_type'} in the actor alone, so set "
                f"{ACTOR}.policy_loss.loss_mode=bypass_mode and "
                f"+{ACTOR}.policy_loss.rollout_correction='${{{CORRECTION}}}'"
            )


def _ends(config: Any) -> Iterator[str]:
    """A run that ends has saved what it learnt, and has been looked at."""
    trainer = config.trainer
    for key, lost in (("save_freq", "checkpoint"), ("test_freq", "validation")):
        if trainer[key] <= 0:
            yield (
                f"trainer.{key}={trainer[key]}: the run would end without a {lost}, so set it to a "
                "number of steps (the last step has one whatever the number)"
            )


def _sampler(config: Any, settings: LoopSettings) -> Iterator[str]:
    sampler, filters = config.trainer.v1.sampler, config.algorithm.filter_groups or {}
    parted = settings.attempt or settings.strategy
    wanted = SAMPLER[1] if parted else SAMPLERS.get(config.trainer.v1.trainer_mode)
    custom = sampler.custom_sampler
    if custom.path == SAMPLER[0] and custom.name != wanted:
        yield (
            f"{V1}.sampler.custom_sampler.name={custom.name}: with {V1}.trainer_mode="
            f"{config.trainer.v1.trainer_mode} it is {wanted}"
        )
    if custom.path == SAMPLER[0] and "refills" not in (sampler.sampler_kwargs or {}):
        yield (
            f"{V1}.sampler.custom_sampler.path={custom.path} without {V1}.sampler.sampler_kwargs: "
            "build on interlace_base, which sets them"
        )
    if config.trainer.v1.trainer_mode == "sync" and not sampler.sync_refill_failed_groups:
        yield (
            f"{V1}.sampler.sync_refill_failed_groups=false: a group in which all episodes failed "
            "on our side would end the run, so set it to true"
        )
    if not filters.get("enable"):
        return
    if not filters.get("metric"):
        yield (
            "algorithm.filter_groups.enable=true without a metric: set "
            "algorithm.filter_groups.metric=correct, or another part of the reward"
        )
    if not custom.name:
        yield (
            "algorithm.filter_groups.enable=true: verl's own sampler would draw new tasks for ever "
            f"where nobody solves any, so build on interlace_base, whose sampler stops after "
            f"{PLACE}.refills"
        )


def _asynchronous(config: Any) -> Iterator[str]:
    mode, rollout = config.trainer.v1.trainer_mode, config.actor_rollout_ref.rollout
    if mode not in SAMPLERS:
        yield f"{V1}.trainer_mode is one of {', '.join(SAMPLERS)}, not {mode!r}"
    if not config.actor_rollout_ref.hybrid_engine:
        yield (
            "actor_rollout_ref.hybrid_engine=false: verl 0.9.1 fails with it in every mode (in "
            "separate_async its log is handed an argument that it does not know), so set it to true"
        )
    if mode != "separate_async":
        return
    batch, mini = config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size
    updates = config.trainer.v1.separate_async.parameter_sync_step
    if batch != mini * updates:
        yield (
            f"data.train_batch_size={batch}: with {V1}.trainer_mode=separate_async it is "
            f"{V1}.separate_async.parameter_sync_step={updates} times "
            f"{ACTOR}.ppo_mini_batch_size={mini}"
        )
    for key in ("nnodes", "n_gpus_per_node"):
        if not rollout[key]:
            yield (
                f"{ROLLOUT}.{key}={rollout[key]}: with {V1}.trainer_mode=separate_async the engine "
                "has nodes and cards of its own, so say how many"
            )
    fsdp = config.actor_rollout_ref.actor.fsdp_config
    if fsdp.param_offload and updates > 1 and not config.algorithm.rollout_correction.bypass_mode:
        yield (
            f"{ACTOR}.fsdp_config.param_offload=true: verl's separate_async keeps the old policy "
            f"beside the new one only on the card, so set it to false or {CORRECTION}.bypass_mode="
            "true"
        )
    if rollout.checkpoint_engine.backend == "naive":
        yield (
            f"{ROLLOUT}.checkpoint_engine.backend=naive: with {V1}.trainer_mode=separate_async the "
            "weights go from card to card, so set it to nccl (it needs cupy)"
        )


def _team(config: Any, settings: LoopSettings) -> Iterator[str]:
    """A team or a tree wants our estimator and our sampler, and they a team or a tree."""
    algorithm, v1 = config.algorithm, config.trainer.v1
    sampler = v1.sampler.custom_sampler
    kinds = {
        ADVANTAGE: ("attempt", settings.attempt, "interlace_team"),
        TREE_ADVANTAGE: ("strategy", settings.strategy, "interlace_tree"),
    }
    given = {estimator: kind for estimator, kind in kinds.items() if kind[1] is not None}
    if not given:
        if algorithm.adv_estimator in kinds:
            name, _, recipe = kinds[algorithm.adv_estimator]
            whose = recipe.removeprefix("interlace_")
            told = f"algorithm.adv_estimator={algorithm.adv_estimator}"
            yield f"{told} is for {whose}s: set {PLACE}.{name}"
        return
    ((estimator, (setting, _, recipe)),) = given.items()
    found = {
        "algorithm.adv_estimator": (algorithm.adv_estimator, estimator),
        f"{V1}.sampler.custom_sampler.path": (sampler.path, SAMPLER[0]),
        f"{V1}.sampler.custom_sampler.name": (sampler.name, SAMPLER[1]),
        f"{V1}.trainer_mode": (v1.trainer_mode, "sync"),
        "algorithm.use_kl_in_reward": (algorithm.use_kl_in_reward, False),
        "algorithm.filter_groups.enable": (
            bool((algorithm.filter_groups or {}).get("enable")),
            False,
        ),
    }
    for key, (now, wanted) in found.items():
        if now != wanted:
            yield (
                f"{PLACE}.{setting} wants {key}={wanted}, not {now}: put {recipe} after the "
                "recipe in your file's defaults"
            )
    if settings.attempt is not None:
        find_attempt(settings.attempt)
        find_role_rewards(settings.rewards, Checker())

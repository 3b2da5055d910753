"""How much of a card's memory a training run takes, part by part: an estimate, made before it runs.

Reckoned from the model's sizes and the configuration alone. In GB of 10^9 bytes. What is left out
(fragmentation, small buffers) is covered by `MARGIN`; an estimate that fits is no promise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import TrainConfig
from ..local.logprobs import LOGITS
from ..local.prefixes import LONGEST
from .model_shapes import Shape

__all__ = ["MARGIN", "Estimate", "Part", "estimate_local", "estimate_verl", "vllm_room"]

MARGIN = 0.08
"""The share of a card that is left free."""
_CONTEXT = 1.0
"""GB of a CUDA context with its libraries."""
_ASLEEP = 1.5
"""GB that vLLM keeps while it sleeps: its context and CUDA graphs."""
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Part:
    """One use of memory, in GB on one card, and the setting that changes it."""

    name: str
    gigabytes: float
    setting: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The phases of a step, each with its parts; the largest phase is what a card must hold."""

    phases: Mapping[str, Sequence[Part]]

    def total(self, phase: str) -> float:
        """GB of one phase."""
        return sum(part.gigabytes for part in self.phases[phase])

    @property
    def peak(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=self.total)

    def problem(self, card: float) -> str | None:
        """Why it does not fit a card of so many GB, and what to change; None where it fits."""
        if self.total(self.peak) <= card * (1 - MARGIN):
            return None
        parts = [part for part in self.phases[self.peak] if part.setting]
        largest = max(parts, key=lambda part: part.gigabytes)
        return (
            f"{self.peak} takes about {self.total(self.peak):.1f} GB of {card:g}: its largest part "
            f"is {largest.name} ({largest.gigabytes:.1f} GB), which {largest.setting} changes"
        )


def estimate_local(config: TrainConfig, shape: Shape) -> Estimate:
    """The local trainer: weights in training and the engine's copy of them on one card, always."""
    half = config.lora_rank > 0 and config.precision == "bfloat16"
    weights = shape.parameters * (2 if half else 4) / _GB
    trained = shape.adapters(config.lora_rank) if config.lora_rank else shape.parameters
    tokens = max(config.micro_tokens, config.max_tokens)
    engine = Part("the engine's weights", 2 * shape.parameters / _GB, "model")
    always = [
        Part("weights in training", weights, "lora_rank"),
        engine,
        Part("AdamW's moments", 8 * trained / _GB, "lora_rank"),
        Part("CUDA", _CONTEXT),
    ]
    if config.kl_weight and not config.lora_rank:
        always.append(Part("the reference model", weights, "kl_weight"))
    width = 2 if config.precision == "bfloat16" else 4
    rounded = 0.0 if half or width == 4 else 2 * shape.parameters / _GB
    cached = config.concurrency * config.max_tokens * shape.kv_bytes / _GB
    # The engine keeps the room for the next rollout.
    always.append(Part("keys and values", cached, "concurrency"))
    return Estimate(
        {
            "rolling out": always,
            "updating": [
                *always,
                Part("gradients", 4 * trained / _GB, "lora_rank"),
                Part("weights in bfloat16, for one pass", rounded),  # autocast keeps them
                _activations(shape, tokens, width, config.gradient_checkpointing, "micro_tokens"),
                # Of packs of rows: which token attends to which, and that as numbers.
                Part(
                    "attention masks",
                    config.pack_prefixes * tokens * min(tokens, LONGEST) * (1 + width) / _GB,
                    "micro_tokens",
                ),
                Part("logits", 3 * 4 * LOGITS / _GB),  # a chunk: float32, its softmax, its gradient
            ],
        }
    )


def estimate_verl(config: Any, shape: Shape, card: float) -> Estimate:
    """With verl: FSDP2 and vLLM on the same cards, of `card` GB each. `config` is composed.

    With `param_offload` and `optimizer_offload` the trainer's state is on the card while it
    updates, and on the host while vLLM samples; with `offload_policy` it is always on the host.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    model, fsdp = config.actor_rollout_ref.model, config.actor_rollout_ref.actor.fsdp_config
    cards = config.trainer.n_gpus_per_node * config.trainer.nnodes
    width = 2 if fsdp.model_dtype in ("bf16", "bfloat16") else 4
    trained = shape.adapters(model.lora_rank) if model.lora_rank else shape.parameters
    at = "actor_rollout_ref.actor"
    state = [
        Part("weights in training", width * shape.parameters / cards / _GB, _offload(at)),
        Part("AdamW's moments", 2 * width * trained / cards / _GB, _offload(at)),
    ]
    gradients = Part("gradients", width * trained / cards / _GB, _offload(at))
    tokens = actor.ppo_max_token_len_per_gpu
    # Two layers unsharded in bfloat16 (one computes, the next is gathered), and the embeddings.
    gathered = 2 * (2 * shape.layer + shape.vocabulary * shape.hidden) / _GB
    working = [
        Part("unsharded layers", gathered),
        _activations(
            shape, tokens, 2, model.enable_gradient_checkpointing, f"{at}.ppo_max_token_len_per_gpu"
        ),
        # In bfloat16, and their gradient.
        Part("logits", 2 * 2 * tokens * shape.vocabulary / _GB, f"{at}.ppo_max_token_len_per_gpu"),
        Part("vLLM, asleep", _ASLEEP),
        Part("CUDA", _CONTEXT),
    ]
    on_card = [] if fsdp.offload_policy else [*state, gradients]
    stays = [
        part
        for part, leaves in zip(state, (fsdp.param_offload, fsdp.optimizer_offload), strict=True)
        if not (leaves or fsdp.offload_policy)
    ]
    place = "actor_rollout_ref.rollout.gpu_memory_utilization"
    sampling = [
        Part("vLLM, its weights and its cache", rollout.gpu_memory_utilization * card, place),
        *stays,
        Part("CUDA", _CONTEXT),
    ]
    served = Part(
        "vLLM's weights",
        2 * shape.parameters / rollout.tensor_model_parallel_size / _GB,
        "actor_rollout_ref.rollout.tensor_model_parallel_size",
    )
    syncing = [
        served,
        *([] if fsdp.offload_policy else state[:1]),
        *(part for part in stays if part is not state[0]),
        Part("a tensor, gathered", width * shape.vocabulary * shape.hidden / _GB),
        Part("vLLM, its graphs", _ASLEEP),
        Part("CUDA", _CONTEXT),
    ]
    return Estimate(
        {
            "sampling": sampling,
            "handing the weights to vLLM": syncing,
            "updating": [*on_card, *working],
        }
    )


def vllm_room(config: Any, shape: Shape, card: float) -> tuple[int, str | None]:
    """Full-length episodes that vLLM can hold at once on one replica, and why that is too few."""
    rollout = config.actor_rollout_ref.rollout
    split = rollout.tensor_model_parallel_size
    own = rollout.gpu_memory_utilization * card - _ASLEEP - 2 * shape.parameters / split / _GB
    length = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    room = int(own * _GB / (shape.kv_bytes / split * length))
    if room >= 1:
        return room, None
    place = "actor_rollout_ref.rollout.gpu_memory_utilization"
    return 0, (
        f"vLLM has no room for one episode of {length} tokens: raise {place}, or lower "
        "data.max_response_length"
    )


def _activations(shape: Shape, tokens: int, width: int, checkpointed: bool, setting: str) -> Part:
    """The memory that a forward pass keeps for the gradient.

    A layer keeps about 8 numbers per hidden unit, its queries, keys and values, their results, and
    4 numbers per unit of its MLP for each token; with
    checkpointing only its input, and one layer has all of it while it is computed again.
    """
    heads = 2 * shape.heads * shape.head_dim + 2 * shape.kv_heads * shape.head_dim
    layer = tokens * (8 * shape.hidden + heads + 4 * shape.intermediate) * width
    inputs = tokens * shape.hidden * width * shape.layers
    total = inputs + 2 * layer if checkpointed else layer * shape.layers
    return Part("activations", total / _GB, setting)


def _offload(at: str) -> str:
    return f"{at}.fsdp_config.offload_policy"

"""LoRA: small matrices next to frozen ones, trained in their place (peft; arXiv 2106.09685)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...tools.errors import MissingExtra

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["add_lora", "has_lora", "lora_scale", "merged_weights", "without_lora"]

_NAME = "default"
"""What peft calls an adapter that nobody gave a name."""


def add_lora(model: "PreTrainedModel", rank: int, alpha: float) -> None:
    """Add adapters of that rank to every linear layer but the output's; only they are trained.

    W x becomes W x + (alpha / rank) B A x, with B = 0 at the start, so that nothing has changed
    yet. Adapters are float32, whatever the model is: small steps would be lost in bfloat16. Raises
    MissingExtra without peft.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("LoRA", "train") from error
    settings: Any = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a number; annotated as a whole one
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    inject_adapter_in_model(settings, model)
    for parameter in model.parameters():
        if parameter.requires_grad:  # peft gives them the type of what they stand beside
            parameter.data = parameter.data.float()


def has_lora(model: "PreTrainedModel") -> bool:
    """True if the model has adapters."""
    return any(True for _ in _layers(model))


def lora_scale(model: "PreTrainedModel") -> float | None:
    """The factor of the adapters' product, alpha / rank; None without adapters."""
    return next((float(layer.scaling[_NAME]) for _, layer in _layers(model)), None)


def merged_weights(model: "PreTrainedModel") -> "dict[str, Tensor]":
    """The weights as an ordinary model has them: adapters added in, under the usual names.

    Without adapters, `model.state_dict()`. The model itself is not changed. Weights that an adapter
    was added to are returned in float32, so that the caller rounds them only once, if at all.
    """
    import torch

    layers = dict(_layers(model))
    weights: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            place, _, leaf = name.rpartition(".base_layer.")
            if ".lora_" in name:
                continue
            if place and leaf == "weight":
                change = layers[place].get_delta_weight(_NAME)
                value = value.to(change.dtype) + change
            weights[name.replace(".base_layer.", ".")] = value
    return weights


@contextmanager
def without_lora(model: "PreTrainedModel") -> Iterator[None]:
    """The model as it was before its adapters were trained."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(model: "PreTrainedModel") -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_delta_weight"):
            yield name, module

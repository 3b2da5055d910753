"""The sizes of a dense transformer, as its config.json has them: what memory is reckoned from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...rollout.models.files import local_model
from ...tools.errors import DataError, ModelError
from ...tools.files import read_object

__all__ = ["KNOWN_SHAPES", "Shape", "find_shape"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder with grouped-query attention and a gated MLP (Qwen2, Qwen3, Llama, ...)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool

    @property
    def layer(self) -> int:
        """Weights of one layer; norms and biases, below a thousandth, are left out.

        Example:
            >>> round(28 * KNOWN_SHAPES["Qwen/Qwen3-0.6B"].layer / 1e6)
            440
        """
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """All weights.

        Example:
            >>> [f"{shape.parameters / 1e9:.1f}" for shape in KNOWN_SHAPES.values()]
            ['0.6', '1.7', '4.0', '0.5', '1.5', '3.1', '7.6', '32.8']
        """
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * self.layer + embeddings

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values, in two bytes a number."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def adapters(self, rank: int) -> int:
        """Weights of LoRA adapters of that rank on all linear layers."""
        h, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + h) + 2 * (self.hidden + kv)
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Shape":
        """From a config.json. Raises LookupError, TypeError or ValueError where it is of another
        kind of model.
        """
        if config.get("num_experts") or config.get("num_local_experts"):
            raise ValueError("a mixture of experts")
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )


KNOWN_SHAPES: Mapping[str, Shape] = {
    "Qwen/Qwen3-0.6B": Shape(28, 1024, 3072, 16, 8, 128, 151_936, True),
    "Qwen/Qwen3-1.7B": Shape(28, 2048, 6144, 16, 8, 128, 151_936, True),
    "Qwen/Qwen3-4B": Shape(36, 2560, 9728, 32, 8, 128, 151_936, True),
    "Qwen/Qwen2.5-0.5B": Shape(24, 896, 4864, 14, 2, 64, 151_936, True),
    "Qwen/Qwen2.5-1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151_936, True),
    "Qwen/Qwen2.5-3B": Shape(36, 2048, 11_008, 16, 2, 128, 151_936, True),
    "Qwen/Qwen2.5-7B": Shape(28, 3584, 18_944, 28, 4, 128, 152_064, False),
    "Qwen/Qwen2.5-32B": Shape(64, 5120, 27_648, 40, 8, 128, 152_064, False),
}
"""From the models' own config.json, for an estimate where they are not on this machine."""


def find_shape(model: str) -> Shape:
    """The sizes of a model on this machine, or of one that is known; fetches nothing.

    Raises ModelError where they can't be known.
    """
    folder = local_model(model)
    if folder is not None:
        return _read(folder / "config.json")
    name = model.replace("-Coder", "").removesuffix("-Instruct").removesuffix("-Base")
    if name in KNOWN_SHAPES:
        return KNOWN_SHAPES[name]
    raise ModelError(
        f"the sizes of {model} are not known: fetch it first (`hf download {model} config.json`), "
        "or name its folder"
    )


def _read(file: Path) -> Shape:
    try:
        return Shape.read(read_object(file))
    except (DataError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} is not the config of a dense transformer: {error}") from error

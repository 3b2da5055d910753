"""How much `gpu.py` does with which model."""

from dataclasses import dataclass

from interlace.train.preflight.model_shapes import KNOWN_SHAPES, Shape

__all__ = ["Plan", "plans"]


@dataclass(frozen=True)
class Plan:
    """The work of all rows with one model; sized for 0.6 billion weights on a large card."""

    name: str
    shape: Shape
    device: str
    sequences: tuple[int, ...] = (8, 32, 128)
    """Batch sizes of the row `sampling`; the last but one is that of the other rows."""
    prompt: int = 128
    sampled: int = 128
    turns: int = 4
    forced: int = 32
    """Tokens of a tool's output."""
    rows: int = 32
    """Rows of a training batch."""
    lengths: tuple[int, int] = (64, 512)
    """Tokens of the shortest of these rows and of the longest."""
    micro_tokens: int = 8192
    runs: int = 3
    """Of which the median is given."""


def plans(device: str, toy: bool) -> list[Plan]:
    """Qwen3-0.6B and Qwen3-1.7B in their published sizes, or a model that a CPU runs in no time."""
    if toy:
        shape = Shape(2, 64, 128, 4, 2, 32, 1024, tied=True)
        return [Plan("toy", shape, device, (2, 4, 8), 96, 16, 2, 8, 4, (32, 96), 448, 1)]
    names = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B")
    return [Plan(name.partition("/")[2], KNOWN_SHAPES[name], device) for name in names]

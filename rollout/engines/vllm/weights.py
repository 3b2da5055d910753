"""New weights for vLLM: what fits, and the way there."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ....tools.errors import DataError, ModelError
from ....tools.files import read_object

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Shapes", "check_embedding", "check_shapes", "roomy", "shapes", "write"]

Shapes: TypeAlias = dict[str, tuple[int, ...]]

_EMBEDDING = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_MEMORY = Path("/dev/shm")


def shapes(folder: Path) -> Shapes:
    """The shape of every tensor in a folder's safetensors files.

    Raises ValueError if there are none, or one can't be read.
    """
    from safetensors import SafetensorError, safe_open

    found: Shapes = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    found[name] = tuple(opened.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} is broken or cut short: {error}") from error
    if not found:
        raise ValueError(f"there are no safetensors files in {folder}")
    return found


def check_shapes(mine: Shapes, given: Shapes) -> None:
    """Raise ValueError where the given weights are not those of the model that runs."""
    for what, names in (
        ("are missing", mine.keys() - given.keys()),
        ("are not the model's", given.keys() - mine.keys()),
        ("have another shape", {n for n in mine.keys() & given.keys() if mine[n] != given[n]}),
    ):
        if names:
            raise ValueError(f"weights that {what}: {', '.join(sorted(names)[:3])}")


def check_embedding(folder: Path, names: Shapes) -> None:
    """Raise ModelError where the embedding is under the name of the head it is tied to.

    vLLM reads it under its own name alone, and without a word runs with one that is empty.
    """
    try:
        config = read_object(folder / "config.json")
    except DataError:
        return  # vLLM has the better words for it
    tied = config.get("tie_word_embeddings", False)
    if tied and "lm_head.weight" in names and not any(n.endswith(_EMBEDDING) for n in names):
        raise ModelError(
            f"{folder} has its tied embedding as lm_head.weight, where vLLM does not find it: "
            "load it with transformers and save it again with save_pretrained"
        )


def write(weights: "Mapping[str, Tensor]", file: Path) -> None:
    """Write tensors, of whatever device, to a safetensors file."""
    from safetensors.torch import save_file

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(plain, file, {"format": "pt"})


def roomy(size: int) -> str:
    """A folder with room for so many bytes: in memory, if it can be."""
    for folder in (str(_MEMORY), tempfile.gettempdir()):
        if Path(folder).is_dir() and shutil.disk_usage(folder).free > size + (64 << 20):
            return folder
    raise ValueError(f"no room for {size / 2**30:.1f} GiB of weights in {tempfile.gettempdir()}")

"""A checkpoint on disk, checked before it is loaded; safetensors only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....tools.errors import DataError, MissingExtra, ModelError
from ....tools.files import read_object
from .memory import free_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["load_model", "pick_device"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Beside the weights: activations, a first cache, what loading itself takes.
_HEADROOM = 1.15


def pick_device(name: str) -> "torch.device":
    """The device of that name; "auto" is CUDA, else MPS, else the CPU.

    Raises MissingExtra without torch, ModelError if there is no such device.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("A model in this process", "local") from error
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ModelError(f"the device {name!r} can't be used here, try device='cpu'") from error
    return device


def load_model(folder: Path, device: "torch.device", dtype: str) -> "nn.Module":
    """Read a causal language model from its folder, in evaluation mode.

    `dtype` "auto" is float32 on a CPU and the checkpoint's own elsewhere. Raises ModelError, in one
    sentence, for all that can be wrong with the files or too large for the machine, and
    MissingExtra without transformers.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtra("A model in this process", "local") from error
    config = _config(folder)
    shapes = _weights(folder)
    stored = getattr(torch, str(getattr(config, "dtype", None)).removeprefix("torch."), None)
    if dtype == "auto":
        wanted = (stored or torch.float32) if device.type != "cpu" else torch.float32
    elif dtype in ("float32", "bfloat16", "float16"):
        wanted = getattr(torch, dtype)
    else:
        raise ModelError(f"dtype must be auto, float32, bfloat16 or float16, not {dtype!r}")
    _check_sizes(folder, config, shapes)
    _check_memory(folder, shapes, wanted.itemsize, device)
    auto: Any = transformers.AutoModelForCausalLM  # typed otherwise in each version
    with _quiet():
        try:
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=wanted,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # told below, in one sentence
                output_loading_info=True,
            )
        except Exception as error:  # the library raises many kinds
            raise ModelError(f"{folder} can't be loaded: {_first_line(error)}") from error
    _check_report(folder, report)
    try:
        return model.to(device).eval()  # type: ignore[no-any-return]
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{folder} does not fit into the memory of {device}") from error


def _config(folder: Path) -> Any:
    import transformers

    if not folder.is_dir():
        raise ModelError(f"there is no model folder {folder}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model: it has no config.json")
    try:
        said = read_object(folder / "config.json")
        # The library makes lists as long as that.
        for part in (said, said.get("text_config")):
            layers = part.get("num_hidden_layers") if isinstance(part, dict) else None
            if isinstance(layers, int) and layers > 10_000:
                raise ModelError(f"{folder / 'config.json'} says num_hidden_layers {layers}")
        with _quiet():
            return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except ModelError:
        raise
    except Exception as error:  # broken JSON, unknown architecture, a config that fails its checks
        raise ModelError(f"{folder / 'config.json'} can't be read: {_first_line(error)}") from error


def _weights(folder: Path) -> dict[str, int]:
    """The number of elements of every tensor. Opens each file, so that broken ones are found."""
    from safetensors import SafetensorError, safe_open

    elements: dict[str, int] = {}
    for file in _files(folder):
        try:
            with safe_open(file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118 (no mapping)
                    count = 1
                    for size in opened.get_slice(name).get_shape():
                        count *= size
                    elements[name] = count
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{file} is broken or cut short, fetch it again ({_first_line(error)})"
            ) from error
    return elements


def _files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = {str(name) for name in read_object(index)["weight_map"].values()}
        except (DataError, LookupError, AttributeError) as error:
            raise ModelError(f"{index} is not a readable index of weights") from error
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise ModelError(f"{folder} lacks {missing[0]}, which its index names: fetch it again")
        return [folder / name for name in sorted(names)]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run code when it is "
            f"read: convert it to model.safetensors"
        )
    raise ModelError(f"{folder} is no model: it has no model.safetensors")


def _check_sizes(folder: Path, config: Any, elements: dict[str, int]) -> None:
    """Refuse sizes that the weights are far from: the library would first make such a model."""
    text = config.get_text_config()
    sizes = {name: getattr(text, name, None) for name in _SIZES}
    vocabulary, width, inner = (size if isinstance(size, int) else 0 for size in sizes.values())
    # Weights are stored with at most 8 numbers in an element, and embeddings may be narrower.
    if max(vocabulary, inner) * width > 16 * max(elements.values(), default=0):
        said = ", ".join(f"{name} {size}" for name, size in sizes.items() if size)
        raise ModelError(f"the weights in {folder} do not fit its config.json, which says {said}")


_SIZES = ("vocab_size", "hidden_size", "intermediate_size")


def _check_memory(
    folder: Path, elements: dict[str, int], itemsize: int, device: "torch.device"
) -> None:
    free = free_bytes(device)
    need = int(sum(elements.values()) * itemsize * _HEADROOM)
    if free is not None and need > free:
        raise ModelError(
            f"{folder} needs {need / 2**30:.1f} GiB, {device} has {free / 2**30:.1f} GiB free: "
            f"take a smaller model, dtype='bfloat16' or another machine"
        )


def _check_report(folder: Path, report: Any) -> None:
    mismatched = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    missing = sorted(report["missing_keys"])
    for names, what in ((mismatched, "in another shape than"), (missing, "no weights, unlike")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ModelError(
                f"the weights in {folder} do not fit its config.json: {names[0]}{more} "
                f"{'are there ' + what if names is mismatched else 'has ' + what} the config says"
            )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice on stderr while transformers loads."""
    import transformers

    logging: Any = transformers.utils.logging  # untyped
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
